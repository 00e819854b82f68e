// The engine's own allow-lists (`cscli allowlists`), read at most once a minute with a machine's account. What they have is
// withheld whoever bans it: other engines, lists, operators. A mistake here bans an address that the engine exempts.
//
// Only an answer that is whole changes what is known. An engine that is down, refuses, or answers anything else keeps its last
// entries, also over a restart.

import type { MachineAccount } from '../config/engines.ts';
import { covers, formatNetwork, parseNetwork, type Network } from '../formats/ip.ts';
import { causeOf } from '../http/failure.ts';
import { intermediaryAnswer } from '../http/intermediary.ts';
import { countEngineEntries, setEngineAllowLists, type EngineEntry } from '../mirror/allow-list.ts';
import { rangesOf, readEntry } from '../mirror/allowed.ts';
import type { Store } from '../mirror/mirror.ts';
import { sinceMs, type Clock } from '../runtime/clock.ts';
import { createDeadline, readBody, send, type Init, type Reached } from './upstream.ts';

/** `none`: the engine has no such lists (before 1.6.6). */
export const allowListStates = ['unread', 'ok', 'none', 'failing'] as const;

/** How the allow-lists of an engine stand. */
export interface AllowListStatus {
  readonly state: (typeof allowListStates)[number];
  /** Entries that hold. */
  readonly entries: number;
  /** Entries of the newest answer that were left out: unreadable, or wider than is believed. */
  readonly skipped: number;
  readonly error: string | null;
  /** When they were last read; 0: not since the object woke. */
  readonly readMs: number;
  /** Whether the engine is being asked. */
  readonly isReading: boolean;
}

const intervalMs = 60_000;
const mostBytes = 8 * 1024 * 1024;
const mostEntries = 10_000;
/** One that is wider is left out: somebody else's typing error must not let everybody in. */
const widest = { v4: 8, v6: 32 };
/** Of what is no private network, the entries of an engine have no more addresses together than one that is widest. */
const privateNetworks = ['10.0.0.0/8', '100.64.0.0/10', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'].map(
  (text) => parseNetwork(text) as Network,
);

/** What can not be used, in words for operators. */
class Refused extends Error {}

export function createAllowLists(
  store: Store,
  engine: Reached & { readonly handle: string; readonly allowLists: MachineAccount },
  clock: Clock,
) {
  const { handle } = engine;
  let token: string | null = null;
  let askedMs = -Infinity;
  let isReading = false;
  let status: Omit<AllowListStatus, 'entries' | 'isReading'> = {
    state: 'unread',
    skipped: 0,
    error: null,
    readMs: 0,
  };

  /** The answer to one request, read whole. */
  const ask = async (path: string, init: Init): Promise<{ status: number; text: string }> => {
    const begins = await engine.enter();
    const deadline = createDeadline(engine.timeoutMs, engine.timeoutMs);
    try {
      const response = await begins(send(engine, path, { ...init, signal: deadline.signal }));
      const foreign = intermediaryAnswer(response);
      if (foreign !== undefined) {
        await response.body?.cancel();
        throw new Refused(foreign);
      }
      return {
        status: response.status,
        text: response.body ? await textOf(response.body, (bytes) => deadline.received(bytes)) : '',
      };
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused(
        deadline.signal.aborted
          ? `the engine ${String(deadline.signal.reason)}`
          : 'the engine is out of reach',
      );
    } finally {
      deadline.stop();
    }
  };

  const logIn = async (): Promise<string> => {
    const { machine, password } = engine.allowLists;
    const answer = await ask('/v1/watchers/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ machine_id: machine, password, scenarios: [] }),
    });
    const given = answer.status === 200 ? jsonOf(answer.text) : null;
    if (typeof given === 'object' && given !== null && 'token' in given && typeof given.token === 'string') {
      return given.token;
    }
    throw new Refused(`the engine answers the log-in of the machine ${machine} with status ${answer.status}`);
  };

  const get = async () => {
    token ??= await logIn();
    const headers = { authorization: `Bearer ${token}` };
    return ask('/v1/allowlists?with_content=true', { headers });
  };

  const read = async (): Promise<void> => {
    let answer = await get();
    if (answer.status === 401 || answer.status === 403) {
      token = null;
      answer = await get();
    }
    // With entries it had that route before: what answers is not the engine, or not as it was.
    if (answer.status === 404 && countEngineEntries(store, handle) === 0) {
      status = { state: 'none', skipped: 0, error: null, readMs: clock.now() };
      return;
    }
    if (answer.status !== 200) throw new Refused(`the engine answers with status ${answer.status}`);
    const { entries, skipped } = entriesIn(answer.text);
    await setEngineAllowLists(store, handle, entries, clock);
    status = { state: 'ok', skipped, error: null, readMs: clock.now() };
  };

  return {
    status: (): AllowListStatus => ({ ...status, entries: countEngineEntries(store, handle), isReading }),

    /** Reads the lists if that is due. Runs in every round. Never throws. */
    async run(): Promise<void> {
      const nowMs = clock.now();
      if (isReading || sinceMs(askedMs, nowMs) < intervalMs) return;
      isReading = true;
      askedMs = nowMs;
      try {
        await read();
      } catch (error) {
        const problem = causeOf(error).message;
        if (status.error !== problem) console.error(`allow-lists of engine ${engine.name}: ${problem}`);
        status = { ...status, state: 'failing', error: problem };
      } finally {
        isReading = false;
      }
    },
  };
}

async function textOf(body: ReadableStream<Uint8Array>, onChunk: (bytes: number) => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  const push = (piece: Uint8Array): void => {
    bytes += piece.length;
    if (bytes > mostBytes) throw new Refused(`the engine's answer is longer than ${mostBytes} bytes`);
    text += decoder.decode(piece, { stream: true });
  };
  await readBody(body, push, onChunk);
  return text + decoder.decode();
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Refused('the engine’s answer is not JSON');
  }
}

/** LAPI's `GetAllowlistsResponse` (pkg/models/localapi_swagger.yaml). An item that does not end has the year 1. */
export function entriesIn(text: string): { readonly entries: EngineEntry[]; readonly skipped: number } {
  const lists = jsonOf(text);
  const strange = new Refused('the engine’s answer has no allow-lists');
  if (!Array.isArray(lists)) throw strange;
  const entries = new Map<string, EngineEntry>();
  let skipped = 0;
  for (const each of lists as unknown[]) {
    const { name, items } = (each ?? {}) as { name?: unknown; items?: unknown };
    if (typeof name !== 'string' || !(items === undefined || items === null || Array.isArray(items))) {
      throw strange;
    }
    for (const item of (items ?? []) as unknown[]) {
      const entry = entryOf(name, item);
      if (!entry) {
        skipped++;
        continue;
      }
      const key = `${name}\n${entry.value}`;
      const known = entries.get(key);
      if (!known || lasts(entry) > lasts(known)) entries.set(key, entry);
    }
  }
  if (entries.size > mostEntries) throw new Refused(`the engine has more than ${mostEntries} entries`);
  demandNarrow([...entries.values()]);
  return { entries: [...entries.values()], skipped };
}

const lasts = ({ expiresMs }: EngineEntry): number => expiresMs ?? Infinity;

function demandNarrow(entries: readonly EngineEntry[]): void {
  const read = entries.flatMap((entry) => readEntry({ ...entry, id: 0 }) ?? []);
  const open = read.filter(({ network }) => !privateNetworks.some((each) => covers(each, network)));
  const { v4, v6 } = rangesOf(open);
  for (const [family, ranges, bits, most] of [
    ['IPv4', v4, 32, widest.v4],
    ['IPv6', v6, 128, widest.v6],
  ] as const) {
    const count = ranges.reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
    if (count <= 1n << BigInt(bits - most)) continue;
    throw new Refused(
      `the engine's ${family} entries are more than a /${most} together: nothing of them is taken`,
    );
  }
}

function entryOf(list: string, item: unknown): EngineEntry | null {
  const { value, expiration } = (item ?? {}) as { value?: unknown; expiration?: unknown };
  const network = typeof value === 'string' ? parseNetwork(value) : undefined;
  if (!network || network.prefixBits < widest[network.bytes.length === 4 ? 'v4' : 'v6']) return null;
  if (expiration === undefined || expiration === null) {
    return { list, value: formatNetwork(network), expiresMs: null };
  }
  const endsMs = typeof expiration === 'string' ? Date.parse(expiration) : NaN;
  if (Number.isNaN(endsMs)) return null;
  return { list, value: formatNetwork(network), expiresMs: endsMs > 0 ? endsMs : null };
}
