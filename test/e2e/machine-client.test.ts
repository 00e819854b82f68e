// nix/lapidary-key.sh --machine against a live broker and a real engine: the account that it gets is one with which a
// real log processor bans; what goes wrong on the way costs no account, and shows no password.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startAgent } from '../lab/agent.ts';
import { addressHeader, exit, type Gate, type Host, newHost, openGate } from '../lab/broker-host.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { pullStream, valuesOf } from '../lab/poller.ts';
import { makeShims, type Shims } from '../lab/shims.ts';
import { until } from '../lab/wait.ts';

describeWith('the client, for a machine,', ['lab', 'hostTools'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let gate: Gate;
  let shims: Shims;
  const hosts: Host[] = [];

  beforeAll(async () => {
    // It has no auto-registration: the accounts wait, as they do at every engine before 1.6.3.
    engine = await startEngine();
    gate = await openGate(() => lapidary.url);
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { CLIENT_ADDRESS_HEADER: addressHeader, PUBLIC_URL: gate.url },
    });
    shims = await makeShims();
  });
  afterEach(() => {
    gate.mode = 'pass';
  });
  afterAll(async () => {
    gate?.close();
    await lapidary?.close();
    await engine?.close();
    for (const host of hosts) await host.close();
    await shims?.close();
  });

  async function known(): Promise<Host> {
    const host = await newHost(`logs-${hosts.length + 1}`, () => gate.url);
    hosts.push(host);
    await allow(host);
    return host;
  }
  async function allow(host: Host) {
    const body = { public_key: host.publicKey, bouncers: [], machine: 'default' };
    expect((await lapidary.operator('PUT', `/hosts/${host.name}`, body)).status).toBe(201);
  }

  const ask = (host: Host, options: Parameters<Host['fetchKey']>[0] = {}) =>
    host.fetchKey({ machine: true, ...options });

  /** The accounts that the engine has of a host. */
  async function accounts(host: Host): Promise<string[]> {
    const all = JSON.parse(await engine.cscli('machines', 'list', '-o', 'json')) as { machineId: string }[];
    return all.map(({ machineId }) => machineId).filter((name) => name.startsWith(`${host.name}-`));
  }
  async function validate(host: Host) {
    for (const name of await accounts(host)) await engine.cscli('machines', 'validate', name);
  }
  async function withAccount(): Promise<Host> {
    const host = await known();
    expect(await ask(host)).toMatchObject({ status: exit.waiting });
    await validate(host);
    expect(await ask(host)).toMatchObject({ status: exit.fetched });
    return host;
  }

  function credentials(host: Host): { url: string; machine_id: string; password: string } {
    const text = readFileSync(host.credentialsFile, 'utf8');
    const [, url = '', machine_id = '', password = ''] =
      /^url: "(.+)"\nlogin: "(.+)"\npassword: "(csm_\w{49})"\n$/.exec(text) ?? [];
    return { url, machine_id, password };
  }
  /** What a log-in at the edge with the published account is answered. */
  async function logIn(host: Host): Promise<number> {
    const { url, machine_id, password } = credentials(host);
    const body = JSON.stringify({ machine_id, password, scenarios: [] });
    const headers = { 'user-agent': 'crowdsec/v1', 'content-type': 'application/json' };
    return (await fetch(`${url}v1/watchers/login`, { method: 'POST', headers, body })).status;
  }

  test('waits for the engine, says what it waits for, and a log processor bans with what it gets', async () => {
    const host = await known();
    const { status, log } = await ask(host);
    const [name] = await accounts(host);
    expect([status, existsSync(host.credentialsFile)]).toEqual([exit.waiting, false]);
    expect(log).toContain(`cscli machines validate ${name}`);
    await engine.cscli('machines', 'validate', name as string);
    expect(await ask(host)).toMatchObject({ status: exit.fetched });
    expect(credentials(host)).toMatchObject({ url: `${gate.url}/`, machine_id: name });
    expect(statSync(host.credentialsFile).mode & 0o777).toBe(0o600);
    expect(await ask(host)).toMatchObject({ status: exit.unchanged });

    const agent = await startAgent(host.credentialsFile);
    const key = await lapidary.addBouncer('reader');
    try {
      await agent.attackFrom('203.0.113.66');
      await until('it bans', async (saw) => {
        saw(agent.log().slice(-1500));
        const { new: added } = await pullStream({ url: lapidary.url, key });
        return valuesOf(added).includes('203.0.113.66');
      });
    } finally {
      await agent.close();
    }
  });

  test('has one account, whatever answers are lost', async () => {
    const host = await known();
    gate.mode = 'lost-once';
    expect(await ask(host)).toMatchObject({ status: exit.waiting });
    gate.mode = 'lost';
    expect(await ask(host)).toMatchObject({ status: exit.offlineWithoutAny });
    gate.mode = 'pass';
    await validate(host);
    expect(await ask(host)).toMatchObject({ status: exit.fetched });
    expect(await accounts(host)).toEqual([credentials(host).machine_id]);
  });

  test('goes on with the account that it has while the broker is away, or the engine', async () => {
    const [host, other] = [await withAccount(), await known()];
    const before = credentials(host);
    await engine.stop();
    const { status, log } = await ask(host);
    expect([status, log]).toEqual([exit.offline, expect.stringContaining('answered 503')]);
    expect(await ask(other)).toMatchObject({ status: exit.offlineWithoutAny });
    await lapidary.stop();
    expect(await ask(host)).toMatchObject({ status: exit.offline });
    await Promise.all([engine.start(), lapidary.start()]);
    expect(await ask(host)).toMatchObject({ status: exit.unchanged });
    expect(credentials(host)).toEqual(before);
  });

  test('that lost its password gets another account, and goes on with the first until the engine takes it', async () => {
    const host = await withAccount();
    const first = credentials(host);
    await rm(join(host.dir, 'machine-state/password'));
    expect(await ask(host)).toMatchObject({ status: exit.waiting });
    expect(credentials(host)).toEqual(first);
    await rm(join(host.dir, 'machine-state/changed'));
    await validate(host);
    expect(await ask(host)).toMatchObject({ status: exit.fetched });
    expect(credentials(host).machine_id).not.toBe(first.machine_id);
    expect(await logIn(host)).toBe(200);
    // Whoever restarts the log processor goes by this.
    expect(existsSync(join(host.dir, 'machine-state/changed'))).toBe(true);
  });

  test('shows that an operator refuses its machine, or its host, and comes back when it may', async () => {
    const host = await withAccount();
    const { machine_id: machine } = credentials(host);
    await lapidary.operator('PUT', `/blocked-machines/${machine}`, {});
    const refused = await ask(host);
    expect(refused).toMatchObject({ status: exit.refused, log: expect.stringContaining(machine) as string });
    await lapidary.operator('DELETE', `/blocked-machines/${machine}`);
    expect(await ask(host)).toMatchObject({ status: exit.unchanged });

    await lapidary.operator('DELETE', `/hosts/${host.name}`);
    expect(await ask(host)).toMatchObject({
      status: exit.refused,
      log: expect.stringMatching(/REFUSED: .* answered 410 host-revoked/) as string,
    });
    await until('its account is refused', async () => (await logIn(host)) === 403);
    await allow(host);
    expect(await ask(host)).toMatchObject({ status: exit.waiting });
    await validate(host);
    expect(await ask(host)).toMatchObject({ status: exit.fetched });
    expect(await logIn(host)).toBe(200);
  });

  test('shows no password in an argument, the environment, its output or a log', async () => {
    const host = await known();
    const first = await ask(host, shims.watching('seen'));
    await validate(host);
    const second = await ask(host, shims.watching('seen'));
    expect([first.status, second.status]).toEqual([exit.waiting, exit.fetched]);
    const { password } = credentials(host);
    const told = shims.seen('seen') + first.log + second.log + lapidary.log() + engine.log();
    expect(told).toContain('/bin/ssh-keygen ');
    expect(told).not.toContain(password.slice(4, 20));
  });

  test('has one good account, wherever it is killed', async () => {
    let [host, killed] = [await known(), 0];
    for (let step = 1; ; step++) {
      const contact = await ask(host, shims.killingAt(step, `contact-${step}`));
      const story = `step ${step}: ${contact.log}`;
      expect(await ask(host), story).toMatchObject({ status: exit.waiting });
      await validate(host);
      const publishing = await ask(host, shims.killingAt(step, `publishing-${step}`));
      const { status } = await ask(host);
      expect([exit.fetched, exit.unchanged], `${story} ${publishing.log}`).toContain(status);
      expect(await accounts(host), story).toEqual([credentials(host).machine_id]);
      expect(await logIn(host), story).toBe(200);
      const ends = [contact.status, publishing.status].filter((end) => end === 'SIGKILL').length;
      if (ends === 0) break;
      killed += ends;
      host = await known();
    }
    expect(killed).toBeGreaterThan(30);
  }, 300_000);
});
