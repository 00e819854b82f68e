// Part h: from a machine's alert to the poll of a bouncer that carries its ban. First with the alerts of each side posted
// there, in turns; then with alerts that reach the engine behind Lapidary's back. Both bouncers poll at the same moments.
import { setTimeout as delay } from 'node:timers/promises';
import { login, postAlert } from '../lab/alert.ts';
import { pullStream } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';
import type { Bench, Side } from './bench.ts';
import { alone, compared, type Row } from './table.ts';

/** No bouncer may have to wait longer than one poll interval and this (issue 5). */
const slackMs = 1_000;
/** A ban that has not come so long after its time is given up. */
const patienceMs = 5_000;
const scenario = 'bench/alert';

interface Watched {
  /** Value → when the answer that first brought it was whole. */
  seenMs: Map<string, number>;
  /** Throws when a poll failed: its bouncer's figures would be those of the next one. */
  stop(): Promise<void>;
}

interface Posted {
  value: string;
  startMs: number;
}

type Post = (value: string, atMs: number) => Promise<Posted>;

export async function measureAlerts(bench: Bench): Promise<Row[]> {
  const { sizes, engine, lapi, ours } = bench;
  const pollMs = sizes.pollSeconds * 1000;
  const count = sizes.alerts;
  const postAtEngine = await machineAt(bench, lapi);
  const postAtEdge = await machineAt(bench, ours);
  for (const { url, keys } of [lapi, ours]) await pullStream({ url, key: keys[0] }, 'startup=true');
  const firstMs = performance.now() + pollMs;
  const atLapi = watch(lapi, firstMs, pollMs);
  const atOurs = watch(ours, firstMs, pollMs);
  try {
    // One of each in every interval, each a little later in it than the one before, half an interval apart.
    const spread = (at: number) => firstMs + (at + (at + 0.5) / count) * pollMs;
    const indices = Array.from({ length: count }, (_, at) => at);
    const [direct, through] = await Promise.all([
      Promise.all(indices.map((at) => postAtEngine(address(1, at), spread(at)))),
      Promise.all(indices.map((at) => postAtEdge(address(2, at), spread(at) + pollMs / 2))),
    ]);
    const theirs = await times(direct, atLapi, pollMs);
    const mine = await times(through, atOurs, pollMs);

    // Spread over a poll interval just as evenly, and over more than one of sync.
    const behindMs = performance.now();
    const stepMs = (pollMs / 2) * (1 + 1 / count);
    const behind = await Promise.all(
      indices.map((at) => postAtEngine(address(3, at), behindMs + at * stepMs)),
    );
    const late = await times(behind, atOurs, pollMs + sizes.intervalSeconds * 1000);
    return [
      ...rowsOf('alert to the poll that has its ban', theirs, mine, pollMs + slackMs),
      ...rowsOf("alert behind Lapidary's back, to the poll", await times(behind, atLapi, pollMs), late),
    ];
  } finally {
    await Promise.all([atLapi.stop(), atOurs.stop()]);
    // Parts to come count what the engine has.
    await engine.cscli('decisions', 'delete', '--scenario', scenario);
  }
}

/** Never an address that has a decision already: its ban would be no news. */
function address(kind: number, at: number): string {
  return `2001:db8:0:${kind}::${(at + 1).toString(16)}`;
}

/** An engine that refuses an alert because its database is busy gets it again, as agents do it. */
async function machineAt({ engine }: Bench, { url }: Side): Promise<Post> {
  const lapi = { url, machine: engine.machine };
  const token = await login(lapi);
  return async (value, atMs) => {
    await delay(Math.max(0, atMs - performance.now()));
    const startMs = performance.now();
    const alert = { scenario, decisions: [{ value }] };
    await until(`the alert on ${value} is taken`, () => postAlert(lapi, alert, token));
    return { value, startMs };
  };
}

/** A bouncer that polls at `firstMs` and at each full interval after it. */
function watch({ url, keys }: Side, firstMs: number, pollMs: number): Watched {
  const seenMs = new Map<string, number>();
  const failures: unknown[] = [];
  const stopping = new AbortController();
  const { signal } = stopping;
  const polling = (async () => {
    let nextMs = firstMs;
    while (!signal.aborted) {
      await delay(Math.max(0, nextMs - performance.now()), undefined, { signal }).catch(() => undefined);
      try {
        const answer = await pullStream({ url, key: keys[0] });
        const wholeMs = performance.now();
        for (const { value } of answer.new ?? []) if (!seenMs.has(value)) seenMs.set(value, wholeMs);
      } catch (error) {
        failures.push(error);
      }
      // A poll that took longer than the interval is followed at the next moment that is due, as Go's ticker does.
      while (nextMs <= performance.now()) nextMs += pollMs;
    }
  })();
  return {
    seenMs,
    async stop() {
      stopping.abort();
      await polling;
      if (failures.length > 0) {
        throw new Error(`${failures.length} polls of ${url} failed: ${String(failures[0])}`);
      }
    },
  };
}

/** How long each took, in ascending order; Infinity for those that did not come within `dueMs` and patience. */
async function times(posted: readonly Posted[], { seenMs }: Watched, dueMs: number): Promise<number[]> {
  const lastMs = Math.max(...posted.map(({ startMs }) => startMs));
  const leftMs = lastMs + dueMs + patienceMs - performance.now();
  const all = () => posted.every(({ value }) => seenMs.has(value));
  // What is missing then is a result, and no failure of the benchmark: LAPI's streams lose bans.
  await until('all bans have come', all, Math.max(0, leftMs)).catch(() => undefined);
  return posted.map(({ value, startMs }) => (seenMs.get(value) ?? Infinity) - startMs).sort((a, b) => a - b);
}

function rowsOf(name: string, theirs: readonly number[], mine: readonly number[], below?: number): Row[] {
  const came = (all: readonly number[]) => all.filter(Number.isFinite);
  const lost = (all: readonly number[]) => all.length - came(all).length;
  const pair = (read: (all: readonly number[]) => number | undefined) => {
    return {
      lapi: read(came(theirs)) ?? Infinity,
      lapidary: read(came(mine)) ?? Infinity,
      better: 'less' as const,
    };
  };
  const most = pair((all) => all[all.length - 1]);
  const never = { ...alone('  never came', 'of them', lost(mine), below && 1), lapi: lost(theirs) };
  return [
    compared(
      `${name}: least`,
      'ms',
      pair((all) => all[0]),
    ),
    compared(
      '  median',
      'ms',
      pair((all) => all[Math.floor(all.length / 2)]),
    ),
    compared('  most', 'ms', { ...most, below }),
    never,
  ];
}
