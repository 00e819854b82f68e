// The client of an engine's LAPI: a request for a delta, a full list or a tail. Each decision goes to the reader as it
// streams in; the result says whether the answer was whole. Of an answer that failed nothing may be used: the caller
// throws away what was read.

import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { intermediaryAnswer } from '../http/intermediary.ts';
import { decodeDecision, type Unreadable } from '../formats/lapi-json.ts';
import type { EngineSettings } from '../config/engines.ts';
import type { Decision } from '../formats/decision.ts';
import { createSplitter, SplitError, type ListName } from '../formats/json-split.ts';
import { createIdleTimeout } from '../runtime/wait.ts';

export const ownUserAgent = 'lapidary/v1';

/** Takes the elements of an answer. */
export interface Reader {
  /** `spreadMs`: the decision may end so much later than it says, since the answer took so long. */
  take(list: 'new' | 'deleted', decision: Decision, spreadMs: number): void;
  /** An element that can't be read. The rest of the answer can. */
  passOver(list: 'new' | 'deleted', element: Unreadable): void;
}

/** An engine, and its turn among all requests to engines. */
export type Reached = EngineSettings & { readonly enter: Enter };

/** With the key to ask it with. `keyName`: for an operator to read. */
export type Engine = Reached & { readonly apiKey: string; readonly keyName: string };

/** Ok: the answer was whole. */
export type Pull = Result<void> & {
  /** When the request was sent. Before that it may have waited for others. */
  readonly startedMs: number;
  /** The engine does not accept our key: an operator has to act. */
  readonly refused?: boolean;
  /** It timed out. */
  readonly late?: boolean;
  /** There was no answer, or none in time. */
  readonly away?: boolean;
};

/** The most time for a whole answer: one that drips would block the engine's rounds. A million decisions are 200 MB. */
const wholeMs = 600_000;
/** On average, after the first `timeoutMs` of an answer. Even a throttled engine sends more. */
const leastBytesPerSecond = 4096;

/**
 * Asks for what changed since this key's last pull. `dedup=false`, since LAPI's own choice of the longest decision hides
 * the end of a shorter one. Every scope is named, since the stream has no wildcard. `patienceMs`, here and below: how long
 * the first byte may take.
 */
export function pullDelta(upstream: Engine, patienceMs: number, reader: Reader): Promise<Pull> {
  const scopes = encodeURIComponent(upstream.scopes.join(','));
  return pull(upstream, `/v1/decisions/stream?dedup=false&scopes=${scopes}`, patienceMs, reader);
}

/** Asks for every active decision of all scopes. Here an error of the engine's database is a real 500. */
export function pullFull(upstream: Engine, patienceMs: number, reader: Reader): Promise<Pull> {
  return pull(upstream, '/v1/decisions', patienceMs, reader);
}

/** Asks for active decisions with a higher id. Engines before 1.5 ignore `id_gt` and send all. */
export function pullTail(
  upstream: Engine,
  idGreaterThan: number,
  patienceMs: number,
  reader: Reader,
): Promise<Pull> {
  return pull(upstream, `/v1/decisions?id_gt=${idGreaterThan}`, patienceMs, reader);
}

/**
 * A cheap request that sets the cursor of a new key at the engine to now. Without it the first delta of the key makes
 * engines from 1.6.3 on read every expired row that they keep, which may take half an hour (crowdsec#4613).
 */
export function touchCursor(upstream: Engine): Promise<Pull> {
  const nobody: Reader = { take: () => undefined, passOver: () => undefined };
  return pull(upstream, '/v1/decisions?ip=192.0.2.1', upstream.timeoutMs, nobody);
}

/**
 * Whether the engine accepts a bouncer's key: it answers with a plain 200. `HEAD` on one address moves no cursor in any
 * version. `userAgent`: of the program that will use the key, since the engine notes it as the bouncer's type.
 */
export async function acceptsKey(upstream: Reached, key: string, userAgent = ownUserAgent): Promise<boolean> {
  const init = { method: 'HEAD', headers: { 'user-agent': userAgent } };
  return (await statusOf(upstream, '/v1/decisions?ip=192.0.2.1', key, init)) === 200;
}

/**
 * Reports usage as the one component that belongs to this key; LAPI takes no more. `metrics`: its `DetailedMetrics`, as
 * JSON with commas between them. Type and version are those of our User-Agent: with others the engine would rewrite its
 * row at each pull. Returns the status; null: there was no answer.
 */
export async function postMetrics(
  upstream: Engine,
  metrics: string,
  startedSeconds: number,
): Promise<number | null> {
  const [type, version] = ownUserAgent.split('/');
  const head = JSON.stringify({ type, version, feature_flags: [], utc_startup_timestamp: startedSeconds });
  const body = `{"remediation_components":[${head.slice(0, -1)},"metrics":[${metrics}]}]}`;
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body };
  return statusOf(upstream, '/v1/usage-metrics', upstream.apiKey, init);
}

export type Init = RequestInit & { readonly headers?: Readonly<Record<string, string>> };

/** The status of an answer whose body does not matter; null: there was no answer in time. */
async function statusOf(upstream: Reached, path: string, key: string, init: Init): Promise<number | null> {
  const begins = await upstream.enter();
  try {
    const signal = AbortSignal.timeout(upstream.timeoutMs);
    const { body, status } = await begins(ask(upstream, path, key, { ...init, signal }));
    await body?.cancel();
    return status;
  } catch {
    return null;
  }
}

/** A request of a path and query of LAPI, as whoever its headers say. */
export function send(
  upstream: Pick<EngineSettings, 'url' | 'headers'>,
  path: string,
  { headers, ...init }: Init,
): Promise<Response> {
  return fetch(upstream.url + path, {
    ...init,
    // A redirect would send our key to another place, such as the login page of a proxy.
    redirect: 'manual',
    // A cache would stop the feed, and could mix up the answers to several keys.
    cache: 'no-store',
    headers: { ...upstream.headers, 'user-agent': ownUserAgent, ...headers },
  });
}

/** One as a bouncer. */
export function ask(
  upstream: Pick<EngineSettings, 'url' | 'headers'>,
  path: string,
  key: string,
  { headers, ...init }: Init,
): Promise<Response> {
  return send(upstream, path, { ...init, headers: { 'x-api-key': key, ...headers } });
}

async function pull(upstream: Engine, path: string, patienceMs: number, reader: Reader): Promise<Pull> {
  const begins = await upstream.enter();
  const deadline = createDeadline(upstream.timeoutMs, patienceMs);
  const startedMs = Date.now();
  try {
    const response = await begins(ask(upstream, path, upstream.apiKey, { signal: deadline.signal }));
    const foreign = intermediaryAnswer(response);
    const { status, body } = response;
    if (foreign !== undefined || status !== 200) {
      await body?.cancel();
      const refused = foreign === undefined && (status === 401 || status === 403);
      return { ...unavailable(foreign ?? refusal(upstream, status)), startedMs, refused };
    }
    if (!body) return { ...unavailable('the engine answers with an empty body'), startedMs };
    const lists = await split(body, startedMs, reader, (bytes) => deadline.received(bytes));
    const whole = path.startsWith('/v1/decisions/stream')
      ? lists.has('new') && lists.has('deleted')
      : lists.has('all');
    const result = whole ? succeed(undefined) : unavailable('the engine answers with the wrong kind of list');
    return { ...result, startedMs };
  } catch (error) {
    const late = deadline.signal.aborted;
    const away = !(error instanceof SplitError);
    return { ...unavailable(describe(error, deadline.signal)), startedMs, late, away };
  } finally {
    deadline.stop();
  }
}

/** LAPI also answers 403 to every key while its database does not answer. */
function refusal({ keyName }: Engine, status: number): string {
  if (status === 403)
    return `the engine answers with status 403: it does not know ${keyName}, or its database is down`;
  return status === 401
    ? `the engine refuses ${keyName} with status 401`
    : `the engine answers with status ${status}`;
}

/** The limits on one answer: `patienceMs` for the first byte, `idleMs` for each next one, a least rate, and the whole. */
export function createDeadline(idleMs: number, patienceMs: number) {
  const { signal, reset, stop } = createIdleTimeout(idleMs);
  const startedMs = Date.now();
  let firstMs = 0;
  let total = 0;
  reset(patienceMs, `is silent: no answer for ${patienceMs / 1000} s`);
  return {
    /** Aborts when the answer is late; its reason says how. */
    signal,
    received(bytes: number): void {
      const nowMs = Date.now();
      firstMs ||= nowMs;
      total += bytes;
      const slowMs = firstMs + idleMs + (total / leastBytesPerSecond) * 1000 - nowMs;
      const wholeLeftMs = startedMs + wholeMs - nowMs;
      if (wholeLeftMs < Math.min(slowMs, idleMs))
        reset(wholeLeftMs, `is too slow: no end after ${wholeMs / 1000} s`);
      else if (slowMs < idleMs)
        reset(slowMs, `is too slow: fewer than ${leastBytesPerSecond} bytes a second`);
      else reset(idleMs, `is silent: nothing more for ${idleMs / 1000} s`);
    },
    stop,
  };
}

/** Reads an answer of LAPI. Throws `SplitError` where it is none. Returns which lists it had. */
export async function split(
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
  await readBody(
    body,
    (bytes) => splitter.push(bytes),
    (bytes) => {
      spreadMs = Date.now() - startedMs;
      onChunk(bytes);
    },
  );
  return splitter.end();
}

/** Hands over a body as it comes, in pieces that are valid until the next one. `onChunk`: before each, and at the end. */
export async function readBody(
  body: ReadableStream<Uint8Array>,
  push: (piece: Uint8Array) => void,
  onChunk: (bytes: number) => void,
): Promise<void> {
  // 256 KB at a time: the default reader gives 4 KB, which is four times slower for a long list.
  const reader = body.getReader({ mode: 'byob' });
  let buffer: ArrayBufferLike = new ArrayBuffer(256 * 1024);
  try {
    for (;;) {
      const read: ReadableStreamReadResult<Uint8Array> = await reader.readAtLeast(1, new Uint8Array(buffer));
      onChunk(read.value?.length ?? 0);
      if (read.value) push(read.value);
      if (read.done) return;
      buffer = read.value.buffer;
    }
  } catch (error) {
    // Without this the connection would stay open, with the rest of the answer unread.
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

/** Of Cloudflare's six one is left for D1, and one for webhooks (events/sender.ts). */
const mostWaiting = 4;
/** At most so many of them go to engines whose last request failed, so that the other engines can be asked. */
const mostOfSilent = 3;

/** Waits for a turn. It lasts until the answer that is then passed in begins or fails. */
export type Enter = () => Promise<<T>(answer: Promise<T>) => Promise<T>>;

/**
 * Turns for the requests of one object. Cloudflare lets six requests wait for the begin of an answer (Workers, limits:
 * simultaneous open connections; local workerd has no limit) and holds back a seventh without an error: an engine that was
 * not even asked would look silent. Here a request waits before its timeout starts. Each call of the returned function
 * makes the `Enter` of one engine. `most`: turns at a time.
 */
export function createTurns(most = mostWaiting): () => Enter {
  let taken = 0;
  let takenBySilent = 0;
  const queue: { readonly silent: boolean; readonly enter: () => void }[] = [];

  const admit = (): void => {
    if (taken >= most) return;
    const at = queue.findIndex(({ silent }) => !silent || takenBySilent < mostOfSilent);
    const [next] = at < 0 ? [] : queue.splice(at, 1);
    if (!next) return;
    taken++;
    if (next.silent) takenBySilent++;
    next.enter();
  };

  return () => {
    let silent = false;
    return async () => {
      const came = { silent };
      await new Promise<void>((enter) => {
        queue.push({ ...came, enter });
        admit();
      });
      return async (answer) => {
        try {
          const begun = await answer;
          silent = false;
          return begun;
        } catch (error) {
          silent = true;
          throw error;
        } finally {
          taken--;
          if (came.silent) takenBySilent--;
          admit();
        }
      };
    };
  };
}
