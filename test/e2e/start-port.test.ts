// `npm start` and its port: another one there is not taken for ours, and what can not serve is not tried for ever.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Child } from '../lab/child.ts';
import { runStart, workerdsOn } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

let folder: string;
let started: Child[];
let stranger: Server | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lapidary-port-'));
  started = [];
});
afterEach(async () => {
  stranger?.close();
  stranger = undefined;
  await Promise.all(started.map((each) => each.end()));
  rmSync(folder, { recursive: true, force: true });
});

function start(name: string, port: number, settings: Record<string, string> = {}): Child {
  const child = runStart(join(folder, name), port, settings);
  started.push(child);
  return child;
}

async function startServing(name: string, port: number, settings: Record<string, string> = {}) {
  const child = start(name, port, settings);
  await until('it serves', (saw) => {
    saw(child.log());
    return child.log().includes('lapidary serves');
  });
  return child;
}

/** Listens there as soon as nobody else does. */
async function takePort(port: number): Promise<Server> {
  return until('the port is ours', () => {
    return new Promise<Server>((resolve, reject) => {
      const server = createServer((socket) => socket.destroy());
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => resolve(server));
    });
  });
}

const refusal = (port: number) =>
  `can not listen on 127.0.0.1:${port}: another process listens there: end it, or give another PORT`;

test('another Lapidary on the port is not taken for this one', async () => {
  const port = await freePort();
  const first = await startServing('first', port);
  const second = start('second', port);
  expect(await second.exit).toBe(1);
  expect(second.log()).toBe(`lapidary: ${refusal(port)}\n`);
  expect(first.running()).toBe(true);
  expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200);
});

test('a port that somebody takes from a dead workerd is tried for a while, ever less often', async () => {
  const port = await freePort();
  const child = await startServing('state', port);
  const taken = takePort(port);
  process.kill(workerdsOn(join(folder, 'state'))[0]!, 'SIGKILL');
  stranger = await taken;
  expect(await child.exit).toBe(1);
  const pauses = [...child.log().matchAll(/starting it again in ([\d.]+) s/g)].map(([, pause]) => pause);
  expect(pauses).toEqual(['0.1', '0.2', '0.4', '0.8', '1.6']);
  expect(child.log()).toMatch(
    new RegExp(`lapidary: workerd does not serve, 5 times in a row: ${refusal(port)}\n$`),
  );
});

const loopbacks = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
const hasIpv6 = loopbacks.some(({ address }) => address === '::1');

test.each(['127.0.0.1', 'localhost', ...(hasIpv6 ? ['::1'] : [])])('listens on %s', async (host) => {
  const port = await freePort();
  const child = await startServing('state', port, { HOST: host });
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  expect(child.log()).toContain(`lapidary serves ${url} `);
  expect((await fetch(`${url}/health`)).status).toBe(200);
});

test.each([
  ['HOST', '192.0.2.1', 'can not listen on 192.0.2.1:'],
  ['HOST', 'no host', 'can not listen on no host:'],
  ['PORT', 'http', 'PORT must be a number up to 65535'],
  ['PORT', '65536', 'PORT must be a number up to 65535'],
])('%s=%s ends it with one line', async (name, value, line) => {
  const child = start('state', await freePort(), { [name]: value });
  expect(await child.exit).toBe(1);
  expect(child.log()).toMatch(new RegExp(`^lapidary: ${line}.*\n$`));
});
