// Part j: what strangers cost. CPU of a request that is refused, or open to all, beside that of one refused for want of a
// key; and what a thousand of each ask of D1 and of the engine, in a Lapidary of its own that has met none before.
import { randomBytes } from 'node:crypto';
import { mintSecret } from '../../src/crypto/mint.ts';
import { startGated } from '../lab/gate.ts';
import { startLiar } from '../lab/liar.ts';
import type { Bench } from './bench.ts';
import { load } from './load.ts';
import { alone, median, type Row } from './table.ts';

const rounds = 5;
/** Of each kind, all different where they can be: more than are sent in a second. */
const made = 20_000;
const counted = 1_000;
/** Whose unknown keys wait for the next second answers no more in it than it has of these. */
const connections = 100;

interface Stranger {
  what: string;
  status: number | readonly number[];
  request(): Buffer;
  /** What a thousand may ask, where that is to be reached: fewer than so many questions. */
  d1Below?: number;
  engineBelow?: number;
  /** What its CPU may be, where that is to be reached: fewer times that of one without a key. */
  timesBelow?: number;
}

/** Of what may be good: 30 in a minute of a network are looked up at once, the others together, once a second. */
const lookedUp = { d1Below: 100, engineBelow: 1, timesBelow: 6 };

const strangers: readonly Stranger[] = [
  { what: 'no key', status: 403, request: () => ask('/v1/decisions'), d1Below: 1, engineBelow: 1 },
  {
    what: 'a made-up key',
    status: 403,
    request: () => ask('/v1/decisions', { 'X-Api-Key': randomBytes(16).toString('hex') }),
    ...lookedUp,
  },
  {
    what: "an operator's token that is none",
    status: 401,
    request: () => ask('/api/v1/bouncers', { Authorization: `Bearer cso_${letters(49)}` }),
    d1Below: 1,
    engineBelow: 1,
    timesBelow: 3,
  },
  {
    what: "a made-up operator's token",
    status: 401,
    request: () => ask('/api/v1/bouncers', { Authorization: `Bearer ${mintSecret('cso_')}` }),
    ...lookedUp,
  },
  { what: '/health', status: 200, request: () => ask('/health'), d1Below: 1, engineBelow: 1 },
  { what: '/openapi.json', status: 200, request: () => ask('/openapi.json'), d1Below: 1, engineBelow: 1 },
  // As many as a network has in a minute. Each may ask whether the machine is blocked.
  { what: 'a bad log-in', status: [401, 429], request: logIn, d1Below: 31, engineBelow: 31 },
  {
    what: "a machine's route without a token",
    status: 401,
    request: () => ask('/v1/alerts'),
    d1Below: 1,
    engineBelow: 1,
  },
];

export async function measureStrangers(bench: Bench): Promise<Row[]> {
  const cpu = await measureCpu(bench);
  const questions = await countQuestions(bench);
  return strangers.flatMap(({ what, d1Below, engineBelow, timesBelow }, at) => [
    alone(`${what}: CPU`, 'us', median(cpu.map((round) => round[at]))),
    ...(at === 0
      ? []
      : [
          alone(
            '  times that of one without a key',
            'x',
            median(cpu.map((round) => round[at] / round[0])),
            timesBelow,
          ),
        ]),
    alone(`  questions to D1, of ${counted} such requests`, '', questions[at].d1, d1Below),
    alone(`  requests to the engine`, '', questions[at].engine, engineBelow),
  ]);
}

/** Microseconds of each kind, by round. In turns, so that whatever else the machine does falls on all kinds. */
async function measureCpu({ sizes, ours: { url, pid } }: Bench): Promise<number[][]> {
  const measured: number[][] = [];
  for (let round = 0; round < rounds; round++) {
    const micros: number[] = [];
    for (const { request, status } of strangers) {
      const requests = Array.from({ length: made }, request);
      const seconds = sizes.lapidarySeconds / 4;
      micros.push((await load({ url, pid, connections, requests, status, seconds })).cpuMicrosPerRequest);
    }
    measured.push(micros);
  }
  return measured;
}

async function countQuestions({ engine }: Bench): Promise<{ d1: number; engine: number }[]> {
  const liar = await startLiar(engine);
  const gated = await startGated({
    upstream: { url: liar.url, key: await engine.addBouncer('bench-strangers') },
    settings: { SYNC_INTERVAL_SECONDS: '3600' },
  });
  try {
    const questions: { d1: number; engine: number }[] = [];
    for (const { status, request } of strangers) {
      await gated.questions();
      const before = liar.asked('elsewhere');
      const requests = Array.from({ length: counted }, request);
      // Whose CPU it is does not matter here.
      const { pid } = process;
      await load({ url: gated.url, pid, connections, requests, status, count: counted });
      questions.push({ d1: await gated.questions(), engine: liar.asked('elsewhere') - before });
    }
    return questions;
  } finally {
    await gated.close();
    await liar.close();
  }
}

function logIn(): Buffer {
  return ask('/v1/watchers/login', {}, { machine_id: letters(8), password: letters(20), scenarios: [] });
}

function ask(path: string, headers: Readonly<Record<string, string>> = {}, body?: object): Buffer {
  const text = body === undefined ? '' : JSON.stringify(body);
  const all = {
    Host: '127.0.0.1',
    'User-Agent': 'bench/v1',
    ...headers,
    ...(body === undefined ? {} : { 'Content-Length': String(text.length) }),
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(
    `${body === undefined ? 'GET' : 'POST'} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${text}`,
  );
}

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

function letters(length: number): string {
  return [...randomBytes(length)].map((byte) => alphabet[byte % alphabet.length]).join('');
}
