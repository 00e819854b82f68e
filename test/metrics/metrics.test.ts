// `GET /metrics` as Prometheus asks for it: who may, what it says, and what it does when it can not say it.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { feed } from '../support/bouncer.ts';
import { serveWith, startEdge } from '../support/edge.ts';
import { knownHost, makeHost } from '../support/hosts.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import type { ModelEngine } from '../support/model-engine.ts';
import { bearer, entryOf, freshIssuer, makeToken, watchOperators } from '../support/operators.ts';
import { waitFor } from '../support/patience.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;
beforeEach(async () => {
  ({ engine, key } = await startEdge());
});

const admin = { authorization: `Bearer ${operatorToken}` };

/** The lines of a scrape without those that describe. */
async function scrape(query = '', headers: Record<string, string> = {}): Promise<string[]> {
  const response = await call(`/metrics${query}`, { headers: { ...admin, ...headers } });
  const text = await response.text();
  expect(response.status, text).toBe(200);
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

/** The lines of one family. */
async function family(name: string): Promise<string[]> {
  return (await scrape()).filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
}

const poll = async (query = '', userAgent = 'crowdsec-firewall-bouncer/v0.0.34'): Promise<void> => {
  const headers = { 'user-agent': userAgent };
  await (await asBouncer(key, `/v1/decisions/stream${query}`, { headers })).text();
};

describe('who may', () => {
  test.each([
    ['no token', {}, 401],
    ['another token', { authorization: 'Bearer nobody' }, 401],
    ['a bouncer’s key', { 'x-api-key': 'key' }, 401],
  ])('%s', async (_, headers, status) => {
    const response = await call('/metrics', { headers });
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
  });

  test.each(['metrics', 'viewer', 'operator', 'admin'])('the role %s', async (role) => {
    const headers = { authorization: `Bearer ${await makeToken('prometheus', role)}` };
    const response = await call('/metrics', { headers });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain('cs_info');
  });

  test('the role metrics may nothing else', async () => {
    const headers = { authorization: `Bearer ${await makeToken('prometheus', 'metrics')}` };
    for (const path of [
      '/feed',
      '/bouncers',
      '/bouncers/fw',
      '/decisions',
      '/hosts',
      '/audit',
      '/rotations',
    ]) {
      const response = await call(`/api/v1${path}`, { headers });
      expect([path, response.status]).toEqual([path, 403]);
    }
  });

  test('no scrape is in the audit log, whoever scrapes', async () => {
    const headers = { authorization: `Bearer ${await makeToken('prometheus', 'metrics')}` };
    const rows = async () => (await operator('GET', '/audit')).body.audit.map(({ action }: any) => action);
    const before = await rows();
    for (const each of [admin, headers]) {
      expect((await call('/metrics', { headers: each })).status).toBe(200);
      expect((await call('/metrics', { method: 'HEAD', headers: each })).status).toBe(200);
    }
    // Reading the log is noted.
    expect(await rows()).toEqual(['operator.break-glass', ...before]);
  });

  test('no token that was revoked', async () => {
    const headers = { authorization: `Bearer ${await makeToken('prometheus', 'metrics')}` };
    await operator('DELETE', '/operator-tokens/prometheus');
    expect((await call('/metrics', { headers })).status).toBe(401);
  });

  describe('of an issuer', () => {
    watchOperators();

    test('whom a rule gives the role', async () => {
      const issuer = await freshIssuer();
      const rules = [{ claim: 'groups', equals: 'scrapers', role: 'metrics' }];
      const bindings = { ...env, OPERATOR_ISSUERS: JSON.stringify([entryOf(issuer, { rules })]) };
      const headers = bearer(await issuer.sign({ claims: { groups: ['scrapers'] } }));
      expect((await serveWith(bindings, '/metrics', { headers })).status).toBe(200);
      expect((await serveWith(bindings, '/api/v1/feed', { headers })).status).toBe(403);
      const guest = bearer(await issuer.sign({ claims: { groups: ['guests'] } }));
      expect((await serveWith(bindings, '/metrics', { headers: guest })).status).toBe(403);
    });
  });
});

describe('how it answers', () => {
  test('in the format that is asked for', async () => {
    const plain = await call('/metrics', { headers: admin });
    expect(plain.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await plain.text()).not.toContain('# EOF');
    const accept = 'application/openmetrics-text;version=1.0.0,text/plain;q=0.5';
    const open = await call('/metrics', { headers: { ...admin, accept } });
    expect(open.headers.get('content-type')).toBe(
      'application/openmetrics-text; version=1.0.0; charset=utf-8',
    );
    // workerd warns of a text that is read from another type than `text/`.
    expect(new TextDecoder().decode(await open.arrayBuffer())).toMatch(/\n# EOF\n$/);
  });

  test('HEAD without a body, POST not at all, and below PATH_PREFIX', async () => {
    const head = await call('/metrics', { method: 'HEAD', headers: admin });
    expect([head.status, await head.text()]).toEqual([200, '']);
    const post = await call('/metrics', { method: 'POST', headers: admin });
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET']);
    const bindings = { ...env, PATH_PREFIX: '/lapi' };
    expect((await serveWith(bindings, '/lapi/metrics', { headers: admin })).status).toBe(200);
    expect((await serveWith(bindings, '/metrics', { headers: admin })).status).toBe(404);
  });

  test('a parameter that is none is a 400 that names it', async () => {
    for (const [query, field] of [
      ['bouncers=no', 'bouncers'],
      ['engine_names=', 'engine_names'],
      ['bouncer=0', 'bouncer'],
    ]) {
      const response = await call(`/metrics?${query}`, { headers: admin });
      expect([response.status, ((await response.json()) as any).errors[0].field]).toEqual([400, field]);
    }
  });

  test('?bouncers=0 without those of bouncers, ?engine_names=0 without those of the engine', async () => {
    await poll('?startup=true');
    const [all, without, own] = [
      await scrape(),
      await scrape('?bouncers=0'),
      await scrape('?engine_names=0&bouncers=1'),
    ];
    expect(all.filter((line) => line.includes('bouncer="fw"')).length).toBeGreaterThan(3);
    expect(without.filter((line) => /bouncer=|^lapidary_key/.test(line))).toEqual([]);
    expect(without.some((line) => line.startsWith('cs_info'))).toBe(true);
    expect(own.filter((line) => line.startsWith('cs_'))).toEqual([]);
    expect(own.some((line) => line.includes('bouncer="fw"'))).toBe(true);
  });
});

describe('out of reach', () => {
  const outOfReach = (): never => {
    throw new Error('out of reach');
  };

  test.each([
    ['D1', { DB: { prepare: outOfReach, batch: outOfReach } }],
    [
      'the feed',
      {
        DECISION_FEED: {
          getByName: () => {
            const lost = () =>
              Promise.reject(Object.assign(new Error('reset'), { durableObjectReset: true }));
            return new Proxy({}, { get: () => lost });
          },
        },
      },
    ],
  ])('%s: a 503, and no scrape', async (_, bindings) => {
    vi.spyOn(console, 'error').mockReturnValue(undefined);
    const response = await serveWith({ ...env, ...bindings }, '/metrics', { headers: admin });
    expect(response.status).toBe(503);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    expect(await response.text()).not.toContain('cs_info');
  });
});

describe('the feed', () => {
  test('counts decisions by reason, origin and action, and by engine', async () => {
    const untilMs = Date.now() + hour;
    for (const value of ['192.0.2.1', '192.0.2.2']) engine.add({ value, untilMs, scenario: 'ssh-bf' });
    engine.add({ value: '192.0.2.3', untilMs, scenario: 'say "no"', origin: 'lists:x', type: 'captcha' });
    engine.add({ value: '192.0.2.4', untilMs, scenario: 'he was at 192.0.2.4' });
    await operator('POST', '/feed/sync?full=true');
    await operator('POST', '/decisions', { value: '192.0.2.9', duration: '1h', scenario: 'mine' });
    expect((await family('cs_active_decisions')).sort()).toEqual([
      'cs_active_decisions{reason="mine",origin="lapidary",action="ban"} 1',
      'cs_active_decisions{reason="other",origin="cscli",action="ban"} 1',
      'cs_active_decisions{reason="say \\"no\\"",origin="lists:x",action="captcha"} 1',
      'cs_active_decisions{reason="ssh-bf",origin="cscli",action="ban"} 2',
    ]);
    expect((await family('lapidary_feed_decisions')).sort()).toEqual([
      'lapidary_feed_decisions{engine="",origin="lapidary"} 1',
      'lapidary_feed_decisions{engine="default",origin="cscli"} 3',
      'lapidary_feed_decisions{engine="default",origin="lists:x"} 1',
    ]);
  });

  test('says how each engine is', async () => {
    vi.spyOn(console, 'error').mockReturnValue(undefined);
    expect(await family('lapidary_engine_up')).toEqual(['lapidary_engine_up{engine="default"} 0']);
    // Never is no time.
    expect(await family('lapidary_engine_last_sync_timestamp_seconds')).toEqual([]);
    const beforeMs = Date.now();
    await operator('POST', '/feed/sync?full=true');
    expect(await family('lapidary_engine_up')).toEqual(['lapidary_engine_up{engine="default"} 1']);
    for (const what of ['sync', 'full_list']) {
      const [line] = await family(`lapidary_engine_last_${what}_timestamp_seconds`);
      expect(Number(line?.split(' ')[1])).toBeGreaterThanOrEqual(beforeMs / 1000);
    }
    expect(await family('lapidary_engine_refused')).toEqual(['lapidary_engine_refused{engine="default"} 0']);
    engine.keys = ['another'];
    await operator('POST', '/feed/sync');
    expect(await family('lapidary_engine_refused')).toEqual(['lapidary_engine_refused{engine="default"} 1']);
  });

  test('counts hosts by state', async () => {
    await env.DB.prepare(
      `INSERT INTO hosts (name, public_key, fingerprint, created_ms, suspected_ms, removed_ms)
       VALUES ('a', 'a', 'a', 1, NULL, NULL), ('b', 'b', 'b', 1, NULL, NULL), ('c', 'c', 'c', 1, 1, NULL), ('d', 'd', 'd', 1, NULL, 1)`,
    ).run();
    await env.DB.prepare(
      `INSERT INTO host_keys (kind, name, host_id, generation, recoveries_left)
       SELECT 'bouncer', name, id, id - 1, 1 FROM hosts WHERE name <> 'c'`,
    ).run();
    expect(await family('lapidary_hosts')).toEqual([
      'lapidary_hosts{state="waiting"} 1',
      'lapidary_hosts{state="registered"} 1',
      'lapidary_hosts{state="clone-suspected"} 1',
    ]);
  });
});

describe('the audit log', () => {
  const events = () => family('lapidary_audit_events_total');

  test('is counted by action, each row once, and from its end', async () => {
    await addBouncer('another');
    const before = ['lapidary_audit_events_total{action="bouncer.create"} 2'];
    expect(await events()).toEqual(before);
    expect(await events()).toEqual(before);
    // Rows of more than a year are removed.
    await env.DB.prepare(`DELETE FROM audit WHERE seq = 1`).run();
    await operator('DELETE', '/bouncers/another');
    expect(await events()).toEqual([...before, 'lapidary_audit_events_total{action="bouncer.delete"} 1']);
    await evictDurableObject(feed());
    expect(await events()).toEqual([...before, 'lapidary_audit_events_total{action="bouncer.delete"} 1']);
  });

  test('is counted anew where D1 was restored', async () => {
    await addBouncer('another');
    await events();
    await env.DB.prepare(`DELETE FROM audit WHERE seq = 2`).run();
    expect(await events()).toEqual([
      'lapidary_audit_events_total{action="bouncer.create"} 1',
      'lapidary_audit_events_total{action="restore.reconcile"} 1',
    ]);
  });
});

describe('who is refused', () => {
  const refused = async (): Promise<string[]> => {
    return (await family('lapidary_auth_failures_total')).map((line) => line.slice(line.indexOf('{')).trim());
  };

  test('is counted by where and why', async () => {
    const viewer = { authorization: `Bearer ${await makeToken('anna', 'viewer')}` };
    for (const name of ['', 'nobody', 'nobody']) {
      expect((await asBouncer(name, '/v1/decisions/stream')).status).toBe(403);
    }
    expect((await call('/api/v1/bouncers', { headers: { authorization: 'Bearer nobody' } })).status).toBe(
      401,
    );
    expect((await call('/metrics')).status).toBe(401);
    const init = { method: 'POST', body: '{}', headers: viewer };
    expect((await call('/api/v1/bouncers', init)).status).toBe(403);
    expect(await refused()).toEqual([
      '{face="bouncer",reason="no-key"} 1',
      '{face="bouncer",reason="unknown-key"} 2',
      '{face="operator",reason="unauthorised"} 2',
      '{face="operator",reason="role"} 1',
    ]);
  });

  test('is nobody whose key can not be checked', async () => {
    vi.spyOn(console, 'error').mockReturnValue(undefined);
    const out = (): never => {
      throw new Error('out of reach');
    };
    const bindings = { ...env, DB: { prepare: out, batch: out } };
    const headers = { 'x-api-key': 'nobody knows this yet' };
    expect((await serveWith(bindings, '/v1/decisions/stream', { headers })).status).toBe(503);
    expect(await refused()).toEqual([]);
  });

  test('may be a machine, or a host', async () => {
    expect((await serveWith({ ...env, MACHINE_ROUTES: 'on' }, '/v1/alerts')).status).toBe(401);
    const host = await knownHost();
    expect((await host.register({ nonce: 'x' })).status).toBe(401);
    expect((await (await makeHost('web-2')).register()).status).toBe(403);
    expect(await refused()).toEqual([
      '{face="machine",reason="token"} 1',
      '{face="host",reason="bad-nonce"} 1',
      '{face="host",reason="forbidden"} 1',
    ]);
  });
});

describe('requests', () => {
  const requests = async (): Promise<string[]> => {
    const lines = await scrape();
    return lines.filter((line) => line.startsWith('cs_lapi_')).map((line) => line.slice('cs_lapi_'.length));
  };
  const ask = async (path: string, init: RequestInit = {}): Promise<void> => {
    await (await asBouncer(key, `/v1${path}`, init)).text();
  };

  test('are counted by route and method, and look-ups by whether they found something', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await operator('POST', '/feed/sync?full=true');
    await poll('?startup=true');
    for (let polls = 0; polls < 4; polls++) await poll();
    await ask('/decisions/stream', { method: 'HEAD' });
    await ask('/decisions?ip=192.0.2.1');
    await ask('/decisions');
    for (let lookUps = 0; lookUps < 3; lookUps++) await ask('/decisions?ip=192.0.2.2');
    await ask('/decisions', { method: 'HEAD' });
    await ask('/usage-metrics', { method: 'POST', body: '{}' });
    expect(await requests()).toEqual([
      'bouncer_requests_total{bouncer="fw",route="/v1/decisions/stream",method="GET"} 5',
      'bouncer_requests_total{bouncer="fw",route="/v1/decisions/stream",method="HEAD"} 1',
      'bouncer_requests_total{bouncer="fw",route="/v1/decisions",method="GET"} 5',
      'bouncer_requests_total{bouncer="fw",route="/v1/decisions",method="HEAD"} 1',
      'bouncer_requests_total{bouncer="fw",route="/v1/usage-metrics",method="POST"} 1',
      'decisions_ok_total{bouncer="fw"} 2',
      'decisions_ko_total{bouncer="fw"} 3',
    ]);
  });

  test('with a key that opens nothing, or not from here, are not counted', async () => {
    await asBouncer('nobody', '/v1/decisions/stream');
    const patched = await call('/api/v1/bouncers/fw', {
      method: 'PATCH',
      headers: { ...admin, 'if-match': '*' },
      body: JSON.stringify({ allowed_addresses: ['203.0.113.7'] }),
    });
    expect(patched.status).toBe(200);
    await ask('/decisions/stream');
    expect(await requests()).toEqual([]);
  });

  test('of a bouncer that is deleted go with it', async () => {
    await operator('POST', '/feed/sync?full=true');
    await poll('?startup=true');
    expect(await requests()).toHaveLength(1);
    expect((await operator('DELETE', '/bouncers/fw')).status).toBe(204);
    expect(await requests()).toEqual([]);
    expect((await feed().counts()).requests).toEqual([]);
  });

  test('cost a poll no question to the object', async () => {
    await operator('POST', '/feed/sync?full=true');
    await poll('?startup=true');
    const calls: string[] = [];
    const get = (stub: Record<string, (...given: unknown[]) => unknown>, method: string) => {
      return (...given: unknown[]) => {
        calls.push(method);
        return stub[method]?.(...given);
      };
    };
    const DECISION_FEED = { getByName: () => new Proxy(feed(), { get: get as never }) };
    const headers = { 'x-api-key': key };
    for (let polls = 0; polls < 50; polls++) {
      await serveWith({ ...env, DECISION_FEED }, '/v1/decisions/stream', { headers });
    }
    expect(calls.filter((method) => method !== 'follow')).toEqual([]);
    expect(await requests()).toEqual([
      'bouncer_requests_total{bouncer="fw",route="/v1/decisions/stream",method="GET"} 51',
    ]);
  });
});

describe('a bouncer', () => {
  test('that was never seen has no more than its key', async () => {
    const lines = (await scrape()).filter((line) => line.includes('bouncer='));
    expect(lines.map((line) => line.replace(/[\d.]+$/, 'T'))).toEqual([
      'lapidary_key_created_timestamp_seconds{bouncer="fw",version="1"} T',
      'lapidary_key_expiry_timestamp_seconds{bouncer="fw",version="1"} +Inf',
    ]);
  });

  test('is named by what it says it is, and its labels are escaped', async () => {
    const beforeMs = Date.now();
    await poll('?startup=true', 'evil"} 1\\/v1');
    expect(await family('lapidary_bouncer_info')).toEqual([
      'lapidary_bouncer_info{bouncer="fw",type="evil\\"} 1\\\\",version="v1"} 1',
    ]);
    const [pull] = await family('lapidary_bouncer_last_pull_timestamp_seconds');
    expect(Number(pull?.split(' ')[1])).toBeGreaterThanOrEqual(beforeMs / 1000);
    await poll('', 'curl at 192.0.2.7');
    expect((await family('lapidary_bouncer_info'))[0]).toContain('type="other",version="N/A"');
  });

  test('lags by the changes since it was last answered, and no longer after a poll', async () => {
    const lag = async (): Promise<string | undefined> => {
      return (await family('lapidary_bouncer_lag_changes'))[0]?.split(' ')[1];
    };
    expect(await lag()).toBeUndefined();
    await operator('POST', '/feed/sync?full=true');
    await poll('?startup=true');
    expect(await lag()).toBe('0');
    for (const value of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) {
      await operator('POST', '/decisions', { value, duration: '1h' });
    }
    expect(await lag()).toBe('3');
    await poll();
    expect(await lag()).toBe('0');
    // Answered by the isolate alone.
    for (let polls = 0; polls < 4; polls++) await poll();
    expect(await lag()).toBe('0');
  });

  test('should hold what its view has, each value once, and no more than its cap', async () => {
    const size = async () => (await family('lapidary_bouncer_view_decisions'))[0]?.split(' ')[1];
    const untilMs = Date.now() + hour;
    for (const value of ['192.0.2.1', '192.0.2.2']) engine.add({ value, untilMs, origin: 'CAPI' });
    engine.add({ value: '192.0.2.1', untilMs, origin: 'crowdsec', scenario: 'another' });
    engine.add({ value: '192.0.2.0/24', scope: 'Range', untilMs, origin: 'crowdsec' });
    engine.add({ value: 'FR', scope: 'Country', untilMs });
    await operator('POST', '/feed/sync?full=true');
    expect(await size()).toBeUndefined();
    await poll('?startup=true');
    expect(await size()).toBe('3');
    await poll('?startup=true&scopes=country');
    expect(await size()).toBe('1');
    await poll('?startup=true&origins=crowdsec');
    expect(await size()).toBe('2');
    const allow = (value: string, bouncers: string[]) =>
      operator('POST', '/allowlist', { value, comment: 'x', bouncers });
    await allow('192.0.2.1', ['vpn-*']);
    expect(await size()).toBe('2');
    await allow('192.0.2.1', ['f*']);
    expect(await size()).toBe('0');
    const view = { scopes: ['Range', 'Ip'], max_decisions: 1 };
    const headers = { ...admin, 'if-match': '*' };
    const init = { method: 'PATCH', headers, body: JSON.stringify({ view }) };
    expect((await call('/api/v1/bouncers/fw', init)).status).toBe(200);
    for (const { id } of (await operator('GET', '/allowlist')).body.entries) {
      await operator('DELETE', `/allowlist/${id}`);
    }
    expect(await size()).toBe('1');
  });

  test('that only looks up has no lag', async () => {
    await operator('POST', '/feed/sync?full=true');
    await (await asBouncer(key, '/v1/decisions?ip=192.0.2.1')).text();
    expect(await family('lapidary_bouncer_last_pull_timestamp_seconds')).toHaveLength(1);
    expect(await family('lapidary_bouncer_lag_changes')).toEqual([]);
  });

  test('that is paused says since when', async () => {
    const paused = () => family('lapidary_bouncer_paused_timestamp_seconds');
    const pause = async (isPaused: boolean): Promise<void> => {
      const headers = { ...admin, 'if-match': '*' };
      const init = { method: 'PATCH', headers, body: JSON.stringify({ paused: isPaused }) };
      expect((await call('/api/v1/bouncers/fw', init)).status).toBe(200);
    };
    expect(await paused()).toEqual([]);
    await pause(true);
    const sinceMs = Date.parse((await operator('GET', '/bouncers/fw')).body.paused_at);
    expect(await paused()).toEqual([
      `lapidary_bouncer_paused_timestamp_seconds{bouncer="fw"} ${sinceMs / 1000}`,
    ]);
    await pause(false);
    expect(await paused()).toEqual([]);
  });

  test('has the ends of its key’s versions', async () => {
    await operator('POST', '/bouncers/fw/rotate', { expires_in: '30d', max_overlap: '1h' });
    const { body } = await operator('GET', '/bouncers/fw');
    const untilMs = Date.parse(body.key_versions[1].valid_until);
    expect(await family('lapidary_key_expiry_timestamp_seconds')).toEqual([
      'lapidary_key_expiry_timestamp_seconds{bouncer="fw",version="1"} +Inf',
      `lapidary_key_expiry_timestamp_seconds{bouncer="fw",version="2"} ${untilMs / 1000}`,
    ]);
    expect(await family('lapidary_key_created_timestamp_seconds')).toHaveLength(2);
  });
});

describe('what a bouncer reports', () => {
  const reportOf = (metrics: unknown) => ({
    remediation_components: [{ type: 'fw', version: 'v1', metrics }],
  });
  const item = (value: unknown, labels: unknown, name: unknown = 'active_decisions') => {
    return { name, unit: 'ip', value, labels };
  };
  async function send(metrics: unknown): Promise<void> {
    const init = { method: 'POST', body: JSON.stringify(reportOf(metrics)) };
    expect((await asBouncer(key, '/v1/usage-metrics', init)).status).toBe(201);
  }
  const enforced = () => family('lapidary_bouncer_active_decisions');

  test('to enforce is a gauge of its last window', async () => {
    const items = [
      item(20, { origin: 'CAPI', ip_type: 'ipv4' }),
      item(3, { origin: 'CAPI', ip_type: 'ipv6' }),
      item(1, { origin: 'cscli', ip_type: 'ipv4', remediation: 'ban' }),
      item(2, { origin: 'cscli', ip_type: 'ipv4', remediation: 'captcha' }),
      item(99, { origin: 'CAPI', ip_type: 'ipv4' }, 'dropped'),
    ];
    await send([{ items: [item(1_000, { origin: 'CAPI', ip_type: 'ipv4' })] }, { items }]);
    expect(await enforced()).toEqual([
      'lapidary_bouncer_active_decisions{bouncer="fw",origin="CAPI",ip_type="ipv4"} 20',
      'lapidary_bouncer_active_decisions{bouncer="fw",origin="CAPI",ip_type="ipv6"} 3',
      'lapidary_bouncer_active_decisions{bouncer="fw",origin="cscli",ip_type="ipv4"} 3',
    ]);
    vi.useFakeTimers({ toFake: ['Date'] });
    vi.setSystemTime(Date.now() + 2 * hour);
    expect(await enforced()).toEqual([]);
  });

  const windowOf = (items: unknown, at = 1_700_000_000) => {
    return { meta: { window_size_seconds: 900, utc_now_timestamp: at }, items };
  };
  /** Once the feed has what was reported beside the 201. */
  const usage = async (sum: number): Promise<string[]> => {
    const counted = async (): Promise<string[]> => {
      const lines = await family('lapidary_bouncer_usage_total');
      expect(lines.reduce((all, line) => all + Number(line.split(' ').at(-1)), 0)).toBe(sum);
      return lines.map((line) => line.slice('lapidary_bouncer_usage_total{bouncer="fw",'.length));
    };
    return waitFor(counted);
  };
  const dropped = (value: unknown, origin = 'CAPI') => {
    return { name: 'dropped', unit: 'packet', value, labels: { origin, ip_type: 'ipv4' } };
  };

  test('was dropped and processed is added up over its windows', async () => {
    const processed = { name: 'processed', unit: 'byte', value: 100, labels: { ip_type: 'ipv6' } };
    const captcha = { name: 'dropped', unit: 'request', value: 1, labels: { remediation: 'captcha' } };
    await send([windowOf([dropped(5), processed, captcha, item(9, {})])]);
    await usage(106);
    await send([windowOf([dropped(2), dropped(3, 'cscli'), processed], 1_700_000_900)]);
    expect(await usage(211)).toEqual([
      'item="dropped",unit="packet",origin="CAPI",ip_type="ipv4"} 7',
      'item="processed",unit="byte",ip_type="ipv6"} 200',
      'item="dropped",unit="request",remediation="captcha"} 1',
      'item="dropped",unit="packet",origin="cscli",ip_type="ipv4"} 3',
    ]);
  });

  test('is added once where the same report comes again, and twice where two hosts share the key', async () => {
    await send([windowOf([dropped(5)])]);
    await usage(5);
    await send([windowOf([dropped(5)])]);
    await send([windowOf([dropped(6)])]);
    await usage(11);
    await send([windowOf([dropped(5)], 1_700_000_900)]);
    await usage(16);
  });

  test('is added once of a hundred windows, too: of the newest', async () => {
    const windows = Array.from({ length: 100 }, (_, at) => windowOf([dropped(1 + at)], 1_700_000_000 + at));
    await send(windows.toReversed());
    await send(windows.toReversed());
    await send([windowOf([dropped(1)], 1_800_000_000)]);
    // 69 to 100.
    await usage(32 * 84.5 + 1);
  });

  test('is added up of so many items', async () => {
    const items = Array.from({ length: 200 }, () => dropped(1));
    await send([windowOf(items), windowOf(items, 1_700_000_900)]);
    await usage(256);
  });

  test('outlives the object, and goes with the bouncer', async () => {
    await send([windowOf([dropped(5)])]);
    await usage(5);
    await evictDurableObject(feed());
    await send([windowOf([dropped(5)])]);
    await send([windowOf([dropped(1)])]);
    await usage(6);
    await operator('DELETE', '/bouncers/fw');
    expect((await feed().usagePage(0)).bouncers).toEqual([]);
  });

  test('has at most 24 series and what is left, and none of them goes back', async () => {
    for (let window = 0; window < 4; window++) {
      const items = Array.from({ length: 40 }, (_, at) => dropped(1 + window * at, `lists:${(at * 7) % 40}`));
      await send([windowOf(items, window)]);
    }
    const lines = await usage(160 + 6 * 780);
    expect(lines).toHaveLength(25);
    expect(lines[0]).toBe('item="dropped",unit="packet",origin="lists:0",ip_type="ipv4"} 4');
    expect(lines.at(-1)).toMatch(/^item="dropped",unit="other",origin="other"/);
  });

  test('has no address in a label', async () => {
    await send([windowOf([dropped(5, 'by 192.0.2.1'), dropped(7, 'by 2001:db8::7')])]);
    expect(await usage(12)).toEqual(['item="dropped",unit="packet",origin="other",ip_type="ipv4"} 12']);
  });

  test('may be more than SQLite can add up in whole numbers', async () => {
    const most = item(9_000_000_000_000_000_000, { origin: 'CAPI', ip_type: 'ipv4' });
    await send([{ items: [most, most] }]);
    expect(await enforced()).toEqual([
      'lapidary_bouncer_active_decisions{bouncer="fw",origin="CAPI",ip_type="ipv4"} 18000000000000000000',
    ]);
  });

  test('has at most so many series, however many origins it names', async () => {
    const origins = Array.from({ length: 40 }, (_, at) => `lists:${at}`);
    await send([{ items: origins.map((origin, at) => item(at, { origin, ip_type: `type ${at}` })) }]);
    const lines = await enforced();
    expect(lines).toHaveLength(9);
    expect(lines.at(-1)).toContain('origin="other"');
    expect(lines.join('\n')).not.toContain('type ');
  });

  test.each([
    ['no metrics', undefined],
    ['metrics that are a text', 'x'],
    ['an object in place of a list', {}],
    ['no window', []],
    ['a window that is a text', ['x']],
    ['items that are an object', [{ items: { a: 'x', b: item(1, {}) } }]],
    ['items of all kinds', [{ items: ['x', 1, null, [], item('1', {}), item(1, 'x'), item(1, null, 7)] }]],
    ['labels of all kinds', [{ items: [item(1, { origin: { a: 1 }, ip_type: ['x'] })] }]],
  ])('%s: what is not understood is left out', async (_, metrics) => {
    await send(metrics);
    for (const line of await enforced()) expect(line).toMatch(/^lapidary_bouncer_active_decisions\{.*\} 1$/);
  });

  test.each([
    ['no time', [{ items: [dropped(1)] }]],
    ['a time that is a text', [{ meta: { utc_now_timestamp: '1' }, items: [dropped(1)] }]],
    ['items that are an object', [windowOf({ a: dropped(1) })]],
    ['numbers of all kinds', [windowOf([dropped('1'), dropped(-1), dropped(null), dropped({}), 1, null])]],
    ['another item', [windowOf([item(1, {}, 'allowed')])]],
  ])('%s: what is not understood is not added up', async (_, metrics) => {
    await send(metrics);
    await send([windowOf([dropped(1)])]);
    await usage(1);
  });
});

describe('10,000 bouncers', () => {
  const count = 10_000;
  const numbers = `WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${count})`;

  async function fill(): Promise<void> {
    const items = ['CAPI', 'crowdsec', 'cscli', 'lists:firehol_cruzit_web_attacks'].flatMap((origin) =>
      ['ipv4', 'ipv6'].map((ip_type) => ({
        name: 'active_decisions',
        value: 12345,
        labels: { origin, ip_type },
      })),
    );
    const report = JSON.stringify({ metrics: [{ items }] });
    await env.DB.prepare(
      `INSERT INTO bouncers (name, created_ms, metrics_json, metrics_ms)
       SELECT * FROM (${numbers} SELECT 'crowdsec-firewall-bouncer@host-' || n || '.example.net', ?, ?, ? FROM numbers)`,
    )
      .bind(Date.now(), report, Date.now())
      .run();
    await env.DB.prepare(
      `INSERT INTO key_versions (bouncer_id, digest, created_ms, expires_ms)
       SELECT id, 'digest ' || id, created_ms + id, created_ms + id FROM bouncers WHERE name <> 'fw'`,
    ).run();
    for (let first = 2; first <= count; first += 1_000) {
      const sightings = Array.from({ length: 1_000 }, (_, at) => ({
        bouncerId: first + at,
        versionId: 1,
        address: '192.0.2.1',
        seenMs: Date.now(),
        userAgent: 'crowdsec-firewall-bouncer/v0.0.34-debian-pragmatic-amd64',
      }));
      const requests = sightings.flatMap(({ bouncerId }) => [
        bouncerId,
        0,
        12_345 + bouncerId,
        bouncerId,
        2,
        7,
      ]);
      await feed().note(sightings, null, { isolate: 'a', counts: { number: first, requests } });
    }
    // As Debian's firewall bouncer reports it, of four origins.
    const sums = ['packet', 'byte'].flatMap((unit) =>
      ['ipv4', 'ipv6'].flatMap((ipType) => [
        ['processed', unit, '', '', ipType],
        ...['CAPI', 'crowdsec', 'cscli', 'lists:firehol'].map((origin) => [
          'dropped',
          unit,
          origin,
          '',
          ipType,
        ]),
      ]),
    );
    const json = sums.map((labels) => JSON.stringify(labels).replace(']', ',%d]')).join();
    await runInDurableObject(feed(), (_, { storage }) => {
      const values = sums.map(() => 'abs(random()) % 100000000').join();
      const insert = `INSERT INTO usage SELECT n, '[]', format('[${json}]', ${values}) FROM`;
      storage.sql.exec(`${insert} (${numbers} SELECT n FROM numbers)`);
    });
  }

  test('are pages of D1, at most 30 MB, 3 MB of gzip, and all or none', async () => {
    await fill();
    let reads = 0;
    let reportsRead = 0;
    let failsAt = Infinity;
    const DB = {
      batch: (...given: Parameters<D1Database['batch']>) => env.DB.batch(...given),
      prepare: (sql: string) => {
        if (sql.includes('metrics[#-1]')) reportsRead++;
        if (sql.includes('key_versions') && ++reads === failsAt) throw new Error('D1 went away');
        return env.DB.prepare(sql);
      },
    };
    const ask = (headers = {}): Promise<Response> => {
      return serveWith({ ...env, DB }, '/metrics', { headers: { ...admin, ...headers } });
    };
    const text = await (await ask()).text();
    expect(reads).toBeLessThanOrEqual(count / 500 + 1);
    expect(text.length).toBeLessThan(30_000_000);
    expect(text.match(/^lapidary_bouncer_info\{/gm)).toHaveLength(count - 1);
    expect(text.match(/^lapidary_bouncer_active_decisions\{/gm)).toHaveLength(8 * (count - 1));
    expect(text.match(/^cs_lapi_bouncer_requests_total\{/gm)).toHaveLength(2 * (count - 1));
    // With so many, no origins.
    expect(text.match(/^lapidary_bouncer_usage_total\{/gm)).toHaveLength(4 * (count - 1));
    expect(reportsRead).toBe(count / 500);
    const gzipped = await ask({ 'accept-encoding': 'gzip' });
    expect(gzipped.headers.get('content-encoding')).toBe('gzip');
    const bytes = await gzipped.arrayBuffer();
    expect(bytes.byteLength).toBeLessThan(3_000_000);
    const unzipped = new Response(bytes).body!.pipeThrough(new DecompressionStream('gzip'));
    expect((await new Response(unzipped).text()).length).toBe(text.length);
    // D1 takes no report apart twice.
    expect(reportsRead).toBe(count / 500);
    vi.spyOn(console, 'error').mockReturnValue(undefined);
    failsAt = reads + 7;
    expect((await ask()).status).toBe(503);
  });
});
