// Part j: what strangers cost. CPU of a request that is refused, or open to all, beside that of one refused for want of a
// key; and what a thousand of each ask of D1 and of the engine, in a Lapidary of its own that has met none before.
import { randomBytes } from 'node:crypto';
import { startGated } from '../lab/gate.ts';
import { startLiar } from '../lab/liar.ts';
import type { Bench } from './bench.ts';
import { load, type LoadResult } from './load.ts';
import { alone, type Row } from './table.ts';

const rounds = 5;
/** Of each kind, all different where they can be: more than are sent in a second. */
const made = 20_000;
const counted = 1_000;

interface Stranger {
  what: string;
  status: number | readonly number[];
  request(): Buffer;
  /** What a thousand may ask, where that is to be reached: fewer than so many questions. */
  d1Below?: number;
  engineBelow?: number;
}

const strangers: readonly Stranger[] = [
  { what: 'no key', status: 403, request: () => ask('/v1/decisions'), d1Below: 1, engineBelow: 1 },
  {
    what: 'a made-up key',
    status: 403,
    request: () => ask('/v1/decisions', { 'X-Api-Key': randomBytes(16).toString('hex') }),
    engineBelow: 1,
  },
  {
    what: "an operator's token that is none",
    status: 401,
    request: () => ask('/api/v1/bouncers', { Authorization: `Bearer cso_${letters(49)}` }),
    engineBelow: 1,
  },
  { what: '/health', status: 200, request: () => ask('/health'), d1Below: 1, engineBelow: 1 },
  { what: '/openapi.json', status: 200, request: () => ask('/openapi.json'), d1Below: 1, engineBelow: 1 },
  { what: '/reference', status: 200, request: () => ask('/reference'), d1Below: 1, engineBelow: 1 },
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
  return strangers.flatMap(({ what, d1Below, engineBelow }, at) => [
    alone(`${what}: CPU`, 'us', cpu[at]),
    alone(`  questions to D1, of ${counted} such requests`, '', questions[at].d1, d1Below),
    alone(`  requests to the engine`, '', questions[at].engine, engineBelow),
  ]);
}

/** In turns, so that whatever else the machine does falls on all kinds. */
async function measureCpu({ sizes, ours }: Bench): Promise<number[]> {
  const results: LoadResult[][] = strangers.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [at, stranger] of strangers.entries()) {
      const requests = Array.from({ length: made }, () => stranger.request());
      const { url, pid } = ours;
      const { status } = stranger;
      const seconds = sizes.lapidarySeconds / 4;
      results[at].push(await load({ url, pid, connections: 16, requests, status, seconds }));
    }
  }
  return results.map((each) => {
    const answered = each.reduce((sum, result) => sum + result.answered, 0);
    return each.reduce((sum, result) => sum + result.cpuMicrosPerRequest * result.answered, 0) / answered;
  });
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
      await load({ url: gated.url, pid, connections: 16, requests, status, count: counted });
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
