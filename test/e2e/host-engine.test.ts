// nix/engine.sh and nix/cscli-offline.sh with a real engine and its cscli: what a unit of an engine's host runs.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { newHost } from '../lab/broker-host.ts';
import { requireTools } from '../lab/debian.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

const scripts = join(import.meta.dirname, '../../nix');
const dayMs = 86_400_000;

describeWith('an engine’s host', ['lab', 'hostTools'], () => {
  let engine: Engine;
  let cscli: string;
  const dir = mkdtempSync(join(tmpdir(), 'lapidary-engine-host-'));
  const state = join(dir, 'state');

  beforeAll(async () => {
    engine = await startEngine();
    cscli = join(dir, 'cscli');
    const program = (await requireTools()).cscli;
    await writeFile(cscli, `#!/bin/sh\nexec ${program} -c ${engine.dir}/config.yaml "$@"\n`, { mode: 0o755 });
  });
  beforeEach(async () => {
    rmSync(state, { recursive: true, force: true });
    await mkdir(state, { mode: 0o700 });
  });
  afterAll(async () => {
    await engine?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  function lapidaryEngine(...args: string[]) {
    const env = { PATH: process.env['PATH'] ?? '', STATE_DIRECTORY: state, CSCLI: cscli };
    return spawnSync('bash', [join(scripts, 'engine.sh'), ...args], { env, encoding: 'utf8' });
  }
  function register() {
    const { status, stdout, stderr } = lapidaryEngine('register', 'lapidary', String((30 * dayMs) / 1000));
    expect([status, stderr]).toEqual([0, '']);
    const key = readFileSync(join(state, 'current/key'), 'utf8').trim();
    expect(stdout).not.toContain(key);
    return key;
  }
  function retire() {
    expect(lapidaryEngine('retire', 'lapidary').status).toBe(0);
  }
  function age(ms: number) {
    const made = new Date(Date.now() - ms);
    utimesSync(join(state, 'current/key'), made, made);
  }
  async function opens(key: string): Promise<boolean> {
    const answer = await fetch(`${engine.url}/v1/decisions`, {
      method: 'HEAD',
      headers: { 'x-api-key': key },
    });
    return answer.ok;
  }

  test('makes a key that opens the engine, once, for its own user only', async () => {
    const key = register();
    expect(await opens(key)).toBe(true);
    expect(register()).toBe(key);
    expect(statSync(join(state, 'current/key')).mode & 0o777).toBe(0o600);
  });

  test('replaces an old key without a gap: the one before opens until its successor is used', async () => {
    const first = register();
    age(31 * dayMs);
    const second = register();
    expect(second).not.toBe(first);
    // The broker has only just said yes: a pull with the first key may be on its way.
    retire();
    expect([await opens(first), await opens(second)]).toEqual([true, true]);
    age(dayMs);
    retire();
    expect([await opens(first), await opens(second)]).toEqual([false, true]);
    expect(readdirSync(state)).toHaveLength(2);
  });

  test('touches no other bouncer', async () => {
    const other = await engine.addBouncer('lapidary-of-another');
    register();
    age(dayMs);
    retire();
    expect(await opens(other)).toBe(true);
  });

  test('makes another key when the engine has forgotten the one that it had', async () => {
    const first = register();
    const name = readdirSync(state).find((each) => each.startsWith('lapidary-')) as string;
    await engine.deleteBouncer(name);
    const second = register();
    expect(second).not.toBe(first);
    expect(await opens(second)).toBe(true);
  });

  test.each(['bouncers add', 'mv', 'ln'])(
    'a kill during `%s` costs nothing but a new key',
    async (command) => {
      const shims = join(dir, 'shims');
      await mkdir(shims, { recursive: true });
      const [program = '', verb] = command.split(' ');
      const kill = 'kill -KILL $PPID';
      const real = (name: string) => spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim();
      const shim = verb
        ? `#!/bin/sh\n${cscli} "$@"\ncase "$*" in *"bouncers add"*) ${kill} ;; esac\n`
        : `#!/bin/sh\n${real(program)} "$@"\n${kill}\n`;
      const path = join(shims, verb ? 'cscli' : program);
      await writeFile(path, shim, { mode: 0o755 });
      const env = {
        PATH: `${shims}:${process.env['PATH'] ?? ''}`,
        STATE_DIRECTORY: state,
        CSCLI: verb ? path : cscli,
      };
      const { signal } = spawnSync('bash', [join(scripts, 'engine.sh'), 'register', 'lapidary', '100'], {
        env,
      });
      rmSync(shims, { recursive: true });
      expect(signal).toBe('SIGKILL');
      expect(await opens(register())).toBe(true);
      age(dayMs);
      retire();
      const bouncers = JSON.parse(await engine.cscli('bouncers', 'list', '-o', 'json')) as { name: string }[];
      expect(bouncers.filter(({ name }) => /^lapidary-\d+$/.test(name))).toHaveLength(1);
    },
  );

  test('sends its key to Lapidary, which pulls with it, and goes on when it is replaced', async () => {
    const lapidary = await startLapidary({ settings: { UPSTREAM_URL: engine.url } });
    const host = await newHost('engine-1', () => lapidary.url);
    try {
      const body = { public_key: host.publicKey, bouncers: [], engine: true };
      expect((await lapidary.operator('PUT', '/hosts/engine-1', body)).status).toBe(201);
      const sent = async () => (await host.fetchKey({ engineKey: join(state, 'current/key') })).status;
      const mirrors = async (address: string) => {
        await engine.ban(address);
        await until(`Lapidary mirrors ${address}`, async (saw) => {
          const round = await lapidary.sync({ full: true });
          saw(round);
          const { decisions } = (await lapidary.operator('GET', '/decisions')).body;
          return round.ok && decisions.some(({ value }: { value: string }) => value === address);
        });
      };
      expect(await sent()).toBe(75);
      const first = register();
      expect([await sent(), await sent()]).toEqual([0, 10]);
      await mirrors('192.0.2.1');

      age(31 * dayMs);
      const second = register();
      expect(await sent()).toBe(0);
      await mirrors('192.0.2.2');
      age(dayMs);
      retire();
      expect([await opens(first), await opens(second)]).toEqual([false, true]);
      await mirrors('192.0.2.3');
      for (const key of [first, second]) expect(lapidary.log()).not.toContain(key);
    } finally {
      await host.close();
      await lapidary.close();
    }
  });

  describe('without a connection to the hub', () => {
    const offline = (args: string[], unit: boolean, real = cscli) => {
      const env = {
        PATH: process.env['PATH'] ?? '',
        REAL_CSCLI: real,
        // A proxy that nobody listens on: the hub is out of reach whatever this machine's network is.
        HTTPS_PROXY: 'http://127.0.0.1:9',
        ...(unit ? { CSCLI_OFFLINE_START: '1' } : {}),
      };
      return spawnSync('bash', [join(scripts, 'cscli-offline.sh'), ...args], { env, encoding: 'utf8' });
    };

    test('the engine’s unit goes on, with an index to start from', () => {
      const index = join(engine.dir, 'hub/.index.json');
      rmSync(index);
      expect(offline(['hub', 'update'], true).status).toBe(0);
      expect(existsSync(index)).toBe(true);
      const { status, stderr } = offline(['collections', 'install', 'crowdsecurity/linux'], true);
      expect(status).toBe(0);
      expect(stderr).toContain('cscli collections install failed, and is forgiven');
    });

    test('an enrolment fails, but in the engine’s unit, where its key is not shown', () => {
      const enrol = ['console', 'enroll', '--name', 'engine-1', 'enrolment-key'];
      expect(offline(enrol, false).status).not.toBe(0);
      const { status, stderr } = offline(enrol, true);
      expect(status).toBe(0);
      expect(stderr).toContain('cscli console enroll failed');
      expect(stderr).not.toContain('enrolment-key');
    });

    test('an item of a wrong name is a failure once the hub answers', () => {
      const online = join(engine.dir, 'cscli-online');
      writeFileSync(
        online,
        `#!/bin/sh\ncase "$*" in *'hub update') exit 0 ;; *) exec ${cscli} "$@" ;; esac\n`,
      );
      chmodSync(online, 0o755);
      const install = ['collections', 'install', 'crowdsecurity/linnux'];
      expect(offline(install, true).status).toBe(0);
      expect(offline(install, true, online).status).not.toBe(0);
    });

    test('a person is told, and other failures are failures', () => {
      expect(offline(['hub', 'update'], false).status).not.toBe(0);
      expect(offline(['bouncers', 'delete', 'nobody'], true).status).not.toBe(0);
      expect(offline(['bouncers', 'list'], true).status).toBe(0);
    });
  });
});
