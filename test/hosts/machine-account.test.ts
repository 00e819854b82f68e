// A host's account at an engine: the host makes the password, the broker registers it and keeps nothing of it; a host that
// may have none, or no longer, gets none.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';
import type { CommitAsk } from '../../src/writer/commit.ts';
import { readSettings } from '../../src/config/settings.ts';
import { mintSecret } from '../../src/crypto/mint.ts';
import { feed } from '../support/bouncer.ts';
import { call, operator, operatorToken } from '../support/http.ts';
import {
  actions,
  enrolmentToken,
  kindsOf,
  knownHost,
  makeHost,
  shownHost,
  type HostAnswer,
  type TestHost,
} from '../support/hosts.ts';
import { startModelAccounts, type ModelAccounts } from '../support/model-accounts.ts';
import { makeSshKey } from '../support/ssh.ts';
import { serveWith } from '../support/edge.ts';

const registrationToken = 'registration-token-of-the-tests-0123';
const settings = { UPSTREAM_REGISTRATION_TOKEN: registrationToken };
const paris = { name: 'paris', url: 'http://paris.example', key: 'feed-key-at-paris' };
const newPassword = () => mintSecret('csm_');
const kindOf = (answer: HostAnswer): string => kindsOf([answer])[0] as string;

let engine: ModelAccounts;
beforeEach(() => {
  engine = startModelAccounts();
});

function withMachine(name = 'web-1', fields: Record<string, unknown> = {}): Promise<TestHost> {
  return knownHost(name, { machine: 'default', ...fields });
}

/** An operator's request, where the settings are other ones. */
async function operatorOf(own: Record<string, unknown>, method: string, path: string, fields: unknown) {
  const headers = { authorization: `Bearer ${operatorToken}` };
  const response = await serveWith({ ...env, ...own }, `/api/v1${path}`, {
    method,
    headers,
    body: JSON.stringify(fields),
  });
  return { status: response.status, body: await response.json<any>() };
}

/** The feed, where something else is done once everything was read, and nothing written yet. */
function withFirst(other: () => Promise<unknown>): object {
  const stub = feed();
  let done = false;
  const commit = async (ask: CommitAsk): Promise<unknown> => {
    if (!done) await other();
    done = true;
    return stub.commit(ask);
  };
  const get = (target: typeof stub, name: keyof typeof stub) => (name === 'commit' ? commit : target[name]);
  return { getByName: () => new Proxy(stub, { get } as ProxyHandler<typeof stub>) };
}

/** What a log-in at the edge is answered; the stand-in for the engine takes any that comes through. */
async function logIn(machine: string, password: string): Promise<number> {
  const body = JSON.stringify({ machine_id: machine, password, scenarios: [] });
  return (await call('/v1/watchers/login', { method: 'POST', body })).status;
}

describe('an engine with auto-registration', () => {
  beforeEach(() => {
    engine.token = registrationToken;
  });

  test('takes a host’s account at once; the host never sees the token, the broker keeps no password', async () => {
    const host = await withMachine();
    const password = newPassword();
    const { status, body } = await host.askMachine(password, {}, { settings, address: '192.0.2.7' });
    const machine = expect.stringMatching(/^web-1-[0-9a-f]{8}$/);
    expect([status, body]).toEqual([
      200,
      { machine, engine: 'default', lapi_path: '/', generation: 1, state: 'registered' },
    ]);
    expect(engine.requests.map(({ path }) => path)).toEqual(['/v1/watchers']);
    const [{ headers, body: sent }] = engine.requests;
    expect(sent).toEqual({ machine_id: body.machine, password, registration_token: registrationToken });
    expect(headers.get('x-forwarded-for')).toBe('192.0.2.7');
    expect(await logIn(body.machine, password)).toBe(200);
    expect((await shownHost()).machine).toEqual({
      engine: 'default',
      name: body.machine,
      validated_at: expect.any(String),
    });
    expect(await actions()).toEqual(['host.create', 'host.machine']);
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('is asked by log-in only when the host comes again; nothing is written', async () => {
    const host = await withMachine();
    const password = newPassword();
    const first = await host.askMachine(password, {}, { settings });
    engine.requests.length = 0;
    const again = await host.askMachine(password, {}, { settings });
    expect(again.body).toEqual({ ...first.body, state: 'unchanged' });
    expect(engine.requests.map(({ path }) => path)).toEqual(['/v1/watchers/login']);
    // The scenarios that the log processor named stay.
    expect(engine.requests[0].body.scenarios).toEqual([]);
    expect(await actions()).toEqual(['host.create', 'host.machine']);
  });

  test('that has lost the account, or deleted it, is given it again', async () => {
    const host = await withMachine();
    const password = newPassword();
    const { body } = await host.askMachine(password, {}, { settings });
    engine.machines.clear();
    expect((await host.askMachine(password, {}, { settings })).body).toEqual({ ...body, state: 'unchanged' });
    expect(await logIn(body.machine, password)).toBe(200);
  });

  test('that refuses the token is named, with what it says and without the secrets', async () => {
    const host = await withMachine();
    engine.token = `${registrationToken}-another`;
    const { status, body } = await host.askMachine(newPassword(), {}, { settings });
    expect([status, body.detail]).toEqual([
      503,
      expect.stringContaining('invalid token for auto registration'),
    ]);
    expect(body.detail).not.toContain(registrationToken);
  });
});

describe('an engine without auto-registration', () => {
  test('makes the host wait for `cscli machines validate`, and says so', async () => {
    const host = await withMachine();
    const password = newPassword();
    const { body } = await host.askMachine(password);
    expect(body).toMatchObject({ state: 'waiting', generation: 1 });
    expect((await host.askMachine(password)).body).toEqual(body);
    expect((await shownHost()).machine).toEqual({
      engine: 'default',
      name: body.machine,
      validated_at: null,
    });
    (engine.machines.get(body.machine) as { validated: boolean }).validated = true;
    expect((await host.askMachine(password)).body).toEqual({ ...body, state: 'unchanged' });
    const { validated_at: since } = (await shownHost()).machine;
    expect(since).toEqual(expect.any(String));
    await host.askMachine(password);
    expect((await shownHost()).machine.validated_at).toBe(since);
  });

  test('that has lost the account makes the host wait again, and says so', async () => {
    const host = await withMachine();
    const password = newPassword();
    const { body } = await host.askMachine(password);
    (engine.machines.get(body.machine) as { validated: boolean }).validated = true;
    await host.askMachine(password);
    engine.machines.clear();
    expect((await host.askMachine(password)).body).toEqual(body);
    expect((await shownHost()).machine).toMatchObject({ name: body.machine, validated_at: null });
  });
});

describe('a host', () => {
  beforeEach(() => {
    engine.token = registrationToken;
  });

  test.each([
    ['is down', () => Promise.reject(new Error('nobody is there')) as unknown as Response],
    ['answers with a page', () => new Response('<html>', { headers: { 'content-type': 'text/html' } })],
    ['has a fault', () => Response.json({ message: 'database is locked' }, { status: 500 })],
    ['leads elsewhere', () => new Response(null, { status: 302, headers: { location: 'http://x.example' } })],
  ])('whose engine %s is told to come again, and then gets the one account', async (_, fault) => {
    const host = await withMachine();
    const password = newPassword();
    engine.fault = fault;
    expect((await host.askMachine(password, {}, { settings })).status).toBe(503);
    engine.fault = undefined;
    const { body } = await host.askMachine(password, {}, { settings });
    expect(body).toMatchObject({ generation: 1, state: 'unchanged' });
    expect([...engine.machines.keys()]).toEqual([body.machine]);
  });

  test('that sends one request many times has one account', async () => {
    const host = await withMachine();
    const password = newPassword();
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => host.askMachine(password, { generation: 0 }, { settings })),
    );
    for (const answer of answers) expect(answer.body.generation).toBe(1);
    expect(engine.machines.size).toBe(1);
    expect(await actions()).toEqual(['host.create', 'host.machine']);
  });

  test('that lost its password gets another account; the one before is refused at the edge from then on', async () => {
    const host = await withMachine();
    const [first, second] = [newPassword(), newPassword()];
    const before = (await host.askMachine(first, {}, { settings })).body.machine;
    const after = (await host.askMachine(second, { generation: 0 }, { settings })).body;
    expect(after).toMatchObject({ generation: 2, state: 'registered' });
    expect(after.machine).not.toBe(before);
    expect([await logIn(before, first), await logIn(after.machine, second)]).toEqual([403, 200]);
    expect((await operator('GET', '/blocked-machines')).body.blocked_machines).toMatchObject([
      { machine: before, blocked_by: 'host:web-1', reason: `its host has ${after.machine} now` },
    ]);
    // Whoever has the password of the one before, and the host's key, gets nothing by it.
    expect(kindOf(await host.askMachine(first, {}, { settings }))).toBe('409 conflict');
  });

  test('that sends a wrong generation is suspected; an operator’s permission helps, with its old password too', async () => {
    const host = await withMachine();
    const password = newPassword();
    await host.askMachine(password, {}, { settings });
    const suspected = await host.askMachine(password, { generation: 7 }, { settings });
    expect(kindOf(suspected)).toBe('409 generation-mismatch');
    expect(suspected.body.detail).toContain("this host's machine was registered 1 times");
    expect((await shownHost()).state).toBe('clone-suspected');
    await operator('POST', '/hosts/web-1/recoveries');
    const { body } = await host.askMachine(password, { generation: 7 }, { settings });
    expect(body).toMatchObject({ generation: 2, state: 'unchanged' });
    expect(engine.machines.size).toBe(1);
    expect(await logIn(body.machine, password)).toBe(200);
  });

  test('that is strict and may have a copy loses its account with its keys', async () => {
    const host = await withMachine('web-1', { mode: 'strict' });
    const password = newPassword();
    const { machine } = (await host.askMachine(password, {}, { settings })).body;
    await host.askMachine(newPassword(), { generation: 7 }, { settings });
    expect(await logIn(machine, password)).toBe(403);
  });

  test('whose machine an operator refuses gets no other', async () => {
    const host = await withMachine();
    const password = newPassword();
    const { machine } = (await host.askMachine(password, {}, { settings })).body;
    await operator('PUT', `/blocked-machines/${machine}`, {});
    for (const each of [password, newPassword()]) {
      expect(kindOf(await host.askMachine(each, {}, { settings }))).toBe('403 forbidden');
    }
    await operator('DELETE', `/blocked-machines/${machine}`);
    expect((await host.askMachine(password, {}, { settings })).body.state).toBe('unchanged');
  });

  test('that is strict and may have a copy gets no other for a machine that an operator refused before', async () => {
    const host = await withMachine('web-1', { mode: 'strict' });
    const password = newPassword();
    const { machine } = (await host.askMachine(password, {}, { settings })).body;
    await host.register();
    await operator('PUT', `/blocked-machines/${machine}`, {});
    expect(kindOf(await host.register({ generation: 7 }))).toBe('409 generation-mismatch');
    for (const each of [password, newPassword()]) {
      expect(kindOf(await host.askMachine(each, {}, { settings }))).toBe('403 forbidden');
    }
    await operator('DELETE', `/blocked-machines/${machine}`);
    expect((await host.askMachine(password, {}, { settings })).body).toMatchObject({
      machine,
      state: 'unchanged',
    });
  });

  test('whose machine is refused while it asks for another gets none', async () => {
    const host = await withMachine();
    const { machine } = (await host.askMachine(newPassword(), {}, { settings })).body;
    const DECISION_FEED = withFirst(() => operator('PUT', `/blocked-machines/${machine}`, {}));
    const answer = await host.askMachine(newPassword(), {}, { settings: { ...settings, DECISION_FEED } });
    expect([answer.status, answer.body.detail]).toEqual([403, expect.stringContaining(machine)]);
    expect(await actions()).toEqual(['host.create', 'host.machine', 'machine.block']);
  });

  test('that is removed, or may have no account any longer, is refused as a machine', async () => {
    for (const [name, end] of [
      ['web-1', () => operator('DELETE', '/hosts/web-1')],
      ['web-2', (key: string) => operator('PUT', '/hosts/web-2', { public_key: key, bouncers: ['web-2'] })],
    ] as const) {
      const host = await withMachine(name);
      const password = newPassword();
      const { machine } = (await host.askMachine(password, {}, { settings })).body;
      await end(host.key.publicKey);
      expect(await logIn(machine, password)).toBe(403);
      const kind = kindOf(await host.askMachine(password, {}, { settings }));
      expect(kind).toBe(name === 'web-1' ? '410 host-revoked' : '403 forbidden');
      // Allowed once more, it comes with the password that it has, and is asked for a new one.
      await operator('PUT', `/hosts/${name}`, {
        public_key: host.key.publicKey,
        bouncers: [name],
        machine: 'default',
      });
      expect(kindOf(await host.askMachine(password, {}, { settings }))).toBe('409 conflict');
      const { body } = await host.askMachine(newPassword(), {}, { settings });
      expect(body.state).toBe('registered');
    }
  });

  test('that is moved to another engine has its account there, and no longer at the first', async () => {
    const UPSTREAMS = JSON.stringify([{ ...paris, registration_token: registrationToken }]);
    const sending = { settings: { ...settings, UPSTREAMS } };
    const host = await withMachine();
    const password = newPassword();
    const before = (await host.askMachine(password, {}, sending)).body;
    const moved = { public_key: host.key.publicKey, bouncers: ['web-1'], machine: 'paris' };
    expect((await operatorOf(sending.settings, 'PUT', '/hosts/web-1', moved)).status).toBe(200);
    expect(await logIn(before.machine, password)).toBe(403);
    engine.requests.length = 0;
    const { body } = await host.askMachine(password, {}, sending);
    expect(body).toMatchObject({ engine: 'paris', lapi_path: '/engines/paris/', state: 'registered' });
    expect(engine.requests.map(({ host }) => host)).toEqual(['paris.example']);
    // That engine is taken out of the settings: whoever comes is told to wait for an operator.
    expect((await host.askMachine(password, {}, { settings })).status).toBe(503);
  });

  test('gets no account where no machine reaches the engine through the edge: no log-in would pass', async () => {
    const host = await withMachine();
    const closed = { ...settings, MACHINE_ROUTES: 'off' };
    const { status, body } = await host.askMachine(newPassword(), {}, { settings: closed });
    expect([status, body.detail]).toEqual([503, expect.stringContaining('MACHINE_ROUTES')]);
    expect([engine.requests, await actions()]).toEqual([[], ['host.create']]);
  });

  test('without the right to one learns who can give it; a stranger learns nothing', async () => {
    const host = await knownHost();
    const refused = await host.askMachine(newPassword());
    expect([refused.status, refused.body.detail]).toEqual([
      403,
      'host web-1 has no machine: an operator has to name it (PUT /api/v1/hosts/web-1)',
    ]);
    // Known by its name or not, and whether or not that host may have one.
    await withMachine('web-2');
    const [known, unknown] = [await makeHost('web-2'), await makeHost('web-3')];
    for (const stranger of [known, unknown]) {
      const { status, body } = await stranger.askMachine(newPassword());
      expect([status, body.detail]).toEqual([403, 'access forbidden']);
    }
    expect(engine.requests).toEqual([]);
  });

  test.each(['short', 'x'.repeat(73), `with space ${'x'.repeat(40)}`, 7])(
    'may not have %j as password',
    async (password) => {
      const host = await withMachine();
      const { status, body } = await host.askMachine(password as string);
      expect([status, body.errors[0].field]).toEqual([400, 'machine_password']);
      expect(engine.requests).toEqual([]);
    },
  );
});

describe('an enrolment', () => {
  beforeEach(() => {
    engine.token = registrationToken;
  });

  async function enrol(fields: Record<string, unknown>) {
    const host = await makeHost();
    const introduction = {
      public_key: host.key.publicKey,
      enrolment_token: await enrolmentToken(fields),
    };
    return { host, introduction };
  }

  test('may give its hosts an account, whichever they ask for first', async () => {
    const { host, introduction } = await enrol({ machine: 'default' });
    const { body } = await host.askMachine(newPassword(), introduction, { settings });
    expect(body).toMatchObject({ state: 'registered', generation: 1 });
    expect((await host.register(introduction)).body).toMatchObject({ state: 'registered', generation: 1 });
    expect(await actions()).toEqual(['enrolment.create', 'host.enrol', 'host.machine', 'host.register']);

    const other = await makeHost('web-2');
    const token = await enrolmentToken({ machine: 'default' });
    const second = { public_key: other.key.publicKey, enrolment_token: token };
    expect((await other.register(second)).status).toBe(200);
    expect((await other.askMachine(newPassword(), second, { settings })).body.state).toBe('registered');
  });

  test('that gives none opens none, and takes no place', async () => {
    const { host, introduction } = await enrol({});
    expect(kindOf(await host.askMachine(newPassword(), introduction, { settings }))).toBe('403 forbidden');
    expect((await operator('GET', '/enrolments')).body.enrolments[0].used_by).toEqual([]);
    expect((await operator('GET', '/hosts')).body.hosts).toEqual([]);
  });
});

describe('an operator', () => {
  test('gets the name of the field that is wrong', async () => {
    const { publicKey } = await makeSshKey();
    for (const [method, path, body] of [
      ['PUT', '/hosts/web-1', { public_key: publicKey, bouncers: [], machine: 'nobody' }],
      ['PUT', '/hosts/web-1', { public_key: publicKey, bouncers: [], machine: 7 }],
      ['POST', '/enrolments', { hosts: 'web-*', machine: 'nobody' }],
    ] as const) {
      const answer = await operator(method, path, body);
      expect([answer.status, answer.body.errors[0].field]).toEqual([400, 'machine']);
    }
  });

  test('learns that no machine reaches an engine, before a host is given the right', async () => {
    const { publicKey } = await makeSshKey();
    for (const [method, path, fields] of [
      ['PUT', '/hosts/web-1', { public_key: publicKey, bouncers: [], machine: 'default' }],
      ['POST', '/enrolments', { hosts: 'web-*', machine: 'default' }],
    ] as const) {
      const { status, body } = await operatorOf({ MACHINE_ROUTES: 'off' }, method, path, fields);
      expect([status, body.errors]).toEqual([
        400,
        [{ field: 'machine', detail: expect.stringContaining('MACHINE_ROUTES') }],
      ]);
    }
  });

  test('can make a host that is a log processor only', async () => {
    const host = await withMachine('logs-1', { bouncers: [] });
    expect((await host.askMachine(newPassword())).body.state).toBe('waiting');
    expect(await shownHost('logs-1')).toMatchObject({ state: 'registered', bouncers: [] });
  });

  test.each([
    ['UPSTREAM_REGISTRATION_TOKEN', { UPSTREAM_REGISTRATION_TOKEN: 'too-short' }],
    ['UPSTREAMS', { UPSTREAMS: JSON.stringify([{ ...paris, registration_token: 'too-short' }]) }],
    [
      'HOST_ISSUERS',
      { HOST_ISSUERS: JSON.stringify([{ preset: 'gce', projects: ['p'], machine: 'nobody' }]) },
    ],
  ])('learns at the start that %s is wrong, without its value', (name, wrong) => {
    const good = { UPSTREAM_URL: 'http://engine.example', UPSTREAM_API_KEY: 'key' };
    const read = () => readSettings({ ...good, ...wrong });
    expect(read).toThrow(name);
    expect(read).not.toThrow('too-short');
  });
});
