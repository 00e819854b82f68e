// Thousands of bouncers in one process: each polls on its interval over a bounded number of connections, and holds what
// a bouncer would enforce.
import { Agent, get, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { StreamAnswer, StreamDecision } from './poller.ts';

/** A decision, and the engine that has it. */
export type Held = Pick<StreamDecision, 'origin' | 'scenario' | 'scope' | 'type' | 'value'> & {
  engine: string;
};

export interface FleetMember {
  /** Of what kind it is; for messages. */
  name: string;
  key: string;
  /** Where it is, as the header `addressHeader` says it. */
  address: string;
  /** What it asks for, without `startup`. */
  query: string;
  /** Whether it may have a decision: its limits and its filters. */
  sees(decision: Held): boolean;
  gzip: boolean;
  /** Whether it applies `deleted` before `new`. */
  deletedFirst: boolean;
}

export interface FleetOptions {
  url: string;
  addressHeader: string;
  connections: number;
  intervalSeconds: number;
  /** What is banned all the time: whoever lacks one of these that it may have is a problem. */
  lasting: readonly Held[];
}

export interface Fleet {
  /** All of them poll once, or those at these places, in the order given. */
  round(which?: readonly number[]): Promise<void>;
  /** From now on each polls on its interval, spread over it. */
  start(): void;
  /** Resolves when no poll is open. */
  stop(): Promise<void>;
  /** The places of those that do not have exactly what they may have of `truth`. */
  differing(truth: readonly Held[]): number[];
  /** What one has too much or too little. */
  difference(at: number, truth: readonly Held[]): { lacks: string[]; keeps: string[] };
  /** What was ever wrong, a text of each kind with how often it came. */
  problems(): Record<string, number>;
  /** Since `start`. */
  figures(): FleetFigures;
}

export interface FleetFigures {
  polls: number;
  /** Polls that were left out, since the one before was still open. */
  late: number;
  /** Answers that were never applied. */
  lost: number;
  megabytes: number;
  /** Of decisions, in both lists. */
  applied: number;
  p50Ms: number;
  p99Ms: number;
}

interface Bouncer extends FleetMember {
  started: boolean;
  polls: number;
  polling: boolean;
  enforced: Set<string>;
  /** Names of what lasts. */
  lasting: readonly string[];
}

const longestPollMs = 60_000;
const tickMs = 10;
/** One answer in so many is lost on its way, as far as the bouncer can tell; it goes on as if nothing had been. */
const pollsUntilLost = 25;

const inflate = promisify(gunzip);

export function startFleet(members: readonly FleetMember[], options: FleetOptions): Fleet {
  const { url, addressHeader, connections, intervalSeconds } = options;
  const agent = new Agent({ keepAlive: true, maxSockets: connections, scheduling: 'fifo' });
  const name = interned();
  const bouncers: Bouncer[] = members.map((member, at) => ({
    ...member,
    started: false,
    // Not all lose the answers of one and the same moment.
    polls: at,
    polling: false,
    enforced: new Set(),
    lasting: options.lasting.filter(member.sees).map(name),
  }));
  const problems: Record<string, number> = {};
  let figures = noFigures();
  const open = new Set<Promise<void>>();
  let stopping: AbortController | undefined;
  let ticking: Promise<void> | undefined;

  const note = (problem: string): void => void (problems[problem] = (problems[problem] ?? 0) + 1);

  async function ask({ key, address, query, gzip, started }: Bouncer): Promise<StreamAnswer> {
    const headers = {
      'x-api-key': key,
      'user-agent': 'fleet/v1',
      [addressHeader]: address,
      ...(gzip ? { 'accept-encoding': 'gzip' } : {}),
    };
    const path = `${url}/v1/decisions/stream?startup=${!started}${query && `&${query}`}`;
    const { status, body } = await answerTo(path, { headers, agent, timeout: longestPollMs });
    figures.bytes += body.length;
    const text = (gzip && body[0] === 0x1f ? await inflate(body) : body).toString();
    if (status !== 200) throw new Error(`status ${status}: ${text.slice(0, 200)}`);
    return JSON.parse(text) as StreamAnswer;
  }

  function apply(bouncer: Bouncer, { new: added, deleted }: StreamAnswer): void {
    const { enforced } = bouncer;
    if (!bouncer.started) enforced.clear();
    const remove = () => deleted?.forEach((decision) => enforced.delete(name(decision)));
    if (bouncer.deletedFirst) remove();
    added?.forEach((decision) => enforced.add(name(decision)));
    if (!bouncer.deletedFirst) remove();
    bouncer.started = true;
    figures.applied += (added?.length ?? 0) + (deleted?.length ?? 0);
    if (bouncer.lasting.some((each) => !enforced.has(each))) note(`a ${bouncer.name} lacks a lasting ban`);
  }

  async function poll(bouncer: Bouncer): Promise<void> {
    bouncer.polling = true;
    const sentMs = performance.now();
    try {
      const answer = await ask(bouncer);
      const isLost = bouncer.started && ticking !== undefined && ++bouncer.polls % pollsUntilLost === 0;
      if (isLost) figures.lost++;
      else apply(bouncer, answer);
    } catch (error) {
      note(`a ${bouncer.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    const ms = Math.round(performance.now() - sentMs);
    figures.took[ms] = (figures.took[ms] ?? 0) + 1;
    figures.polls++;
    bouncer.polling = false;
  }

  function begin(bouncer: Bouncer): void {
    if (bouncer.polling) return void figures.late++;
    const polled = poll(bouncer).finally(() => open.delete(polled));
    open.add(polled);
  }

  /** Of `bouncers.length` polls in each interval, begins those that are due. */
  async function tick(signal: AbortSignal): Promise<void> {
    const firstMs = performance.now();
    const perMs = bouncers.length / (intervalSeconds * 1000);
    let begun = 0;
    while (!signal.aborted) {
      const due = Math.floor((performance.now() - firstMs) * perMs);
      for (; begun < due; begun++) begin(bouncers[begun % bouncers.length] as Bouncer);
      await delay(tickMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** By the filters of each kind, which thousands share. */
  const expectedFrom = (truth: readonly Held[]) => {
    const byKind = new Map<FleetMember['sees'], Set<string>>();
    return ({ sees }: Bouncer): Set<string> => {
      const known = byKind.get(sees) ?? new Set(truth.filter(sees).map(name));
      byKind.set(sees, known);
      return known;
    };
  };

  return {
    async round(which = bouncers.keys().toArray()) {
      const places = which.values();
      const worker = async () => {
        for (const at of places) await poll(bouncers[at] as Bouncer);
      };
      await Promise.all(Array.from({ length: connections }, worker));
    },
    start() {
      figures = noFigures();
      stopping = new AbortController();
      ticking = tick(stopping.signal);
    },
    async stop() {
      stopping?.abort();
      await ticking;
      await Promise.all(open);
      ticking = undefined;
    },
    differing(truth) {
      const expected = expectedFrom(truth);
      return bouncers
        .keys()
        .toArray()
        .filter((at) => {
          const bouncer = bouncers[at] as Bouncer;
          return bouncer.enforced.symmetricDifference(expected(bouncer)).size > 0;
        });
    },
    difference(at, truth) {
      const bouncer = bouncers[at] as Bouncer;
      const expected = expectedFrom(truth)(bouncer);
      return {
        lacks: [...expected.difference(bouncer.enforced)],
        keeps: [...bouncer.enforced.difference(expected)],
      };
    },
    problems: () => problems,
    figures: () => ({
      polls: figures.polls,
      late: figures.late,
      lost: figures.lost,
      megabytes: Math.round(figures.bytes / 1e6),
      applied: figures.applied,
      p50Ms: percentile(figures.took, 0.5),
      p99Ms: percentile(figures.took, 0.99),
    }),
  };
}

type Named = Pick<StreamDecision, 'scope' | 'type' | 'value'>;

/** `took`: polls by how long they took, in whole milliseconds. */
const noFigures = () => ({ polls: 0, late: 0, lost: 0, bytes: 0, applied: 0, took: [] as number[] });

/** A decision as a bouncer names it. */
export const nameOf = ({ scope, type, value }: Named): string => `${scope} ${type} ${value}`;

/** One text for all bouncers: 200 times 50,000 of them would not fit. */
function interned(): (decision: Named) => string {
  const texts = new Map<string, string>();
  return (decision) => {
    const text = nameOf(decision);
    const known = texts.get(text);
    if (known === undefined) texts.set(text, text);
    return known ?? text;
  };
}

/** As bouncers in Go do: where the server has just closed a connection that was kept, the next one is taken. */
function answerTo(
  url: string,
  options: { headers: Record<string, string>; agent: Agent; timeout: number },
): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const request = get(url, options, (answer: IncomingMessage) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts) }));
    });
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (request.reusedSocket && error.code === 'ECONNRESET') resolve(answerTo(url, options));
      else reject(error);
    });
  });
}

function percentile(counts: readonly number[], share: number): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  return counts.findIndex((count) => (seen += count ?? 0) >= total * share);
}
