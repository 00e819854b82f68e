// Polls that wait for a change, before real isolates: a ban is at them at once, also through another isolate, and docs'
// client keeps a firewall's sets by them.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Isolate, type Isolates, startIsolates } from '../lab/isolates.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { nftCommand, openNamespace, relayPort, type Namespace } from '../lab/netns.ts';
import { type StreamAnswer, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

/** How many bans are measured; the figures of docs/long-polling.md have 12. */
const bans = Number(process.env['WAIT_BANS'] ?? 2);

let isolates: Isolates;
beforeAll(async () => {
  isolates = await startIsolates(2);
});
afterAll(() => isolates?.close());

const poll = async ({ url }: Pick<Isolate, 'url'>, key: string, query: string): Promise<StreamAnswer> => {
  const response = await fetch(`${url}/v1/decisions/stream?${query}`, { headers: { 'x-api-key': key } });
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()) as StreamAnswer;
};
const isNothing = (answer: StreamAnswer) => [...(answer.new ?? []), ...(answer.deleted ?? [])].length === 0;

test('a ban through one isolate is at those who wait, in both', async () => {
  const [first, second] = isolates.all as [Isolate, Isolate];
  const keys = [await isolates.addBouncer('first'), await isolates.addBouncer('second')] as const;
  for (const [at, key] of keys.entries()) await poll(isolates.all[at]!, key, 'startup=true');
  const lateMs: number[][] = [[], []];
  for (let ban = 1; ban <= bans; ban++) {
    const value = `192.0.2.${ban}`;
    for (const [at, key] of keys.entries()) {
      await until('it has all that there is', async () =>
        isNothing(await poll(isolates.all[at]!, key, 'wait=1')),
      );
    }
    let bannedMs = Infinity;
    const waits = [first, second].map(async (isolate, at) => {
      const answer = await poll(isolate, keys[at]!, 'wait=50');
      lateMs[at]!.push(performance.now() - bannedMs);
      expect(valuesOf(answer.new)).toContain(value);
    });
    // At another moment of the second each time.
    await new Promise((resolve) => setTimeout(resolve, 1_000 + ((ban * 370) % 1_000)));
    await isolates.ban(value);
    bannedMs = performance.now();
    await Promise.all(waits);
  }
  if (process.env['WAIT_BANS'])
    console.log(['the same isolate', 'another one'].map((where, at) => figures(where, lateMs[at]!)));
});

function figures(where: string, ms: number[]): string {
  const sorted = ms.toSorted((a, b) => a - b).map((each) => Math.round(each));
  return `${where}: middle ${sorted[sorted.length >> 1]} ms, longest ${sorted.at(-1)} ms`;
}

/** Asks with `wait` on a connection of its own. */
function hold({ url }: Isolate, key: string): Socket {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.write(`GET /v1/decisions/stream?wait=50 HTTP/1.1\r\nhost: edge\r\nx-api-key: ${key}\r\n\r\n`);
  return socket;
}

const isWaiting = (isolate: Isolate, count: number) => async (saw: (thing: unknown) => void) => {
  const now = await isolates.waitingPolls(isolate);
  saw(now);
  return now === count;
};

test('a client that hangs up gives its place back, and is told of the change when it asks again', async () => {
  const [first] = isolates.all as [Isolate];
  const key = await isolates.addBouncer('hanging-up');
  await poll(first, key, 'startup=true');
  await until('it has all that there is', async () => isNothing(await poll(first, key, 'wait=1')));
  const sockets = Array.from({ length: 4 }, () => hold(first, key));
  await until('all of them wait', isWaiting(first, 4));
  // A fifth of one bouncer does not wait: it is answered before any of them.
  expect(isNothing(await poll(first, key, 'wait=50'))).toBe(true);
  expect(await isolates.waitingPolls(first)).toBe(4);
  for (const socket of sockets) socket.resetAndDestroy();
  await until('none waits', isWaiting(first, 0));
  const gone = hold(first, key);
  await until('it waits', isWaiting(first, 1));
  // Nobody reads its answer.
  gone.end();
  await isolates.ban('198.51.100.9');
  for (let answers = 0; answers < 2; answers++) {
    expect(valuesOf((await poll(first, key, 'wait=50')).new)).toContain('198.51.100.9');
  }
});

test('a client that is stopped and started again and again is answered each time, and misses nothing', async () => {
  const [first] = isolates.all as [Isolate];
  const key = await isolates.addBouncer('restarted');
  await poll(first, key, 'startup=true');
  await until('it has all that there is', async () => isNothing(await poll(first, key, 'wait=1')));
  await until('none waits', isWaiting(first, 0));
  for (let restarts = 1; restarts <= 50; restarts++) {
    const socket = hold(first, key);
    // workerd sees no plain close: the first four keep their places until their time is up.
    if (restarts <= 4) await until('it waits', isWaiting(first, restarts));
    else
      expect(String((await once(socket, 'data'))[0])).toMatch(
        /^HTTP\/1\.1 200 [^]*"new": \[\], "deleted": \[\]/,
      );
    socket.end();
  }
  expect(await isolates.waitingPolls(first)).toBe(4);
  await isolates.ban('198.51.100.10');
  for (let answers = 0; answers < 2; answers++) {
    expect(valuesOf((await poll(first, key, 'wait=50')).new)).toContain('198.51.100.10');
  }
  await until('none waits', isWaiting(first, 0));
});

describeWith('the client of docs/long-polling.md', ['netns'], () => {
  let lapidary: Lapidary;
  let namespace: Namespace;
  let folder: string;
  let nft: string[];
  beforeAll(async () => {
    lapidary = await startLapidary();
    namespace = await openNamespace(Number(new URL(lapidary.url).port));
    folder = await mkdtemp(join(tmpdir(), 'lapidary-client-'));
    nft = await nftCommand();
  });
  afterAll(async () => {
    await namespace?.close();
    await lapidary?.close();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const elements = async (family: 4 | 6): Promise<string[]> => {
    const [command = '', ...args] = nft;
    const json = await namespace.run(command, [
      ...args,
      '-j',
      'list',
      'set',
      'inet',
      'lapidary',
      `v${family}`,
    ]);
    const { nftables } = JSON.parse(json) as { nftables: { set?: { elem?: unknown[] } }[] };
    return nftables.flatMap(({ set }) => set?.elem ?? []).map((each) => JSON.stringify(each));
  };
  const has = (family: 4 | 6, element: unknown) =>
    until(`v${family} has ${JSON.stringify(element)}`, async (saw) => {
      const own = await elements(family);
      saw(own);
      return own.includes(JSON.stringify(element));
    });

  test('keeps two sets of nftables as Lapidary has it, also while Lapidary is away', async () => {
    const docs = readFileSync(new URL('../../docs/long-polling.md', import.meta.url), 'utf8');
    const [, script = ''] = /^```bash\n([\s\S]*?)^```$/m.exec(docs) ?? [];
    await writeFile(join(folder, 'client'), script);
    await writeFile(join(folder, 'header'), `X-Api-Key: ${await lapidary.addBouncer('script')}\n`);
    await writeFile(join(folder, 'nft'), `#!/bin/sh\nexec ${nft.join(' ')} "$@"\n`);
    await chmod(join(folder, 'nft'), 0o755);
    await lapidary.ban('192.0.2.1');
    await lapidary.ban('2001:db8::/64');
    const path = `${folder}:${process.env['PATH'] ?? ''}`;
    const url = `http://127.0.0.1:${relayPort}`;
    const client = namespace.start('env', [
      `PATH=${path}`,
      'bash',
      join(folder, 'client'),
      url,
      join(folder, 'header'),
    ]);
    try {
      await has(4, '192.0.2.1');
      await has(6, { prefix: { addr: '2001:db8::', len: 64 } });
      await lapidary.ban('198.51.100.0/24');
      await has(4, { prefix: { addr: '198.51.100.0', len: 24 } });
      await lapidary.unban('192.0.2.1');
      await until('the address is let free', async () => !(await elements(4)).includes('"192.0.2.1"'));
      await lapidary.stop();
      await until('the client was refused', () => client.log().includes('curl:'));
      expect(await elements(4)).toHaveLength(1);
      await lapidary.start();
      await lapidary.ban('192.0.2.3');
      await has(4, '192.0.2.3');
      expect(await elements(4)).toHaveLength(2);
      expect(await elements(6)).toHaveLength(1);
    } finally {
      await client.end('SIGKILL');
    }
  });
});
