// An update from the state that `npm start` of 539c253 has left (made by make-state.mjs), also when it is killed in its
// midst. The engine is away: what is served is what was kept.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { isRunning, type Lapidary, runStart, startLapidary, workerdsOn } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

interface State {
  operatorToken: string;
  upstreamUrl: string;
  /** By key: what the bouncer has, or with which status it is refused. */
  served: Record<string, string[] | number>;
  /** The statements that make it, by the path of the database. */
  databases: Record<string, string[]>;
}

const old: State = JSON.parse(readFileSync(join(import.meta.dirname, 'state-539c253.json'), 'utf8'));

function putOldState(stateDir: string): void {
  const sqlite = process.getBuiltinModule('node:sqlite');
  for (const [path, statements] of Object.entries(old.databases)) {
    mkdirSync(dirname(join(stateDir, path)), { recursive: true });
    // Rows come before those that they refer to.
    const database = new sqlite.DatabaseSync(join(stateDir, path), { enableForeignKeyConstraints: false });
    for (const statement of ['BEGIN', ...statements, 'COMMIT']) database.exec(statement);
    database.close();
  }
  writeFileSync(join(stateDir, 'operator-token'), old.operatorToken, { mode: 0o600 });
}

let lapidary: Lapidary | undefined;
afterEach(async () => {
  await lapidary?.close();
  lapidary = undefined;
});

const upstream = { url: old.upstreamUrl, key: 'a-key-of-the-engine' };

async function pull({ url }: Lapidary, key: string): Promise<string[] | number> {
  const response = await fetch(`${url}/v1/decisions/stream?startup=true`, { headers: { 'x-api-key': key } });
  if (!response.ok) return response.status;
  const { new: added } = (await response.json()) as { new: { scope: string; type: string; value: string }[] };
  return added.map(({ scope, type, value }) => `${scope} ${type} ${value}`).sort();
}

/** Everything that was there, and it can be worked with. */
async function expectUpdated(lapidary: Lapidary): Promise<void> {
  const ask = async (path: string): Promise<any> => {
    const { status, body } = await lapidary.operator('GET', path);
    expect([path, status]).toEqual([path, 200]);
    return body;
  };
  for (const [key, has] of Object.entries(old.served))
    expect([key, await pull(lapidary, key)]).toEqual([key, has]);
  const { bouncers } = await ask('/bouncers');
  expect(bouncers.map(({ name }: { name: string }) => name).sort()).toEqual([
    'limited',
    'plain',
    'rotated',
    'rotating',
  ]);
  expect(await ask('/hosts/web-1')).toMatchObject({ host: { name: 'web-1', state: 'waiting' } });
  expect(JSON.stringify(await ask('/blocked-machines'))).toContain('robot');
  expect(JSON.stringify(await ask('/operator-tokens'))).toContain('ended');
  await ask('/audit/verify');

  const key = await lapidary.addBouncer('new');
  await lapidary.ban('203.0.113.80');
  await lapidary.unban('203.0.113.77');
  const before = old.served['key-of-plain'] as string[];
  const now = before.filter((each) => each !== 'Ip ban 203.0.113.77').concat('Ip ban 203.0.113.80');
  expect(await pull(lapidary, key)).toEqual(now.sort());
  expect((await lapidary.operator('POST', '/bouncers/plain/rotate', {})).status).toBe(200);
  await ask('/audit/verify');
}

describeWith('an update', ['sqlite'], () => {
  test('loses nothing', async () => {
    lapidary = await startLapidary({ upstream, prepare: putOldState });
    await expectUpdated(lapidary);
  });

  test('that is killed again and again in its midst loses nothing', async () => {
    const stateDir = await mkdtemp(join(tmpdir(), 'lapidary-old-'));
    try {
      putOldState(stateDir);
      for (let kills = 0; kills < 6; kills++) {
        const settings = { UPSTREAM_URL: upstream.url, UPSTREAM_API_KEY: upstream.key };
        const child = runStart(stateDir, await freePort(), settings);
        const [workerd] = await until('workerd runs', () => {
          const pids = workerdsOn(stateDir);
          return pids.length > 0 && pids;
        });
        // Each a little later than the one before: the databases are opened within the first tenth of a second.
        await delay(kills * 30);
        for (const pid of [child.pid, workerd!]) process.kill(pid, 'SIGKILL');
        await child.exit;
        await until('workerd is gone', () => !isRunning(workerd!));
      }
      lapidary = await startLapidary({
        upstream,
        prepare: (into) => cpSync(stateDir, into, { recursive: true }),
      });
      await expectUpdated(lapidary);
    } finally {
      await rm(stateDir, { recursive: true });
    }
  });
});
