// nix/lapidary-key.sh against a live broker: up, down, refusing, losing its answers, slow, each with a cached key and
// without; on a full disk; killed at every step; and what other users of the host can see of it.
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { addressHeader, exit, type Gate, type Host, newHost, openGate } from '../lab/broker-host.ts';
import { startIssuer } from '../lab/issuer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { clientPrograms, makeShims, type Shims } from '../lab/shims.ts';

describeWith('the client', ['hostTools'], () => {
  let lapidary: Lapidary;
  let gate: Gate;
  const hosts: Host[] = [];
  let count = 0;

  beforeAll(async () => {
    gate = await openGate(() => lapidary.url);
    const settings = { CLIENT_ADDRESS_HEADER: addressHeader, PUBLIC_URL: gate.url };
    lapidary = await startLapidary({ settings });
  });
  afterEach(() => {
    gate.mode = 'pass';
  });
  afterAll(async () => {
    gate?.close();
    await lapidary?.close();
    for (const host of hosts) await host.close();
  });

  async function stranger(): Promise<Host> {
    const host = await newHost(`web-${++count}`, () => gate.url);
    hosts.push(host);
    return host;
  }

  async function known(mode = 'standard'): Promise<Host> {
    const host = await stranger();
    const body = { public_key: host.publicKey, bouncers: [host.name], mode };
    expect((await lapidary.operator('PUT', `/hosts/${host.name}`, body)).status).toBe(201);
    return host;
  }

  async function withKey(): Promise<{ host: Host; key: string }> {
    const host = await known();
    expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
    return { host, key: host.key() as string };
  }

  async function askForRotation(host: Host) {
    expect((await lapidary.operator('POST', `/bouncers/${host.name}/rotate`, {})).status).toBe(202);
  }

  /** Pulls as a bouncer does: a key that was never used to pull gives way to the next one. */
  async function opens(key: string | undefined): Promise<boolean> {
    const url = `${lapidary.url}/v1/decisions/stream?startup=true`;
    return (await fetch(url, { headers: { 'x-api-key': key ?? '' } })).ok;
  }

  describe('the broker is up', () => {
    test('a known host gets a key that opens the list; it can be read by its owner only', async () => {
      const { host, key } = await withKey();
      expect(key).toMatch(/^csb_[0-9A-Za-z]{49}$/);
      expect(await opens(key)).toBe(true);
      expect(statSync(join(host.dir, 'state/key')).mode & 0o777).toBe(0o600);
      expect(statSync(join(host.dir, 'state')).mode & 0o777).toBe(0o700);
    });

    test('an image’s instance takes its own name when it asks, whole or up to its first dot', async () => {
      const [host, own] = [await stranger(), hostname()];
      const short = own.split('.')[0] as string;
      const body = { public_key: host.publicKey, bouncers: [`${short}-caddy`] };
      expect((await lapidary.operator('PUT', `/hosts/${own}`, body)).status).toBe(201);
      const args = ['--host', '%H', '--bouncer', '%l-caddy', '--every', '1h'];
      const { status, log } = await host.fetchKey({ args });
      expect(status).toBe(exit.fetched);
      expect(log).toContain(`registered a new key for ${short}-caddy at ${gate.url}; asks again in 1h`);
    });

    test('nothing new: the same key, and it says so', async () => {
      const { host, key } = await withKey();
      const { status, log } = await host.fetchKey();
      expect(status).toBe(exit.unchanged);
      expect(log).toContain('nothing is new');
      expect(host.key()).toBe(key);
    });

    test('a rotation that an operator asks for: a new key, once', async () => {
      const { host, key } = await withKey();
      await askForRotation(host);
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      const next = host.key();
      expect(next).not.toBe(key);
      expect([await opens(key), await opens(next)]).toEqual([true, true]);
      expect(await host.fetchKey()).toMatchObject({ status: exit.unchanged });
      expect(host.key()).toBe(next);
    });

    test('a damaged cached key is no key: the host makes another', async () => {
      const { host, key } = await withKey();
      await writeFile(join(host.dir, 'state/key'), key.slice(0, -1));
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect(await opens(host.key())).toBe(true);
    });

    test('a host with an enrolment token enrols itself, and does not need the token again', async () => {
      const host = await stranger();
      const { body } = await lapidary.operator('POST', '/enrolments', { hosts: host.name, max_hosts: 1 });
      const token = join(host.dir, 'token');
      await writeFile(token, `${body.token}\n`);
      const args = ['--enrol-token', token];
      expect(await host.fetchKey({ args })).toMatchObject({ status: exit.fetched });
      expect(await opens(host.key())).toBe(true);
      // What systemd puts there once the file is gone.
      await writeFile(token, 'unset');
      expect(await host.fetchKey({ args })).toMatchObject({ status: exit.unchanged });
    });
  });

  test('a cloud’s instance proves what it is by a token of its issuer, once', async () => {
    const issuer = await startIssuer('lapidary-hosts');
    await issuer.addKey('ES256', 'k');
    const trust = {
      issuer: issuer.url,
      jwks_uri: `${issuer.url}/.well-known/jwks.json`,
      audience: 'lapidary-hosts',
      host_claim: 'machine',
      conditions: [{ claim: 'project', equals: 'ours' }],
    };
    const cloud = await startLapidary({ settings: { HOST_ISSUERS: JSON.stringify([trust]) } });
    const host = await newHost('vm-1', () => cloud.url);
    hosts.push(host);
    try {
      const token = join(host.dir, 'token');
      const args = ['--identity-token', token];
      await writeFile(token, await issuer.sign({ claims: { machine: 'vm-1', project: 'theirs' } }));
      expect(await host.fetchKey({ args })).toMatchObject({ status: exit.refusedWithoutAny });
      await writeFile(token, await issuer.sign({ claims: { machine: 'vm-1', project: 'ours' } }));
      expect(await host.fetchKey({ args })).toMatchObject({ status: exit.fetched });
      await rm(token);
      expect(await host.fetchKey({ args })).toMatchObject({ status: exit.unchanged });
    } finally {
      await cloud.close();
      await issuer.stop();
    }
  });

  describe('the broker is down', () => {
    beforeAll(() => lapidary.stop());
    afterAll(() => lapidary.start());

    test('without a key: fails, and the next try succeeds', async () => {
      await lapidary.start();
      const host = await known();
      const { host: other, key } = await withKey();
      await lapidary.stop();
      expect(await host.fetchKey()).toMatchObject({ status: exit.offlineWithoutAny });
      expect(host.key()).toBeUndefined();
      expect(await other.fetchKey()).toMatchObject({ status: exit.offline });
      expect(other.key()).toBe(key);
      await lapidary.start();
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect(await other.fetchKey()).toMatchObject({ status: exit.unchanged });
    });
  });

  describe('the broker refuses', () => {
    test('a host that it does not know', async () => {
      const host = await stranger();
      const { status, log } = await host.fetchKey();
      expect(status).toBe(exit.refusedWithoutAny);
      expect(log).toMatch(/REFUSED: .* answered 403 forbidden/);
      expect(host.key()).toBeUndefined();
    });

    test('a host that was revoked: its key stays where it is, and the log says why', async () => {
      const { host, key } = await withKey();
      await lapidary.operator('DELETE', `/hosts/${host.name}`);
      const { status, log } = await host.fetchKey();
      expect(status).toBe(exit.refused);
      expect(log).toMatch(/REFUSED: .* answered 410 host-revoked/);
      expect(host.key()).toBe(key);
    });

    test('a clone that went its own way', async () => {
      const { host } = await withKey();
      const clone = join(host.dir, 'clone');
      spawnSync('cp', ['-a', join(host.dir, 'state'), clone]);
      await askForRotation(host);
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      await askForRotation(host);
      const { status, log } = await host.fetchKey({ args: ['--state', clone] });
      expect(status).toBe(exit.refused);
      expect(log).toContain('409');
    });
  });

  describe('an answer is lost', () => {
    test('once: the second try finds the key registered already', async () => {
      const host = await known();
      gate.mode = 'lost-once';
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect(await opens(host.key())).toBe(true);
      expect(await host.fetchKey()).toMatchObject({ status: exit.unchanged });
    });

    test('every time, without a key: the key that was made is kept and used later', async () => {
      const host = await known();
      gate.mode = 'lost';
      expect(await host.fetchKey()).toMatchObject({ status: exit.offlineWithoutAny });
      const made = readFileSync(join(host.dir, 'state/key.next'), 'utf8');
      gate.mode = 'pass';
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect(host.key()).toBe(made);
      expect(await opens(made)).toBe(true);
    });

    test('every time, in a rotation: the cached key stays, then the new one comes', async () => {
      const { host, key } = await withKey();
      await askForRotation(host);
      gate.mode = 'lost-once';
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      await askForRotation(host);
      const second = host.key();
      gate.mode = 'lost';
      expect(await host.fetchKey()).toMatchObject({ status: exit.offline });
      expect(host.key()).toBe(second);
      gate.mode = 'pass';
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect([key, second]).not.toContain(host.key());
      expect(await opens(host.key())).toBe(true);
    });
  });

  test('the broker never answers: it is as if it were down, with a key and without', async () => {
    const host = await known();
    const { host: other, key } = await withKey();
    gate.mode = 'slow';
    const [without, cached] = await Promise.all([host.fetchKey(), other.fetchKey()]);
    expect([without.status, cached.status]).toEqual([exit.offlineWithoutAny, exit.offline]);
    expect(other.key()).toBe(key);
  });

  describe('the disk is full', () => {
    const generation = (host: Host) => readFileSync(join(host.dir, 'state/generation'), 'utf8');

    test('a host says so and keeps its generation: a strict one is not taken for a copy afterwards', async () => {
      const host = await known('strict');
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      await askForRotation(host);
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      const { status, log } = await host.fetchKey({ diskFull: true });
      expect([status, log]).toEqual([
        exit.offline,
        expect.stringContaining('generation could not be written;'),
      ]);
      expect(generation(host)).toBe('2');
      expect(await host.fetchKey()).toMatchObject({ status: exit.unchanged });
      expect(await opens(host.key())).toBe(true);
    });

    test('a host without a key makes none of it, and gets one when there is room', async () => {
      const host = await known();
      const { status, log } = await host.fetchKey({ diskFull: true });
      expect([status, log]).toEqual([
        exit.offlineWithoutAny,
        expect.stringContaining('key.next could not be written;'),
      ]);
      expect(await host.fetchKey()).toMatchObject({ status: exit.fetched });
      expect(await opens(host.key())).toBe(true);
    });
  });

  test('something else answers: no key is made of it', async () => {
    const host = await newHost('web-0', () => `${lapidary.url}/health?`);
    hosts.push(host);
    expect(await host.fetchKey()).toMatchObject({ status: exit.offlineWithoutAny });
    expect(host.key()).toBeUndefined();
  });

  test.each([
    ['--host', 'a b'],
    ['--broker', 'example.net'],
    ['--bouncer', ''],
    ['--state'],
    ['--what', 'x'],
  ])('is told how it is used: %s %s', async (...args) => {
    const host = await stranger();
    const { status, log } = await host.fetchKey({ args });
    expect(status).toBe(exit.usage);
    expect(log).toContain('usage: lapidary-key');
  });

  describe('watched and killed', () => {
    let shims: Shims;
    beforeAll(async () => {
      shims = await makeShims();
    });
    afterAll(() => shims?.close());

    test('shows no secret in an argument, the environment or its output', async () => {
      const host = await stranger();
      const { body } = await lapidary.operator('POST', '/enrolments', { hosts: host.name, max_hosts: 1 });
      const token = join(host.dir, 'token');
      await writeFile(token, body.token);
      const first = await host.fetchKey({ args: ['--enrol-token', token], ...shims.watching('seen') });
      expect(first.status).toBe(exit.fetched);
      const firstKey = host.key() as string;
      await askForRotation(host);
      const second = await host.fetchKey(shims.watching('seen'));
      expect(second.status).toBe(exit.fetched);
      const seen = shims.seen('seen') + first.log + second.log;
      for (const program of clientPrograms) expect(seen).toContain(`/bin/${program} `);
      for (const secret of [firstKey, host.key() as string, body.token]) {
        expect(seen).not.toContain(secret.slice(4, 20));
      }
      expect(lapidary.log()).not.toContain(firstKey);
    });

    test.each(['first contact', 'rotation'])(
      'survives a kill at every step of its %s',
      async (occasion) => {
        const rotates = occasion === 'rotation';
        let host = rotates ? (await withKey()).host : await known();
        let killed = 0;
        for (let step = 1; ; step++) {
          const before = host.key();
          if (rotates) await askForRotation(host);
          const { status } = await host.fetchKey(shims.killingAt(step, `${occasion}-${step}`));
          // The key that was there is there, and good, or has been replaced by one that the broker took.
          if (rotates) expect(await opens(host.key()), `step ${step}`).toBe(true);
          const again = await host.fetchKey();
          const story = `step ${step}, first ${status}: ${again.log}`;
          expect([exit.fetched, exit.unchanged], story).toContain(again.status);
          expect(await opens(host.key()), story).toBe(true);
          expect(host.key(), story).not.toBe(before);
          if (status !== 'SIGKILL') break;
          killed++;
          if (!rotates) host = await known();
        }
        expect(killed).toBeGreaterThan(20);
      },
      300_000,
    );
  });
});
