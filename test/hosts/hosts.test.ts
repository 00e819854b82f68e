// Hosts as operators manage them: made known, changed, removed; enrolled by tokens and by instance identity; asked for a
// new key.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { digestOf } from '../../src/crypto/secret.ts';
import { readSettings } from '../../src/config/settings.ts';
import { asBouncer, call, operator, operatorToken } from '../support/http.ts';
import {
  actions,
  base,
  bootstrap,
  enrolmentToken,
  kindsOf,
  knownHost,
  makeHost,
  makeKey,
  shownHost,
} from '../support/hosts.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { freshIssuer, watchOperators } from '../support/operators.ts';
import type { TestIssuer } from '../support/issuer.ts';
import { makeSshKey } from '../support/ssh.ts';

const minute = 60_000;
const pass = (ms: number): void => {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(now + ms);
};
beforeEach(() => {
  // A bouncer's first poll makes the feed ask it.
  startModelEngine();
});
const kindOf = async (answer: Promise<any>): Promise<string> => kindsOf([await answer])[0];
const newKey = async () => ({ key_sha512: await digestOf(makeKey()) });

describe('an operator', () => {
  test('makes a host known, reads, changes and removes it; each leaves a row', async () => {
    const { publicKey } = await makeSshKey();
    const made = await operator('PUT', '/hosts/web-1', { public_key: publicKey, bouncers: ['fw', 'nginx'] });
    expect(made.status).toBe(201);
    expect(made.headers.get('etag')).toBe('"1"');
    expect(made.body.host).toMatchObject({
      name: 'web-1',
      state: 'waiting',
      public_key: publicKey.split(' ').slice(0, 2).join(' '),
      fingerprint: expect.stringMatching(/^SHA256:[\w+/]{43}$/),
      mode: 'standard',
      engine: false,
      bouncers: [{ name: 'fw', generation: 0 }, { name: 'nginx' }],
    });
    const changed = await operator('PUT', '/hosts/web-1', {
      public_key: publicKey,
      bouncers: ['fw'],
      mode: 'strict',
    });
    expect([changed.status, changed.body.host.mode, changed.body.host.bouncers.length]).toEqual([
      200,
      'strict',
      1,
    ]);
    expect(await shownHost()).toEqual(changed.body.host);
    expect((await operator('GET', '/hosts')).body.hosts).toEqual([changed.body.host]);
    expect((await operator('DELETE', '/hosts/web-1')).status).toBe(204);
    expect((await operator('GET', '/hosts')).body.hosts).toEqual([]);
    for (const [method, path] of [
      ['GET', '/hosts/web-1'],
      ['DELETE', '/hosts/web-1'],
      ['POST', '/hosts/web-1/recoveries'],
    ]) {
      expect((await operator(method, path)).status).toBe(404);
    }
    expect(await actions()).toEqual(['host.create', 'host.change', 'host.remove']);
    expect((await operator('PUT', '/hosts/web-1', { public_key: publicKey, bouncers: ['fw'] })).status).toBe(
      201,
    );
  });

  test('gets the name of the field that is wrong, and nothing is written', async () => {
    const { publicKey } = await makeSshKey();
    const good = { public_key: publicKey, bouncers: ['fw'] };
    const bad: [object, string][] = [
      [{ ...good, public_key: 'ssh-ed25519 AAAA' }, 'public_key'],
      [{ ...good, public_key: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${'A'.repeat(43)}` }, 'public_key'],
      [{ bouncers: ['fw'] }, 'public_key'],
      [{ ...good, bouncers: 'fw' }, 'bouncers'],
      [{ ...good, bouncers: ['fw', 'fw'] }, 'bouncers'],
      [{ ...good, bouncers: [] }, 'bouncers'],
      [{ ...good, bouncers: ['../fw'] }, 'bouncers.0'],
      [{ ...good, mode: 'lax' }, 'mode'],
      [{ ...good, engine: 'yes' }, 'engine'],
      [{ ...good, labels: [] }, 'labels'],
    ];
    for (const [body, field] of bad) {
      const answer = await operator('PUT', '/hosts/web-1', body);
      expect([answer.status, answer.body.errors[0].field], JSON.stringify(body)).toEqual([400, field]);
    }
    expect(await actions()).toEqual([]);
  });

  test('can’t give a key, a bouncer or the engine to two hosts', async () => {
    const host = await knownHost('web-1', { engine: true });
    const { publicKey } = await makeSshKey();
    for (const [public_key, more, why] of [
      [host.key.publicKey, {}, 'public_key'],
      [publicKey, { bouncers: ['web-1'] }, 'bouncers'],
      [publicKey, { engine: true }, 'engine'],
    ] as const) {
      const answer = await operator('PUT', '/hosts/web-2', { public_key, bouncers: ['web-2'], ...more });
      expect([answer.status, answer.body.detail]).toEqual([409, expect.stringContaining(why)]);
    }
  });

  test('is kept from changing what somebody else has changed', async () => {
    const host = await knownHost();
    const put = (etag: string) =>
      call('/api/v1/hosts/web-1', {
        method: 'PUT',
        headers: { authorization: `Bearer ${operatorToken}`, 'if-match': etag },
        body: JSON.stringify({ public_key: host.key.publicKey, bouncers: ['web-1'], mode: 'relaxed' }),
      });
    expect((await put('"9"')).status).toBe(412);
    expect((await put('"1"')).status).toBe(200);
    expect((await put('"1"')).status).toBe(412);
  });

  test('who takes a bouncer from a host, or deletes it, takes the host’s right to its key', async () => {
    const host = await knownHost('web-1', { bouncers: ['web-1', 'other'] });
    await host.register();
    expect((await operator('DELETE', '/bouncers/web-1')).status).toBe(204);
    expect(await kindOf(host.register(await newKey()))).toBe('403 forbidden');
    expect((await host.register({ bouncer: 'other', generation: 0, ...(await newKey()) })).status).toBe(200);
    await operator('PUT', '/hosts/web-1', { public_key: host.key.publicKey, bouncers: ['web-1'] });
    expect(await kindOf(host.register({ bouncer: 'other', ...(await newKey()) }))).toBe('403 forbidden');
  });
});

describe('rotating the bouncer of a host', () => {
  test('asks the host, which makes the key; the old one has the grace that was asked for', async () => {
    const host = await knownHost();
    const first = makeKey();
    await host.register({ key_sha512: await digestOf(first) });
    const asked = await operator('POST', '/bouncers/web-1/rotate', { grace: '2m', expires_in: '10d' });
    expect(asked.status).toBe(202);
    expect('key' in asked.body).toBe(false);
    expect(asked.body.bouncer).toMatchObject({ host: 'web-1', rotation_asked_at: expect.any(String) });
    expect((await operator('GET', '/bouncers')).body.bouncers[0]).toEqual(asked.body.bouncer);
    expect((await host.register({ key_sha512: await digestOf(first) })).body).toMatchObject({
      state: 'unchanged',
      rotate: true,
    });
    const second = makeKey();
    const { body } = await host.register({ key_sha512: await digestOf(second) });
    expect(body).toMatchObject({ state: 'registered', rotate: false, valid_until: expect.any(String) });
    expect((await operator('GET', '/bouncers/web-1')).body.rotation_asked_at).toBeNull();
    pass(0);
    await asBouncer(second, '/v1/decisions');
    pass(2 * minute - 1);
    expect((await asBouncer(first, '/v1/decisions')).status).toBe(200);
    pass(1);
    expect((await asBouncer(first, '/v1/decisions')).status).toBe(403);
  });

  test('is due by itself when three quarters of a key’s life are over, and the next lives as long', async () => {
    const host = await knownHost();
    await host.register();
    await operator('POST', '/bouncers/web-1/rotate', { expires_in: '4h' });
    pass(0);
    const key = await newKey();
    await host.register(key);
    pass(180 * minute - 1);
    expect((await host.register(key)).body.rotate).toBe(false);
    pass(1);
    expect((await host.register(key)).body).toMatchObject({ state: 'unchanged', rotate: true });
    const { body } = await host.register(await newKey());
    expect(Date.parse(body.valid_until) - Date.now()).toBe(240 * minute);
  });

  test('with a digest is done at once, as for any bouncer', async () => {
    const host = await knownHost();
    await host.register();
    expect((await operator('POST', '/bouncers/web-1/rotate', await newKey())).status).toBe(200);
  });

  test('whose key was revoked or has expired takes a new one', async () => {
    const host = await knownHost();
    const key = await newKey();
    await host.register(key);
    await operator('POST', '/bouncers/web-1/versions/1/revoke');
    expect(await kindOf(host.register(key))).toBe('409 conflict');
    expect((await host.register(await newKey())).body.state).toBe('registered');
    const [version] = (await operator('GET', '/bouncers/web-1')).body.key_versions;
    expect(version).toMatchObject({ number: 2, state: 'current', valid_until: null });
  });
});

describe('an enrolment token', () => {
  const introduce = async (name: string, token: string, host = makeHost(name)) => {
    const { key } = await host;
    return (changes = {}) =>
      host.then((own) => own.register({ public_key: key.publicKey, enrolment_token: token, ...changes }));
  };

  test('makes the hosts that it names known, each with its bouncer, as many as it says', async () => {
    const token = await enrolmentToken({ max_hosts: 2, bouncer: 'fw-{host}' });
    const answers = [];
    for (const name of ['web-1', 'web-2', 'web-3', 'db-1']) {
      answers.push(await kindOf((await introduce(name, token))({ bouncer: `fw-${name}` })));
    }
    expect(answers).toEqual(['registered', 'registered', '403 forbidden', '403 forbidden']);
    const [shown] = (await operator('GET', '/enrolments')).body.enrolments;
    expect(shown).toMatchObject({ hosts: 'web-*', max_hosts: 2, state: 'live' });
    expect(shown.used_by.map(({ host }: any) => host)).toEqual(['web-1', 'web-2']);
    expect(JSON.stringify(await operator('GET', '/audit'))).not.toContain(token);
  });

  test('is bound to the key that came first: that one may repeat, another is one too many', async () => {
    const token = await enrolmentToken({ max_hosts: 9 });
    const first = await introduce('web-1', token);
    expect(await kindOf(first())).toBe('registered');
    expect(await kindOf(first())).toBe('unchanged');
    expect(await kindOf((await introduce('web-1', token))())).toBe('409 conflict');
    expect(await kindOf((await introduce('web-1', `cse_${'x'.repeat(49)}`))())).toBe('403 forbidden');
  });

  test('does not open another bouncer than its own, nor one that has a key', async () => {
    const token = await enrolmentToken({ max_hosts: 9 });
    expect(await kindOf((await introduce('web-1', token))({ bouncer: 'fw' }))).toBe('403 forbidden');
    await operator('POST', '/bouncers', { name: 'web-2' });
    expect(await kindOf((await introduce('web-2', token))())).toBe('409 conflict');
    await knownHost('db', { bouncers: ['web-3'] });
    expect(await kindOf((await introduce('web-3', token))())).toBe('409 conflict');
  });

  test('that is unknown, expired or revoked opens nothing, and all are answered alike', async () => {
    const ended = await enrolmentToken({ expires_in: '1m' });
    const revoked = await enrolmentToken();
    const [, { id }] = (await operator('GET', '/enrolments')).body.enrolments;
    expect((await operator('DELETE', `/enrolments/${id}`)).body.enrolment.state).toBe('revoked');
    expect((await operator('DELETE', `/enrolments/${id}`)).status).toBe(409);
    expect((await operator('DELETE', '/enrolments/none')).status).toBe(404);
    pass(minute);
    const answers = [];
    for (const token of [ended, revoked, `cse_${'x'.repeat(49)}`, '']) {
      answers.push(await (await introduce('web-1', token))());
    }
    for (const { status, body } of answers) expect([status, body]).toEqual([403, answers[0].body]);
  });

  test('brings the name of a removed host back for another key only, and only when it is younger', async () => {
    const old = await enrolmentToken({ max_hosts: 9 });
    const removed = makeHost('web-1');
    await (
      await introduce('web-1', old, removed)
    )();
    pass(minute);
    await operator('DELETE', '/hosts/web-1');
    expect(await kindOf((await introduce('web-1', old))())).toBe('403 forbidden');
    pass(minute);
    const young = await enrolmentToken();
    expect(await kindOf((await introduce('web-1', young, removed))())).toBe('410 host-revoked');
    expect(await kindOf((await introduce('web-1', young))())).toBe('registered');
    expect((await operator('GET', '/bouncers/web-1')).body.key_versions.length).toBe(1);
  });

  test.each([
    [{ hosts: 'web *' }, 'hosts'],
    [{ hosts: '*-*-*-*-*' }, 'hosts'],
    [{ max_hosts: 0 }, 'max_hosts'],
    [{ max_hosts: 2, bouncer: 'fw' }, 'bouncer'],
    [{ bouncer: '{name}' }, 'bouncer'],
    [{ expires_in: '25h' }, 'expires_in'],
    [{ role: 'admin' }, 'role'],
  ])('with %j is a 400 that names the field', async (fields, field) => {
    const { status, body } = await operator('POST', '/enrolments', { hosts: 'web-*', ...fields });
    expect([status, body.errors[0].field]).toEqual([400, field]);
  });
});

describe('HOST_ISSUERS', () => {
  const generic = {
    issuer: 'https://issuer.example',
    host_claim: 'vm.name',
    conditions: [{ claim: 'org', equals: 'ours' }],
  };
  const gce = { preset: 'gce', projects: ['ours'] };

  test('has a preset for Google Compute Engine, which trusts the instances of named projects only', () => {
    const { hostIssuers } = readSettings({ HOST_ISSUERS: JSON.stringify([gce, generic]) });
    expect(hostIssuers).toMatchObject([
      {
        issuer: 'https://accounts.google.com',
        audience: null,
        hostClaim: 'google.compute_engine.instance_name',
        conditions: [{ claim: 'google.compute_engine.project_id', oneOf: ['ours'] }],
      },
      { instanceClaim: 'sub', jwksUri: 'https://issuer.example/.well-known/jwks.json', bouncer: '{host}' },
    ]);
  });

  test.each([
    ['list', '{}'],
    ['projects', JSON.stringify([{ preset: 'gce' }])],
    ['preset must be gce', JSON.stringify([{ preset: 'aws' }])],
    ['no fields', JSON.stringify([{ ...gce, issuer: 'https://issuer.example' }])],
    ['issuer', JSON.stringify([{ ...generic, issuer: 'http://issuer.example' }])],
    ['conditions', JSON.stringify([{ ...generic, conditions: [] }])],
    ['conditions', JSON.stringify([{ ...generic, conditions: [{ claim: 'org' }] }])],
    ['host_claim', JSON.stringify([{ ...generic, host_claim: undefined }])],
    ['algorithms', JSON.stringify([{ ...generic, algorithms: ['HS256'] }])],
    ['max_age_seconds', JSON.stringify([{ ...generic, max_age_seconds: 1e9 }])],
  ])('without %s is refused: %s', (what, json) => {
    const read = () => readSettings({ HOST_ISSUERS: json });
    expect(read).toThrow(/^HOST_ISSUERS\b/);
    expect(read).toThrow(what);
  });
});

describe('instance identity', () => {
  watchOperators();

  const entry = ({ url }: TestIssuer, more = {}) => ({
    issuer: url,
    host_claim: 'vm.name',
    instance_claim: 'vm.id',
    conditions: [{ claim: 'vm.project', equals: 'ours' }],
    ...more,
  });
  const claims = (vm: object = {}) => ({
    aud: `${base}/keys`,
    vm: { name: 'web-1', id: '42', project: 'ours', ...vm },
  });
  const come = async (issuer: TestIssuer, own: Record<string, unknown>, name = 'web-1', more = {}) => {
    const host = await makeHost(name);
    const identity_token = await issuer.sign({ claims: own });
    const settings = { HOST_ISSUERS: JSON.stringify([entry(issuer, more)]) };
    const again = (changes = {}) =>
      host.register({ public_key: host.key.publicKey, identity_token, ...changes }, { settings });
    return { again, answer: await again() };
  };

  test('makes its SSH key known once; afterwards the key is enough, and another for this instance is refused', async () => {
    const issuer = await freshIssuer();
    const { answer, again } = await come(issuer, claims());
    expect(answer.body).toMatchObject({ state: 'registered', generation: 1 });
    expect(await shownHost()).toMatchObject({ instance: `${new URL(issuer.url).host}:42` });
    expect((await again({ identity_token: undefined, public_key: undefined })).body.state).toBe('unchanged');
    expect(kindsOf([(await come(issuer, claims())).answer])).toEqual(['409 conflict']);
    expect(kindsOf([(await come(issuer, claims({ name: 'web-2' }), 'web-2')).answer])).toEqual([
      '409 conflict',
    ]);
  });

  test('opens nothing for another name, project, audience or issuer, too old or forged', async () => {
    const issuer = await freshIssuer();
    const now = Math.floor(Date.now() / 1000);
    const cases: [Record<string, unknown>, string][] = [
      [claims({ name: 'web-2' }), '403 forbidden'],
      [claims({ project: 'theirs' }), '403 forbidden'],
      [claims({ id: undefined }), '403 forbidden'],
      [{ ...claims(), aud: 'https://elsewhere.example' }, '401 unauthorised'],
      [{ ...claims(), iss: 'https://elsewhere.example' }, '403 forbidden'],
      [{ ...claims(), exp: now - 60 }, '401 unauthorised'],
      [{ ...claims(), iat: now - 7200, exp: now + 60 }, '401 unauthorised'],
    ];
    for (const [own, kind] of cases) expect(kindsOf([(await come(issuer, own)).answer])).toEqual([kind]);
    expect(kindsOf([(await come(issuer, claims(), 'web-1', { hosts: 'db-*' })).answer])).toEqual([
      '403 forbidden',
    ]);
    await issuer.forgeKey('ES256', 'first');
    expect(kindsOf([(await come(issuer, claims())).answer])).toEqual(['401 unauthorised']);
    expect((await operator('GET', '/hosts')).body.hosts).toEqual([]);
  });

  test('is not asked for by requests that are not signed', async () => {
    const issuer = await freshIssuer();
    const host = await makeHost();
    const request = await host.request({
      public_key: host.key.publicKey,
      identity_token: await issuer.sign({ claims: claims() }),
    });
    const other = await host.request();
    const settings = { HOST_ISSUERS: JSON.stringify([entry(issuer)]) };
    const answer = await bootstrap('/keys', { ...request, signature: other.signature }, { settings });
    expect(answer.status).toBe(403);
  });
});
