// The client of the engine's LAPI: one request each for a delta, the full list, the tail. Gives every
// decision to the reader as it streams in, then whether the answer was whole. Nothing of a failed answer may be
// used: what was read of it is thrown away by the caller.

import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { foreignAnswer } from '../http/foreign.ts';
import { decodeDecision, type Unreadable } from '../formats/lapi-json.ts';
import type { EngineSettings } from '../config/engines.ts';
import type { Decision } from '../formats/decision.ts';
import { createSplitter, SplitError, type ListName } from '../formats/json-split.ts';
import type { Enter } from './places.ts';

const ownUserAgent = 'lapidary/v1';

/** Who gets the elements of an answer. */
export interface Reader {
  /** `spreadMs`: the decision may end so much later than it says, since the engine took so long to say it. */
  take(list: 'new' | 'deleted', decision: Decision, spreadMs: number): void;
  /** An element that costs itself, and nothing else of the answer. */
  passOver(list: 'new' | 'deleted', element: Unreadable): void;
}

/** The engine, and its way in among the others. */
export type Reached = EngineSettings & { readonly enter: Enter };

/** What to ask it with, too. `keyName`: the key, for an operator to read. */
export type Engine = Reached & { readonly apiKey: string; readonly keyName: string };

/** The engine's refusal of our key is told apart: it needs an operator, not patience. */
export type Pull = Result<'whole'> & {
  /** When it was asked: before that it may have waited for others. */
  readonly startedMs: number;
  readonly refused?: boolean;
  /** It took longer than we waited. */
  readonly late?: boolean;
  /** There was no answer at all, or none in time. */
  readonly away?: boolean;
};

/**
 * An answer as a whole is bounded, too: one that drips holds the engine's rounds as well as one that never comes.
 * A million decisions are 200 MB.
 */
const wholeMs = 600_000;
/** After the first `timeoutMs` of an answer, on an average. A throttled engine sends more in its worst hour. */
const leastBytesPerSecond = 4096;

/**
 * What changed since this key's last pull. `dedup=false`, since LAPI's own choice of the longest decision
 * hides the end of a shadowed one, and every scope by name, since a stream has no wildcard. `patienceMs`, here and
 * below: how long the first byte may take.
 */
export function pullDelta(upstream: Engine, patienceMs: number, reader: Reader): Promise<Pull> {
  const scopes = encodeURIComponent(upstream.scopes.join(','));
  return pull(upstream, `/v1/decisions/stream?dedup=false&scopes=${scopes}`, patienceMs, reader);
}

/** Every active decision, all scopes, not deduplicated; a fault of the engine's database is a real 500 here. */
export function pullFull(upstream: Engine, patienceMs: number, reader: Reader): Promise<Pull> {
  return pull(upstream, '/v1/decisions', patienceMs, reader);
}

/** Active decisions with a higher id. Engines before 1.5 ignore `id_gt` and send all: the reader sees that. */
export function pullTail(
  upstream: Engine,
  idGreaterThan: number,
  patienceMs: number,
  reader: Reader,
): Promise<Pull> {
  return pull(upstream, `/v1/decisions?id_gt=${idGreaterThan}`, patienceMs, reader);
}

/**
 * A cheap question that sets a NULL cursor of ours at the engine to now. Without it the first delta of a new
 * key makes engines from 1.6.3 on read every expired row they keep (crowdsec#4613: half an hour).
 */
export function touchCursor(upstream: Engine): Promise<Pull> {
  const nobody: Reader = { take: () => undefined, passOver: () => undefined };
  return pull(upstream, '/v1/decisions?ip=192.0.2.1', upstream.timeoutMs, nobody);
}

/**
 * Whether the engine lets a bouncer in with this key. `HEAD` on one address moves no cursor in any version. The
 * User-Agent is that of whoever will use the key, since the engine notes it as the bouncer's type. Anything but a
 * plain 200 is a no.
 */
export async function acceptsKey(upstream: Reached, key: string, userAgent = ownUserAgent): Promise<boolean> {
  const begins = await upstream.enter();
  try {
    const response = await begins(
      ask(upstream, '/v1/decisions?ip=192.0.2.1', key, {
        method: 'HEAD',
        headers: { 'user-agent': userAgent },
        signal: AbortSignal.timeout(upstream.timeoutMs),
      }),
    );
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false;
  }
}

/**
 * Reports usage as the one component that this key is; LAPI takes no more. `metrics`: its `DetailedMetrics`, as JSON with
 * commas between them. Type and version are those of our User-Agent, or the engine would rewrite its row at each
 * pull. Answers the status; null: there was no answer.
 */
export async function postMetrics(
  upstream: Engine,
  metrics: string,
  startedSeconds: number,
): Promise<number | null> {
  const [type, version] = ownUserAgent.split('/');
  const head = JSON.stringify({ type, version, feature_flags: [], utc_startup_timestamp: startedSeconds });
  const body = `{"remediation_components":[${head.slice(0, -1)},"metrics":[${metrics}]}]}`;
  const begins = await upstream.enter();
  try {
    const response = await begins(
      ask(upstream, '/v1/usage-metrics', upstream.apiKey, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
        signal: AbortSignal.timeout(upstream.timeoutMs),
      }),
    );
    await response.body?.cancel();
    return response.status;
  } catch {
    return null;
  }
}

function ask(
  upstream: EngineSettings,
  path: string,
  key: string,
  { headers, ...init }: RequestInit & { readonly headers?: Readonly<Record<string, string>> },
): Promise<Response> {
  return fetch(upstream.url + path, {
    ...init,
    // A redirect would be a login page of whatever stands before the engine, and would be sent our key.
    redirect: 'manual',
    // A cache before the engine would stop the feed, and would not know one key from another.
    cache: 'no-store',
    headers: { ...upstream.headers, 'x-api-key': key, 'user-agent': ownUserAgent, ...headers },
  });
}

async function pull(upstream: Engine, path: string, patienceMs: number, reader: Reader): Promise<Pull> {
  const begins = await upstream.enter();
  const deadline = createDeadline(upstream.timeoutMs, patienceMs);
  const startedMs = Date.now();
  try {
    const response = await begins(ask(upstream, path, upstream.apiKey, { signal: deadline.signal }));
    const foreign = foreignAnswer(response);
    const { status, body } = response;
    if (foreign !== undefined || status !== 200) {
      await body?.cancel();
      const refused = foreign === undefined && (status === 401 || status === 403);
      return { ...unavailable(foreign ?? refusal(upstream, status)), startedMs, refused };
    }
    if (!body) return { ...unavailable('the engine answers with an empty body'), startedMs };
    const lists = await split(body, startedMs, reader, (bytes) => deadline.heard(bytes));
    const whole = path.startsWith('/v1/decisions/stream')
      ? lists.has('new') && lists.has('deleted')
      : lists.has('all');
    const result = whole
      ? succeed('whole' as const)
      : unavailable('the engine answers with the wrong kind of list');
    return { ...result, startedMs };
  } catch (error) {
    const late = deadline.signal.aborted;
    const away = !(error instanceof SplitError);
    return { ...unavailable(describe(error, deadline.signal)), startedMs, late, away };
  } finally {
    deadline.end();
  }
}

/** LAPI says 403 to every key, good ones too, while its database does not answer. */
function refusal({ keyName }: Engine, status: number): string {
  if (status === 403)
    return `the engine answers with status 403: it does not know ${keyName}, or its database is down`;
  return status === 401
    ? `the engine refuses ${keyName} with status 401`
    : `the engine answers with status ${status}`;
}

interface Deadline {
  /** Aborts when the answer is late; its reason says how. */
  readonly signal: AbortSignal;
  heard(bytes: number): void;
  end(): void;
}

/** What is waited for: the first byte for `patienceMs`, the next one for `idleMs`, a least rate, and the whole. */
function createDeadline(idleMs: number, patienceMs: number): Deadline {
  const late = new AbortController();
  const startedMs = Date.now();
  let firstMs = 0;
  let total = 0;
  const after = (waitMs: number, reason: string) => setTimeout(() => late.abort(reason), waitMs);
  let timer = after(patienceMs, `is silent: no answer for ${patienceMs / 1000} s`);
  const abortIn = (waitMs: number, reason: string): void => {
    clearTimeout(timer);
    timer = after(waitMs, reason);
  };
  return {
    signal: late.signal,
    heard(bytes) {
      const nowMs = Date.now();
      firstMs ||= nowMs;
      total += bytes;
      const slowMs = firstMs + idleMs + (total / leastBytesPerSecond) * 1000 - nowMs;
      const wholeLeftMs = startedMs + wholeMs - nowMs;
      if (wholeLeftMs < Math.min(slowMs, idleMs))
        abortIn(wholeLeftMs, `is too slow: no end after ${wholeMs / 1000} s`);
      else if (slowMs < idleMs)
        abortIn(slowMs, `is too slow: fewer than ${leastBytesPerSecond} bytes a second`);
      else abortIn(idleMs, `is silent: nothing more for ${idleMs / 1000} s`);
    },
    end: () => clearTimeout(timer),
  };
}

async function split(
  body: ReadableStream<Uint8Array>,
  startedMs: number,
  { take, passOver }: Reader,
  onChunk: (bytes: number) => void,
): Promise<ReadonlySet<ListName>> {
  let spreadMs = 0;
  const splitter = createSplitter((name, element) => {
    const list = name === 'deleted' ? 'deleted' : 'new';
    const decision = decodeDecision(element, startedMs);
    if ('problem' in decision) passOver(list, decision);
    else take(list, decision, spreadMs);
  });
  // 256 KB at a time: the default reader hands out 4 KB, which is four times slower over a long list.
  const reader = body.getReader({ mode: 'byob' });
  let buffer: ArrayBufferLike = new ArrayBuffer(256 * 1024);
  try {
    for (;;) {
      const read: ReadableStreamReadResult<Uint8Array> = await reader.readAtLeast(1, new Uint8Array(buffer));
      onChunk(read.value?.length ?? 0);
      spreadMs = Date.now() - startedMs;
      if (read.value) splitter.push(read.value);
      if (read.done) return splitter.end();
      buffer = read.value.buffer;
    }
  } catch (error) {
    // What is left of it is not read: without this the connection stays open behind it.
    await reader.cancel().catch(() => undefined);
    throw error;
  }
}

function describe(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return `the engine ${String(signal.reason)}`;
  if (error instanceof SplitError) return `the engine's answer can't be read: ${error.message}`;
  return 'the engine is out of reach';
}

function unavailable(problem: string): { readonly ok: false; readonly failure: Failure } {
  return fail({ kind: 'unavailable', problem }) as { readonly ok: false; readonly failure: Failure };
}
