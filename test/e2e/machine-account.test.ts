// A host's account at a real engine: registered through the broker, validated by cscli or, from 1.6.3 on, by the engine's
// auto-registration; then good for a log-in at the edge.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { versionOf } from '../conformance/case.ts';
import { openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { createSshHost, type SshHost } from '../lab/ssh-host.ts';

const registrationToken = 'registration-token-of-the-tests-0123';
const password = 'a-password-that-the-host-has-made-0';

describeWith('an account', ['lab', 'hostTools'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let host: SshHost;

  async function start(server: string[]) {
    engine = await startEngine({ server });
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { UPSTREAM_REGISTRATION_TOKEN: registrationToken },
    });
    host = createSshHost('logs-1');
    const fields = { public_key: host.publicKey, bouncers: [], machine: 'default' };
    expect((await lapidary.operator('PUT', '/hosts/logs-1', fields)).status).toBe(201);
  }
  async function stop() {
    host?.close();
    await lapidary?.close();
    await engine?.close();
  }

  async function ask(
    generation: number,
    machine_password = password,
  ): Promise<{ status: number; body: any }> {
    const body = await host.request(lapidary.url, 'machine', { machine_password, generation });
    const response = await fetch(`${lapidary.url}/bootstrap/v1/machine`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  async function logIn(machine: string): Promise<number> {
    const body = JSON.stringify({ machine_id: machine, password, scenarios: ['crowdsecurity/ssh-bf'] });
    const headers = { 'user-agent': 'crowdsec/v1' };
    return (await fetch(`${lapidary.url}/v1/watchers/login`, { method: 'POST', headers, body })).status;
  }

  function scenariosOf(machine: string): unknown {
    const database = openDatabase(engine);
    try {
      return database.prepare('SELECT scenarios FROM machines WHERE machine_id = ?').get(machine)?.[
        'scenarios'
      ];
    } finally {
      database.close();
    }
  }

  describe('without auto-registration', () => {
    beforeAll(() => start([]));
    afterAll(stop);

    test('waits for cscli, then lasts; whoever deletes it at the engine sees it again', async () => {
      const { body } = await ask(0);
      const { machine } = body;
      expect(body).toMatchObject({ state: 'waiting', generation: 1, lapi_path: '/' });
      expect(await logIn(machine)).toBe(401);
      await engine.cscli('machines', 'validate', machine);
      expect((await ask(1)).body).toEqual({ ...body, state: 'unchanged' });
      expect(await logIn(machine)).toBe(200);
      // That the broker looks does not take away what the log processor said of itself.
      expect((await ask(1)).body.state).toBe('unchanged');
      expect(scenariosOf(machine)).toBe('crowdsecurity/ssh-bf');
      await engine.cscli('machines', 'delete', machine);
      expect((await ask(1)).body).toEqual(body);
    });

    test('with a name that somebody took at the engine is none: the host is asked for another password', async () => {
      const other = `${password}1`;
      const taken = (await ask(0, other)).body.machine;
      await engine.cscli('machines', 'delete', taken);
      await engine.cscli('machines', 'add', taken, '--password', 'of-somebody-else', '-f', '/dev/null');
      expect((await ask(2, other)).status).toBe(409);
    });

    test('with the engine down is told to come again', async () => {
      await engine.stop();
      expect((await ask(2, `${password}1`)).status).toBe(503);
    });
  });

  describe('with auto-registration, which engines have from 1.6.3 on,', () => {
    let knows = false;
    beforeAll(async () => {
      const older = await startEngine();
      knows = versionOf(older.version).since('1.6.3');
      await older.close();
      const lines = `{enabled: true, token: ${registrationToken}, allowed_ranges: [127.0.0.1/32]}`;
      await start(knows ? [`auto_registration: ${lines}`] : []);
    });
    afterAll(stop);

    test('is good at once; an older engine ignores the token, and the account waits', async () => {
      const { body } = await ask(0);
      expect(body.state).toBe(knows ? 'registered' : 'waiting');
      expect(await logIn(body.machine)).toBe(knows ? 200 : 401);
      expect((await ask(1)).body.state).toBe(knows ? 'unchanged' : 'waiting');
    });
  });
});
