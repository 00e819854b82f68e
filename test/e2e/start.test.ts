// `npm start` as a newcomer meets it: the three lines it prints, its settings, and what it does with a bad one.
import { execFile } from 'node:child_process';
import { request } from 'node:http';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Lapidary, runStart, startLapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

let lapidary: Lapidary | undefined;
afterEach(async () => {
  await lapidary?.close();
  lapidary = undefined;
});

describeWith('a newcomer', ['hostTools'], () => {
  test('can paste the three lines that it prints, and sees a ban', async () => {
    lapidary = await startLapidary();
    const lines = /# make a bouncer's key.*\n([\s\S]*)/.exec(lapidary.log())?.[1] ?? '';
    const { stdout } = await promisify(execFile)('bash', ['-euc', lines]);
    expect(stdout).toContain('"new": [{"duration":"3h59m59s"');
    for (const name of ['operator-token', 'operator-header', 'bootstrap-secret']) {
      expect(statSync(join(lapidary.stateDir, name)).mode & 0o777).toBe(0o600);
    }
  });
});

test('a bad setting stops the start and names itself, not its value', async () => {
  const start = startLapidary({ settings: { SYNC_INTERVAL_SECONDS: 'hidden' } });
  await expect(start).rejects.toThrow('SYNC_INTERVAL_SECONDS must be a whole number');
  await expect(start).rejects.not.toThrow('hidden');
});

test('FEED_LOCATION stands as it was when the feed was made: another one serves nothing and says why', async () => {
  lapidary = await startLapidary({ settings: { FEED_LOCATION: 'weur' } });
  await lapidary.ban('192.0.2.1');
  const key = await lapidary.addBouncer('fw');
  await lapidary.stop();
  const port = await freePort();
  const moved = runStart(lapidary.stateDir, port, { FEED_LOCATION: 'oc' });
  try {
    const why = 'FEED_LOCATION must be weur, as it was when the feed was made';
    await until('it says why', () => moved.log().includes(why));
    const headers = { 'x-api-key': key };
    const poll = () => fetch(`http://127.0.0.1:${port}/v1/decisions/stream?startup=true`, { headers });
    expect((await poll()).status).toBe(503);
    expect(moved.log()).not.toContain('lapidary serves');
  } finally {
    await moved.end('SIGTERM');
  }
  await lapidary.start();
  const again = await fetch(`${lapidary.url}/v1/decisions/stream?startup=true`, {
    headers: { 'x-api-key': key },
  });
  expect(await again.text()).toContain('192.0.2.1');
});

test('a path prefix stands before every route, and nothing is served beside it', async () => {
  lapidary = await startLapidary({ settings: { PATH_PREFIX: '/lapi' } });
  expect(lapidary.log()).toContain(`${lapidary.url}/lapi/api/v1/bouncers`);
  expect((await fetch(`${lapidary.url}/lapi/health`)).status).toBe(200);
  expect((await fetch(`${lapidary.url}/lapi/v1/decisions`)).status).toBe(403);
  expect((await fetch(`${lapidary.url}/v1/decisions`)).status).toBe(404);
  expect((await fetch(`${lapidary.url}/lapid/v1/decisions`)).status).toBe(404);
});

test('a client’s address is the connection’s, unless a header is named that may tell', async () => {
  lapidary = await startLapidary();
  const address = async (headers: Record<string, string>): Promise<string> => {
    const name = `b-${Math.random().toString(36).slice(2)}`;
    const key = await (lapidary as Lapidary).addBouncer(name);
    await fetch(`${lapidary?.url}/v1/decisions/stream`, { headers: { ...headers, 'x-api-key': key } });
    return (await lapidary?.operator('GET', `/bouncers/${name}`))?.body.address;
  };
  const forged = {
    'cf-connecting-ip': '192.0.2.9',
    'x-real-ip': '192.0.2.9',
    'x-forwarded-for': '192.0.2.9',
  };
  const told = () => lapidary?.log().match(/.*X-Forwarded-For.*/g) ?? [];
  expect(told()).toEqual([]);
  for (let i = 0; i < 2; i++) expect(await address(forged)).toBe('127.0.0.1');
  await until('it says what to set', () => told().length > 0);
  expect(told()).toEqual([expect.stringContaining('set CLIENT_ADDRESS_HEADER=x-forwarded-for')]);
  expect(told().join()).not.toContain('192.0.2.9');
  await lapidary.close();
  lapidary = await startLapidary({ settings: { CLIENT_ADDRESS_HEADER: 'X-Real-IP' } });
  expect(await address(forged)).toBe('192.0.2.9');
  expect(told()).toEqual([]);
});

test('answers over kept and closed connections alike', async () => {
  lapidary = await startLapidary();
  const key = await lapidary.addBouncer('b');
  for (const connection of ['close', 'keep-alive']) {
    const body = await new Promise<string>((resolve, reject) => {
      const headers = { 'x-api-key': key, connection };
      const asked = request(`${lapidary?.url}/v1/decisions/stream`, { headers }, (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('end', () => resolve(text));
      });
      asked.on('error', reject).end();
    });
    expect(body).toBe('{"new": [], "deleted": []}');
  }
});

test('a Host that names no host is a 400 on every route, and no exception', async () => {
  lapidary = await startLapidary();
  const ask = (path: string, host: string): Promise<unknown[]> => {
    return new Promise((resolve, reject) => {
      const headers = { host, 'x-api-key': 'x' };
      const asked = request(`${lapidary?.url}${path}`, { headers }, async (response) => {
        const said = /"(?:message|detail)":"([^"]*)"/.exec(await text(response));
        resolve([host, path, response.statusCode, said?.[1]]);
      });
      asked.on('error', reject).end();
    });
  };
  for (const path of ['/health', '/v1/decisions', '/v1/alerts', '/api/v1/feed', '/bootstrap/v1/challenge']) {
    for (const host of ['[', 'x:99999', '1.2.3.4.5', 'a b', 'a, b', 'a/b', 'a?b', 'a#b', 'a@b', 'a\\b']) {
      expect(await ask(path, host)).toEqual([host, path, 400, 'host: no name of a host']);
    }
  }
  expect(await ask('/v1/decisions', 'a_b:80')).toEqual(['a_b:80', '/v1/decisions', 403, 'access forbidden']);
  expect(lapidary.log()).not.toMatch(/exception/i);
});

test('Ctrl-C ends it and its workerd', async () => {
  const port = await freePort();
  lapidary = await startLapidary();
  const stateDir = join(lapidary.stateDir, 'second');
  const child = runStart(stateDir, port);
  await until('it serves', () => child.log().includes('lapidary serves'));
  process.kill(child.pid, 'SIGINT');
  expect(await child.exit).toBe(0);
  await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
});
