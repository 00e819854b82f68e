// The two servers under comparison: a real engine, and a Lapidary that mirrors it. Both are asked the same over
// node:http, since fetch adds headers and rewrites paths. Lapidary syncs when told to and never by itself.
import { type IncomingMessage, request } from 'node:http';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { type Alert, postAlert } from '../lab/alert.ts';
import { openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import type { Reply } from './compare.ts';

/** Stands for the side's own key wherever a case writes it into a header or a path. */
export const ownKey = '{key}';

export interface Ask {
  method?: string;
  path: string;
  /** As sent, in this order; a name may repeat. */
  headers?: [name: string, value: string][];
  body?: string | Uint8Array;
  /** Sent as X-Api-Key: the client's (the default), one that nobody has polled with, or none. */
  key?: 'client' | 'fresh' | 'none';
}

export interface Pair {
  readonly engine: Engine;
  ask(ask: Ask): Promise<{ engine: Reply; lapidary: Reply }>;
  /** What the client had before the request that a case compares; the answers are not. */
  startup(query?: string): Promise<void>;
  poll(query?: string): Promise<void>;
  /** Until Lapidary has what the engine has. */
  sync(): Promise<void>;
  ban: Engine['ban'];
  alert(alert: Alert): Promise<void>;
  unban: Engine['unban'];
  /** Ends one decision, by its id. */
  end(id: number): Promise<void>;
  /** Deletes the alerts on an address, and with them their decisions. */
  deleteAlerts(address: string): Promise<void>;
  /** Ids at the engine of the active decisions on one value, the one that lasts longest first. */
  idsOf(value: string): Promise<number[]>;
  /** Ages the engine's cursor of the client, as if it had not polled for that long. */
  ageCursor(seconds: number): Promise<void>;
  pauseMs(ms: number): Promise<void>;
  close(): Promise<void>;
}

// An engine reports an end again in a delta that follows within 2 s of the poll before it.
const overlapMs = 2_200;

export async function startPair(seed: (engine: Engine) => Promise<void>): Promise<Pair> {
  const engine = await startEngine();
  let lapidary: Lapidary | undefined;
  try {
    const feedKey = await engine.addBouncer('feed');
    const engineKey = await engine.addBouncer('client');
    await seed(engine);
    const onDemand = { SYNC_INTERVAL_SECONDS: '3600', RESYNC_INTERVAL_SECONDS: '86400' };
    lapidary = await startLapidary({ upstream: { url: engine.url, key: feedKey }, settings: onDemand });
    const lapidaryKey = await lapidary.addBouncer('client');
    return pairOf(engine, lapidary, { engine: engineKey, lapidary: lapidaryKey });
  } catch (error) {
    await lapidary?.close();
    await engine.close();
    throw error;
  }
}

function pairOf(engine: Engine, lapidary: Lapidary, keys: { engine: string; lapidary: string }): Pair {
  let lastEndMs = 0;
  let freshKeys = 0;

  async function keysFor(which: Ask['key']): Promise<typeof keys> {
    if (which !== 'fresh') return keys;
    const name = `fresh-${++freshKeys}`;
    return { engine: await engine.addBouncer(name), lapidary: await lapidary.addBouncer(name) };
  }

  async function ask(one: Ask): Promise<{ engine: Reply; lapidary: Reply }> {
    const using = await keysFor(one.key);
    // The engine first: its durations may then be longer than Lapidary's, never shorter.
    const answer = await send(engine.url, one, using.engine);
    return { engine: answer, lapidary: await send(lapidary.url, one, using.lapidary) };
  }

  async function discard(path: string): Promise<void> {
    const replies = await ask({ path });
    if (replies.engine.status !== 200 || replies.lapidary.status !== 200) {
      throw new Error(`${path}: ${replies.engine.status} and ${replies.lapidary.status}`);
    }
  }

  /** An end counts from now on, so that a later start-up can keep its distance. */
  async function ending<T>(work: Promise<T>): Promise<void> {
    await work;
    lastEndMs = Date.now();
  }

  return {
    engine,
    ask,
    async startup(query = '') {
      await delay(Math.max(0, lastEndMs + overlapMs - Date.now()));
      await discard(`/v1/decisions/stream?startup=true${query && `&${query}`}`);
    },
    poll: (query = '') => discard(`/v1/decisions/stream${query && `?${query}`}`),
    async sync() {
      const round = await lapidary.sync({ full: true });
      if (!round.ok) throw new Error(`lapidary couldn't sync: ${JSON.stringify(round)}`);
    },
    ban: engine.ban,
    async alert(alert) {
      await postAlert(engine, alert);
    },
    unban: (...args) => ending(engine.unban(...args)),
    end: (id) => ending(engine.cscli('decisions', 'delete', '--id', String(id))),
    deleteAlerts: (address) => ending(engine.cscli('alerts', 'delete', '-i', address)),
    async idsOf(value) {
      const { body } = await send(engine.url, { path: `/v1/decisions?value=${value}` }, keys.engine);
      const rows = (JSON.parse(body) ?? []) as { id: number; duration: string }[];
      const hours = (duration: string) => Number(/^(\d+)h/.exec(duration)?.[1] ?? 0);
      return rows.sort((a, b) => hours(b.duration) - hours(a.duration)).map(({ id }) => id);
    },
    async ageCursor(seconds) {
      const database = openDatabase(engine);
      const aged = new Date(Date.now() - seconds * 1000).toISOString();
      const written = aged.replace('T', ' ').replace('Z', '000000+00:00');
      database.prepare("UPDATE bouncers SET last_pull = ? WHERE name LIKE 'client%'").run(written);
      database.close();
    },
    async pauseMs(ms) {
      await delay(ms);
      lastEndMs = Date.now();
    },
    async close() {
      await lapidary.close();
      await engine.close();
    },
  };
}

function send(url: string, ask: Ask, key: string): Promise<Reply> {
  const { hostname, port, host } = new URL(url);
  const headers = [
    ...(ask.headers?.some(([name]) => name === 'Host') ? [] : [['Host', host]]),
    // The same each time: the engine writes a changed one to its database.
    ['User-Agent', 'conformance/v1'],
    ['Connection', 'close'],
    ...(ask.key === 'none' ? [] : [['X-Api-Key', key]]),
    ...(ask.headers ?? []).map(([name, value]) => [name, value.replace(ownKey, key)]),
    ...(ask.body === undefined ? [] : [['Content-Length', String(Buffer.byteLength(ask.body))]]),
  ];
  return new Promise((resolve, reject) => {
    const read = (answer: IncomingMessage, rest: Readable) => {
      const parts: Buffer[] = [];
      rest.on('data', (part: Buffer) => parts.push(part));
      rest.on('error', reject);
      rest.on('end', () => {
        const bytes = Buffer.concat(parts);
        const plain = answer.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes;
        const known = Object.entries(answer.headers).map(([name, value]) => [name, String(value)]);
        resolve({
          status: answer.statusCode ?? 0,
          headers: Object.fromEntries(known) as Record<string, string>,
          body: plain.toString('utf8'),
        });
      });
    };
    const sent = request(
      {
        hostname,
        port,
        path: ask.path.replaceAll(ownKey, key),
        method: ask.method ?? 'GET',
        headers: headers.flat(),
        agent: false,
      },
      (answer) => read(answer, answer),
    );
    // What a client that asks for a tunnel does with any answer: the rest of the connection is the body.
    sent.on('connect', (answer, socket, begun) => {
      socket.unshift(begun);
      read(answer, socket);
    });
    sent.on('error', reject);
    sent.end(ask.body);
  });
}
