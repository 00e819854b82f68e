// The client of the engine's LAPI: one request each for a delta, the full list, the tail. Gives every
// decision to `take` as it streams in, then whether the answer was whole. Nothing of a failed answer may be
// used: what was taken of it is thrown away by the caller.

import { fail, succeed, type Failure, type Result } from '../failure.ts';
import { decodeDecision } from '../lapi/wire.ts';
import type { EngineSettings } from '../engines.ts';
import type { Decision } from './decision.ts';
import { createSplitter, SplitError, type ListName } from './json-split.ts';
import { isEngineId } from './sync.ts';

const ownUserAgent = 'lapidary/v1';

export type Take = (list: 'new' | 'deleted', decision: Decision) => void;

/** The engine, and what to ask it with. `keyName`: the key, for an operator to read. */
export type Engine = EngineSettings & { readonly apiKey: string; readonly keyName: string };

/** The engine's refusal of our key is told apart: it needs an operator, not patience. */
export type Pull = Result<'whole'> & { readonly refused?: boolean };

/**
 * What changed since this key's last pull. `dedup=false`, since LAPI's own choice of the longest decision
 * hides the end of a shadowed one, and every scope by name, since a stream has no wildcard.
 */
export function pullDelta(upstream: Engine, take: Take): Promise<Pull> {
  const scopes = encodeURIComponent(upstream.scopes.join(','));
  return pull(upstream, `/v1/decisions/stream?dedup=false&scopes=${scopes}`, take);
}

/** Every active decision, all scopes, not deduplicated; a fault of the engine's database is a real 500 here. */
export function pullFull(upstream: Engine, take: Take): Promise<Pull> {
  return pull(upstream, '/v1/decisions', take);
}

/** Active decisions with a higher id. Engines before 1.5 ignore `id_gt` and send all: `take` sees that. */
export function pullTail(upstream: Engine, idGreaterThan: number, take: Take): Promise<Pull> {
  return pull(upstream, `/v1/decisions?id_gt=${idGreaterThan}`, take);
}

/**
 * A cheap question that sets a NULL cursor of ours at the engine to now. Without it the first delta of a new
 * key makes engines from 1.6.3 on read every expired row they keep (crowdsec#4613: half an hour).
 */
export function touchCursor(upstream: Engine): Promise<Pull> {
  return pull(upstream, '/v1/decisions?ip=192.0.2.1', () => undefined);
}

/**
 * Whether the engine lets a bouncer in with this key. `HEAD` on one address moves no cursor in any version. The
 * User-Agent is that of whoever will use the key, since the engine notes it as the bouncer's type. Anything but a
 * plain 200 is a no.
 */
export async function acceptsKey(
  upstream: EngineSettings,
  key: string,
  userAgent = ownUserAgent,
): Promise<boolean> {
  try {
    const response = await fetch(`${upstream.url}/v1/decisions?ip=192.0.2.1`, {
      method: 'HEAD',
      redirect: 'manual',
      headers: { ...upstream.headers, 'x-api-key': key, 'user-agent': userAgent },
      signal: AbortSignal.timeout(upstream.timeoutMs),
    });
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
  try {
    const response = await fetch(`${upstream.url}/v1/usage-metrics`, {
      method: 'POST',
      redirect: 'manual',
      headers: {
        ...upstream.headers,
        'x-api-key': upstream.apiKey,
        'user-agent': ownUserAgent,
        'content-type': 'application/json',
      },
      body,
      signal: AbortSignal.timeout(upstream.timeoutMs),
    });
    await response.body?.cancel();
    return response.status;
  } catch {
    return null;
  }
}

async function pull(upstream: Engine, path: string, take: Take): Promise<Pull> {
  const silence = new AbortController();
  const giveUp = (): void => silence.abort(`no answer for ${upstream.timeoutMs / 1000} s`);
  let timer = setTimeout(giveUp, upstream.timeoutMs);
  const startedMs = Date.now();
  try {
    const response = await fetch(upstream.url + path, {
      // A redirect would be a login page of whatever stands before the engine, and would be sent our key.
      redirect: 'manual',
      headers: { ...upstream.headers, 'x-api-key': upstream.apiKey, 'user-agent': ownUserAgent },
      signal: silence.signal,
    });
    if (response.status !== 200) {
      await response.body?.cancel();
      const refused = response.status === 401 || response.status === 403;
      const why = refused ? `refuses ${upstream.keyName}` : 'answers';
      return { ...unavailable(`the engine ${why} with status ${response.status}`), refused };
    }
    if (!response.body) return unavailable('the engine answers with an empty body');
    const lists = await split(response.body, startedMs, take, () => {
      clearTimeout(timer);
      timer = setTimeout(giveUp, upstream.timeoutMs);
    });
    const whole = path.startsWith('/v1/decisions/stream')
      ? lists.has('new') && lists.has('deleted')
      : lists.has('all');
    return whole ? succeed('whole') : unavailable('the engine answers with the wrong kind of list');
  } catch (error) {
    return unavailable(describe(error, silence.signal));
  } finally {
    clearTimeout(timer);
  }
}

async function split(
  body: ReadableStream<Uint8Array>,
  startedMs: number,
  take: Take,
  onChunk: () => void,
): Promise<ReadonlySet<ListName>> {
  const splitter = createSplitter((list, json) => {
    const decision = decodeDecision(json, startedMs);
    if (typeof decision === 'string') throw new SplitError(decision);
    if (!isEngineId(decision.id)) throw new SplitError(`decision id ${decision.id} is out of range`);
    take(list === 'deleted' ? 'deleted' : 'new', decision);
  });
  // 256 KB at a time: the default reader hands out 4 KB, which is four times slower over a long list.
  const reader = body.getReader({ mode: 'byob' });
  let buffer: ArrayBufferLike = new ArrayBuffer(256 * 1024);
  for (;;) {
    const read: ReadableStreamReadResult<Uint8Array> = await reader.readAtLeast(1, new Uint8Array(buffer));
    onChunk();
    if (read.value) splitter.push(read.value);
    if (read.done) return splitter.end();
    buffer = read.value.buffer;
  }
}

function describe(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return `the engine is silent: ${String(signal.reason)}`;
  if (error instanceof SplitError) return `the engine's answer can't be read: ${error.message}`;
  return 'the engine is out of reach';
}

function unavailable(problem: string): { readonly ok: false; readonly failure: Failure } {
  return fail({ kind: 'unavailable', problem }) as { readonly ok: false; readonly failure: Failure };
}
