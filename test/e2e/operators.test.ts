// Operators of `npm start`: tokens of a real issuer on loopback, whose keys change and which goes away meanwhile;
// tokens of ours; and that none of them is in what it prints or keeps.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startIssuer, type IssuerServer } from '../lab/issuer.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import { canary, usualClaims, type Signing } from '../support/issuer.ts';

let issuer: IssuerServer;
let other: IssuerServer;
let lapidary: Lapidary;
const secrets = new Set<string>();

beforeAll(async () => {
  issuer = await startIssuer('https://lapidary.example');
  other = await startIssuer('https://lapidary.example/other');
  await issuer.addKey('RS256', 'rsa-1');
  await issuer.addKey('ES256', 'ec-1');
  await other.addKey('ES256', 'other-1');
  const rules = [
    { claim: 'groups', equals: 'ops', role: 'operator' },
    { claim: 'groups', equals: 'readers', role: 'viewer' },
  ];
  const entries = [issuer, other].map(({ url, audience }) => ({ issuer: url, audience, rules }));
  lapidary = await startLapidary({ settings: { OPERATOR_ISSUERS: JSON.stringify(entries) } });
});

afterAll(async () => {
  await lapidary?.close();
  await Promise.all([issuer?.stop(), other?.stop()]);
});

async function ask(token: string, method = 'GET', path = '/feed', body?: unknown) {
  secrets.add(token);
  const response = await fetch(`${lapidary.url}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  expect(text).not.toContain(token);
  return { status: response.status, body: text === '' ? null : JSON.parse(text) };
}

/** The status that a token of `issuer` gets, signed with a key of its own choice. */
async function statusOf(signing: Signing, from: IssuerServer = issuer): Promise<number> {
  const claims = { groups: ['readers'], ...signing.claims };
  return (await ask(await from.sign({ ...signing, claims }))).status;
}

describe('an issuer on loopback', () => {
  test.each(['rsa-1', 'ec-1'])('%s lets an operator in, under its name', async (kid) => {
    const token = await issuer.sign({ kid, claims: { groups: ['ops'], sub: `robot-${kid}` } });
    expect((await ask(token, 'POST', '/bouncers', { name: kid })).status).toBe(201);
    const { audit } = (await ask(token, 'GET', `/audit?target=${kid}`)).body;
    expect(audit[0].actor).toBe(`oidc:${new URL(issuer.url).host}:robot-${kid}`);
    expect((await ask(token, 'GET', '/operator-tokens')).status).toBe(403);
  });

  test('its keys are asked for once, not at every call', async () => {
    const before = issuer.asked.length;
    for (let call = 0; call < 20; call++) expect(await statusOf({ kid: 'ec-1' })).toBe(200);
    expect(issuer.asked.length).toBe(before);
  });

  test('what is not its token is refused', async () => {
    const now = Math.floor(Date.now() / 1000);
    expect(await statusOf({ claims: { aud: other.audience } })).toBe(401);
    expect(await statusOf({ claims: { iss: other.url, aud: other.audience } })).toBe(401);
    expect(await statusOf({ claims: { exp: now - 40 } })).toBe(401);
    expect(await statusOf({ claims: { nbf: now + 60 } })).toBe(401);
    const unsigned = new UnsecuredJWT(usualClaims(issuer, { groups: ['ops'] })).encode();
    expect((await ask(unsigned)).status).toBe(401);
    expect(await statusOf({ claims: { groups: ['strangers'] } })).toBe(403);
    expect(await statusOf({}, other)).toBe(200);
  });

  test('changes its keys: the new one is known within 11 s, the old one is dropped with it', async () => {
    expect(await statusOf({ kid: 'ec-1' })).toBe(200);
    await issuer.addKey('ES256', 'ec-2');
    issuer.dropKey('ec-1');
    const startMs = Date.now();
    await until('the new key is known', async () => (await statusOf({ kid: 'ec-2' })) === 200, 12_000);
    expect(Date.now() - startMs).toBeLessThan(11_000);
    expect(await statusOf({ kid: 'ec-1' })).toBe(401);
    expect(await statusOf({ kid: 'rsa-1' })).toBe(200);
  });

  test('goes away: known keys go on, unknown ones are 503; and comes back', async () => {
    expect(await statusOf({ kid: 'ec-2' })).toBe(200);
    await issuer.stop();
    await issuer.addKey('RS256', 'rsa-2');
    expect(await statusOf({ kid: 'ec-2' })).toBe(200);
    const unknown = async () => ask(await issuer.sign({ kid: 'rsa-2', claims: { groups: ['readers'] } }));
    const answer = await until('the issuer is asked', async (saw) => {
      const answered = await unknown();
      saw(answered);
      return answered.status === 503 && answered;
    });
    expect(answer.body.detail).toContain(new URL(issuer.url).host);
    expect(await statusOf({ kid: 'ec-2' })).toBe(200);
    expect(await statusOf({}, other)).toBe(200);
    await issuer.start();
    await until('the new key is known', async () => (await unknown()).status === 200, 12_000);
  });

  test('a Lapidary that starts while it is away lets its own tokens in, and says whom to blame', async () => {
    const { body } = await lapidary.operator('POST', '/operator-tokens', {
      name: 'spare',
      role: 'viewer',
      expires_in: '1h',
    });
    await issuer.stop();
    await lapidary.stop();
    await lapidary.start();
    expect(await statusOf({ kid: 'ec-2' })).toBe(503);
    expect((await ask(body.token)).status).toBe(200);
    expect((await lapidary.operator('DELETE', '/operator-tokens/spare')).status).toBe(200);
    expect((await ask(body.token)).status).toBe(401);
    await issuer.start();
    await until('its keys are known', async () => (await statusOf({ kid: 'ec-2' })) === 200, 12_000);
  });

  test('using OPERATOR_TOKEN beside it is in the audit log', async () => {
    await lapidary.ban('192.0.2.1');
    await lapidary.feed();
    const bans = (await lapidary.operator('GET', '/audit?action=decision.ban')).body.audit;
    expect(bans[0]).toMatchObject({ target: '192.0.2.1', detail: { break_glass: true } });
    const reads = (await lapidary.operator('GET', '/audit?action=operator.break-glass')).body.audit;
    expect(reads.some(({ target }: { target: string }) => target.startsWith('GET '))).toBe(true);
    expect((await lapidary.operator('GET', '/audit/verify')).body).toMatchObject({ ok: true });
  });

  test('no token is in what it printed or keeps', async () => {
    const kept = await readdir(lapidary.stateDir, { recursive: true, withFileTypes: true });
    const files = kept.filter((entry) => entry.isFile() && !entry.name.startsWith('operator-'));
    const texts = await Promise.all(
      files.map((file) => readFile(join(file.parentPath, file.name), 'latin1')),
    );
    expect(secrets.size).toBeGreaterThan(30);
    for (const secret of [...secrets, canary]) {
      expect(lapidary.log()).not.toContain(secret);
      expect(texts.some((text) => text.includes(secret))).toBe(false);
    }
    expect(await lapidary.leaks()).toEqual([]);
  });
});

test('a bad OPERATOR_ISSUERS stops the start and is named, not shown', async () => {
  const settings = { OPERATOR_ISSUERS: '[{"issuer":"http://hidden.example"}]' };
  const start = startLapidary({ settings });
  await expect(start).rejects.toThrow('OPERATOR_ISSUERS, entry 1, issuer must be');
  await expect(start).rejects.not.toThrow('hidden');
});
