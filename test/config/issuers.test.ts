// OPERATOR_ISSUERS: its presets as they are documented, and what stops the start.
import { describe, expect, test } from 'vitest';
import { readSettings } from '../../src/config/settings.ts';
import { createIssuer } from '../support/issuer.ts';
import {
  auditRows,
  bearer,
  makeToken,
  nextNumber,
  request,
  secrets,
  served,
  watchOperators,
  withToken,
} from '../support/operators.ts';

watchOperators();

describe('Cloudflare Access', () => {
  const team = async () => {
    const name = `team-${nextNumber()}`;
    const issuer = createIssuer(`https://${name}.cloudflareaccess.com`, 'a'.repeat(64));
    await issuer.addKey('RS256', 'first');
    served.set(`${issuer.url}/cdn-cgi/access/certs`, issuer.jwks);
    const rules = [
      { claim: 'email', one_of: ['alice@example.com'], role: 'admin' },
      { claim: 'common_name', equals: 'b1.access', role: 'operator' },
    ];
    return {
      issuer,
      issuers: [{ preset: 'cloudflare-access', team: name, audience: issuer.audience, rules }],
    };
  };
  const assertion = (token: string): Record<string, string> => {
    secrets.add(token);
    return { 'cf-access-jwt-assertion': token };
  };
  const person = { aud: ['a'.repeat(64)], email: 'alice@example.com', type: 'app' };
  const ban = { method: 'POST', body: { name: 'fw' } };

  test('a person is who their e-mail address says', async () => {
    const { issuer, issuers } = await team();
    const headers = assertion(await issuer.sign({ claims: { ...person, iat: now() - 80_000 } }));
    expect((await request('/bouncers', { ...ban, issuers, headers })).status).toBe(201);
    const actor = `oidc:${new URL(issuer.url).host}:alice@example.com`;
    expect((await auditRows()).map(([by]) => by)).toContain(actor);
  });

  test('a service token, which has an empty subject, is its client', async () => {
    const { issuer, issuers } = await team();
    const claims = { aud: [issuer.audience], sub: '', common_name: 'b1.access' };
    const headers = assertion(await issuer.sign({ claims }));
    expect((await request('/bouncers', { ...ban, issuers, headers })).status).toBe(201);
    expect((await auditRows()).map(([by]) => by)).toContain(`oidc:${new URL(issuer.url).host}:b1.access`);
  });

  test('Authorization decides where both are sent', async () => {
    const { issuer, issuers } = await team();
    const headers = assertion(await issuer.sign({ claims: person }));
    const viewer = await makeToken('viewer', 'viewer');
    const both = { ...headers, ...bearer(viewer) };
    expect((await request('/bouncers', { ...ban, issuers, headers: both })).status).toBe(403);
    const bad = { ...headers, ...bearer('cso_bad') };
    expect((await request('/feed', { issuers, headers: bad })).status).toBe(401);
  });

  test('the token of another application of the team is refused', async () => {
    const { issuer, issuers } = await team();
    const headers = assertion(await issuer.sign({ claims: { ...person, aud: ['b'.repeat(64)] } }));
    expect((await request('/feed', { issuers, headers })).status).toBe(401);
  });

  test('the header of another team is refused, and so is rubbish in it', async () => {
    const [a, b] = [await team(), await team()];
    const headers = assertion(await b.issuer.sign({ claims: person }));
    expect((await request('/feed', { issuers: a.issuers, headers })).status).toBe(401);
    expect((await request('/feed', { issuers: a.issuers, headers: assertion('rubbish') })).status).toBe(401);
  });

  test.each([
    ['another site', { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }, 403],
    ['a neighbour', { 'sec-fetch-site': 'same-site', origin: 'https://www.example' }, 403],
    ['a browser that says too little', { origin: 'null' }, 403],
    ['our own page', { 'sec-fetch-site': 'same-origin', origin: 'http://edge.example' }, 201],
    ['no browser', {}, 201],
  ])('a form of %s: %j is answered %i', async (_, browser, status) => {
    const { issuer, issuers } = await team();
    const headers = { ...assertion(await issuer.sign({ claims: person })), ...browser } as Record<
      string,
      string
    >;
    expect((await request('/bouncers', { ...ban, issuers, headers })).status).toBe(status);
    expect((await request('/bouncers', { issuers, headers })).status).toBe(200);
  });

  function now(): number {
    return Math.floor(Date.now() / 1000);
  }
});

describe('GitHub Actions', () => {
  test('a job is let in by its repository and environment', async () => {
    const issuer = createIssuer(
      'https://token.actions.githubusercontent.com',
      'https://lapidary.example.net',
    );
    await issuer.addKey('RS256', 'first');
    served.set(`${issuer.url}/.well-known/jwks`, issuer.jwks);
    const all = [
      { claim: 'repository_id', equals: '42' },
      { claim: 'environment', equals: 'production' },
    ];
    const issuers = [
      { preset: 'github-actions', audience: issuer.audience, rules: [{ all, role: 'operator' }] },
    ];
    const sub = 'repo:example/infra:environment:production';
    const token = await issuer.sign({ claims: { sub, repository_id: '42', environment: 'production' } });
    const call = { path: '/bouncers', method: 'POST', body: { name: 'fw' }, issuers };
    expect((await withToken(issuer, token, call)).status).toBe(201);
    const fork = await issuer.sign({ claims: { sub, repository_id: '43', environment: 'production' } });
    expect((await withToken(issuer, fork, call)).status).toBe(403);
    expect((await auditRows()).map(([by]) => by)).toContain(
      `oidc:token.actions.githubusercontent.com:${sub}`,
    );
  });
});

describe('OPERATOR_ISSUERS', () => {
  const good = {
    issuer: 'https://hidden.example',
    audience: 'hidden',
    rules: [{ claim: 'hidden', equals: 'hidden', role: 'viewer' }],
  };
  const access = { preset: 'cloudflare-access', team: 'hidden', audience: 'hidden', rules: good.rules };

  test('has defaults', () => {
    const { operatorIssuers } = readSettings({ OPERATOR_ISSUERS: JSON.stringify([good, access]) });
    expect(operatorIssuers).toMatchObject([
      {
        name: 'hidden.example',
        jwksUri: 'https://hidden.example/.well-known/jwks.json',
        algorithms: ['RS256', 'ES256'],
        header: 'authorization',
        maxAgeSeconds: 3600,
        subjectClaims: ['sub'],
      },
      {
        issuer: 'https://hidden.cloudflareaccess.com',
        jwksUri: 'https://hidden.cloudflareaccess.com/cdn-cgi/access/certs',
        algorithms: ['RS256'],
        header: 'cf-access-jwt-assertion',
        maxAgeSeconds: 86_400,
      },
    ]);
    expect(readSettings({}).operatorIssuers).toEqual([]);
  });

  test.each([
    ['no JSON', 'hidden'],
    ['an object', good],
    ['a text in the list', ['hidden']],
    ['no issuer', [{ ...good, issuer: undefined }]],
    ['plain http', [{ ...good, issuer: 'http://hidden.example' }]],
    ['an issuer with a password', [{ ...good, issuer: 'https://hidden:hidden@hidden.example' }]],
    ['keys over plain http', [{ ...good, jwks_uri: 'http://hidden.example/keys' }]],
    ['no audience', [{ ...good, audience: '' }]],
    ['a list of audiences', [{ ...good, audience: ['hidden'] }]],
    ['HS256', [{ ...good, algorithms: ['HS256'] }]],
    ['none', [{ ...good, algorithms: ['RS256', 'none'] }]],
    ['no algorithm', [{ ...good, algorithms: [] }]],
    ['a header with a space', [{ ...good, header: 'hidden hidden' }]],
    ['no age', [{ ...good, max_age_seconds: 0 }]],
    ['an age without bounds', [{ ...good, max_age_seconds: 1e12 }]],
    ['a text for an age', [{ ...good, max_age_seconds: '3600' }]],
    ['no rules', [{ ...good, rules: [] }]],
    ['a rule for everybody', [{ ...good, rules: [{ role: 'viewer' }] }]],
    ['a rule with no conditions', [{ ...good, rules: [{ all: [], role: 'viewer' }] }]],
    ['a rule without a role', [{ ...good, rules: [{ claim: 'hidden', equals: 'hidden' }] }]],
    ['an unknown role', [{ ...good, rules: [{ claim: 'hidden', equals: 'hidden', role: 'hidden' }] }]],
    ['a rule with both', [{ ...good, rules: [{ claim: 'a', equals: 'b', one_of: ['c'], role: 'viewer' }] }]],
    ['a rule with a pattern', [{ ...good, rules: [{ claim: 'a', matches: 'hidden', role: 'viewer' }] }]],
    ['an empty list of texts', [{ ...good, rules: [{ claim: 'a', one_of: [], role: 'viewer' }] }]],
    ['an unknown field', [{ ...good, hidden: 1 }]],
    ['one issuer twice', [good, good]],
    ['an unknown preset', [{ ...access, preset: 'hidden' }]],
    ['a team with a dot', [{ ...access, team: 'hidden.example' }]],
    ['a preset with an issuer', [{ ...access, issuer: 'https://hidden.example' }]],
    ['a team at GitHub', [{ ...access, preset: 'github-actions' }]],
  ])('%s: the start is refused by its name, and no value is repeated', (_, value) => {
    const read = () => {
      return readSettings({ OPERATOR_ISSUERS: typeof value === 'string' ? value : JSON.stringify(value) });
    };
    expect(read).toThrow(/^OPERATOR_ISSUERS(, entry \d(, \w+)*( \d)?)* must be /);
    expect(read).not.toThrow(/hidden|invalid/i);
  });
});
