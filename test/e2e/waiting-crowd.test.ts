// A crowd that waits for a change in one isolate: each has a ban that came through another one, and while nothing changes the
// feed's object is asked once a second, however many wait. WAITING_CLIENTS=9500 is the crowd of docs/long-polling.md, and says
// what it costs. Of each connection workerd has two files: it needs `ulimit -Hn` 20000 for that.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cpuSeconds, residentBytes } from '../bench/cpu.ts';
import { isWhole, percentile, requestBytes } from '../bench/load.ts';
import { type Isolate, type Isolates, startIsolates } from '../lab/isolates.ts';
import { until } from '../lab/wait.ts';

const size = process.env['WAITING_CLIENTS'];
const clients = Number(size ?? 200);
/** Of one bouncer. */
const hosts = 2;
const idleMs = size === undefined ? 3_000 : 30_000;
const patienceMs = 300_000;
const value = '192.0.2.1';

let isolates: Isolates;
let pid = 0;
const crowd: Client[] = [];
const keys = Array.from({ length: Math.ceil(clients / hosts) }, (_, at) => `key-of-the-crowd-${at}`);

beforeAll(async () => {
  isolates = await startIsolates(2);
  pid = (await isolates.pids()).workerd;
  const [{ operator }] = isolates.all as [Isolate];
  const rows = keys.map((key, at) => {
    return { name: `crowd-${at}`, api_key: createHash('sha512').update(key).digest('hex') };
  });
  for (let at = 0; at < rows.length; at += 1_000) {
    const bouncers = rows.slice(at, at + 1_000);
    expect((await operator('POST', '/bouncers/import', { bouncers })).status).toBe(200);
  }
}, patienceMs);
afterAll(async () => {
  for (const client of crowd) client.close();
  await isolates?.close();
});

interface Client {
  /** Asks, and returns the answer with its status line. */
  ask(query: string): Promise<string>;
  close(): void;
}

/** On a connection of its own. */
function openClient({ url }: Isolate, key: string): Client {
  const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1', noDelay: true });
  const gone = once(socket, 'close').then(() => Promise.reject(new Error('the connection is closed')));
  gone.catch(() => undefined);
  return {
    async ask(query) {
      socket.write(requestBytes(`/v1/decisions/stream?${query}`, key));
      const answer: Buffer[] = [];
      do answer.push((await Promise.race([once(socket, 'data'), gone]))[0]);
      while (!isWhole(Buffer.concat(answer), false));
      return Buffer.concat(answer).toString();
    },
    close: () => socket.destroy(),
  };
}

/** Waits on until it has the ban. */
async function untilBanned(client: Client): Promise<void> {
  for (;;) {
    const answer = await client.ask('wait=55');
    if (!answer.startsWith('HTTP/1.1 200 ')) throw new Error(answer);
    if (answer.includes(`"${value}"`)) return;
    await delay(1_000);
  }
}

test(
  'each has the ban, and while nothing changes the object is asked once a second',
  async () => {
    const [first, second] = isolates.all as [Isolate, Isolate];
    const restBytes = residentBytes(pid);
    const problems: unknown[] = [];
    const bannedMs: number[] = [];
    const bans: Promise<void>[] = [];
    const all = Array.from({ length: clients }, (_, at) => keys[Math.floor(at / hosts)] as string).values();
    const begin = async () => {
      for (const key of all) {
        const client = openClient(first, key);
        crowd.push(client);
        expect(await client.ask('startup=true')).toMatch(/^HTTP\/1\.1 200 /);
        const banned = untilBanned(client).then(() => void bannedMs.push(performance.now()));
        bans.push(banned.catch((error: unknown) => void problems.push(error)));
      }
    };
    // Some at a time: the kernel takes only so many new connections at once.
    await Promise.all(Array.from({ length: 50 }, begin));
    await until(
      'nearly all of them wait',
      async (saw) => {
        // In a large crowd some are always between two requests. Such metrics are large, too.
        await delay(1_000);
        const now = await isolates.waitingPolls(second);
        saw([now, problems.length, problems[0]]);
        return now >= 0.95 * clients;
      },
      patienceMs,
    );
    const waiterBytes = (residentBytes(pid) - restBytes) / clients;

    await isolates.takeCalls();
    const [idleFromMs, idleFromSeconds] = [performance.now(), cpuSeconds(pid)];
    await delay(idleMs);
    const calls = await isolates.takeCalls();
    const passed = (performance.now() - idleFromMs) / 1000;
    const idleSeconds = cpuSeconds(pid) - idleFromSeconds;
    expect(Object.keys(calls)).toEqual(['follow']);
    expect(calls['follow']).toBeLessThanOrEqual(passed + 1);

    const body = { value, duration: '4h' };
    expect((await second.operator('POST', '/decisions', body)).status).toBe(201);
    const [banMs, banFromSeconds] = [performance.now(), cpuSeconds(pid)];
    await Promise.all(bans);
    expect([problems, bannedMs.length]).toEqual([[], clients]);
    if (size === undefined) return;
    const lateMs = bannedMs.map((ms) => Math.round(ms - banMs)).sort((a, b) => a - b);
    console.log({
      'memory of each, KB': Math.round(waiterBytes / 1000),
      'CPU while nothing changes, %': Math.round((100 * idleSeconds) / passed),
      'questions to the object a second': calls['follow']! / passed,
      'CPU of the ban, s': cpuSeconds(pid) - banFromSeconds,
      'late, ms: first, middle, last': [0, 0.5, 1].map((share) => percentile(lateMs, share)),
    });
  },
  2 * patienceMs,
);
