// What Prometheus makes of /metrics: its own tool finds no fault in a scrape and in the rules, and the server itself reads
// a live Lapidary with an engine, and raises an alert that ends when its cause does.
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startFirewallBouncer } from '../lab/firewall-bouncer.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { promtool, startPrometheus } from '../lab/prometheus.ts';
import { until } from '../lab/wait.ts';

const folder = join(import.meta.dirname, '../../ops/prometheus');
const rules = join(folder, 'rules.yml');
const dashboard = join(folder, '../grafana/lapidary.json');

/** The expressions of the dashboard's panels, with values for its variables. */
function asked(): string[] {
  const { panels } = JSON.parse(readFileSync(dashboard, 'utf8')) as {
    panels: { targets: { expr: string }[] }[];
  };
  const values: Record<string, string> = { instance: '.*', bouncer: '.*', __rate_interval: '4m' };
  return panels
    .flatMap(({ targets }) => targets)
    .map(({ expr }) => expr.replace(/\$(\w+)/g, (_, name) => values[name] ?? `no variable ${name}`));
}

describeWith('the rules', ['prometheus'], () => {
  test('are rules', async () => {
    expect(await promtool(['check', 'rules', rules])).toMatchObject({ status: 0 });
  });

  test('fire and end as their tests say', async () => {
    const { status, said } = await promtool(['test', 'rules', join(folder, 'rules.test.yml')]);
    expect(status, said).toBe(0);
  });
});

describeWith('a scrape of a live Lapidary', ['lab', 'prometheus'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let token: string;
  beforeAll(async () => {
    engine = await startEngine();
    const { login, password } = engine.machine;
    const entry = { name: 'default', url: engine.url, key: await engine.addBouncer('lapidary') };
    const upstreams = [{ ...entry, allowlists: { machine: login, password } }];
    lapidary = await startLapidary({ settings: { UPSTREAMS: JSON.stringify(upstreams) } });
    const body = { name: 'prometheus', role: 'metrics', expires_in: '1h' };
    ({ token } = (await lapidary.operator('POST', '/operator-tokens', body)).body);
    await engine.ban('192.0.2.1');
    await lapidary.ban('192.0.2.2');
    await lapidary.sync({ full: true });
    const key = await lapidary.addBouncer('fw');
    const send = async (path: string, init: RequestInit = {}): Promise<void> => {
      const headers = { 'x-api-key': key, 'user-agent': 'evil"} 1\\/v1' };
      const response = await fetch(`${lapidary.url}/v1${path}`, { headers, ...init });
      await response.arrayBuffer();
      expect(response.ok, path).toBe(true);
    };
    await send('/decisions/stream?startup=true');
    for (const value of ['192.0.2.1', '192.0.2.99']) await send(`/decisions?ip=${value}`);
    expect((await fetch(`${lapidary.url}/v1/decisions`, { headers: { 'x-api-key': 'x' } })).status).toBe(403);
    const labels = { origin: 'lists:"\n\\', ip_type: 'ipv4' };
    const items = [
      { name: 'active_decisions', unit: 'ip', value: 2, labels },
      { name: 'dropped', unit: 'packet', value: 7, labels },
    ];
    const metrics = [{ meta: { window_size_seconds: 900, utc_now_timestamp: 1 }, items }];
    const report = { remediation_components: [{ type: 'fw', version: 'v1', metrics }] };
    await send('/usage-metrics', { method: 'POST', body: JSON.stringify(report) });
    // One of the two addresses is left out.
    const list = await fetch(`${lapidary.url}/lists/plain?limit=1`, { headers: { 'x-api-key': key } });
    expect([list.status, list.headers.get('x-lapidary-omitted') !== null]).toEqual([200, true]);
    await lapidary.addBouncer('paused');
    const latest = { 'if-match': '*' };
    expect((await lapidary.operator('PATCH', '/bouncers/paused', { paused: true }, latest)).status).toBe(200);
    // It is added up beside the answer.
    await until('the report is counted', async () =>
      (await scrape()).includes('lapidary_bouncer_usage_total{'),
    );
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  async function scrape(): Promise<string> {
    const response = await fetch(`${lapidary.url}/metrics`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const text = await response.text();
    expect(response.status, text).toBe(200);
    return text;
  }

  test('has nothing that promtool finds fault with', async () => {
    expect(await promtool(['check', 'metrics'], await scrape())).toEqual({ status: 0, said: '' });
  });

  test('has each series that the rules, the dashboard and docs/metrics.md name, and no other', async () => {
    const given = new Set([...(await scrape()).matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name));
    const named = (file: string): Set<string> => {
      return new Set(readFileSync(file, 'utf8').match(/\b(?:cs|lapidary)_[a-z_]+[a-z](?!…)\b/g));
    };
    const described = [
      ...readFileSync(join(folder, '../../docs/metrics.md'), 'utf8').matchAll(
        /^\| `((?:cs|lapidary)_\w+)`/gm,
      ),
    ];
    expect([...given].sort()).toEqual(described.map(([, name]) => name).sort());
    for (const file of [rules, dashboard]) for (const name of named(file)) expect(given).toContain(name);
  });

  test('is what Prometheus reads; an engine that is down is an alert until it is back', async () => {
    const prometheus = await startPrometheus(lapidary.url, token, rules);
    try {
      await until('it was scraped', async () => (await prometheus.query('up == 1')).length === 1);
      expect(await prometheus.query('sum(cs_active_decisions)')).toMatchObject([{ value: '2' }]);
      expect(await prometheus.query('lapidary_bouncer_active_decisions')).toMatchObject([
        { labels: { bouncer: 'fw', origin: 'lists:"\n\\', ip_type: 'ipv4' }, value: '2' },
      ]);
      expect(await prometheus.query('lapidary_key_expiry_timestamp_seconds{bouncer="fw"}')).toMatchObject([
        { value: '+Inf' },
      ]);
      for (const expression of asked()) await prometheus.query(expression);
      await engine.stop();
      await until('the alert is pending', async () => {
        return (await prometheus.query('ALERTS{alertname="LapidaryFeedStale"}')).length === 1;
      });
      await engine.start();
      await until('the alert is over', async () => {
        return (await prometheus.query('ALERTS{alertname="LapidaryFeedStale"}')).length === 0;
      });
    } finally {
      await prometheus.close();
    }
  });
});

describeWith('a firewall bouncer that stops', ['lab', 'netns', 'prometheus'], () => {
  test('is an alert until it is back', async () => {
    const engine = await startEngine();
    const lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
    });
    const own = await mkdtemp(join(tmpdir(), 'lapidary-rules-'));
    const key = await lapidary.addBouncer('fw');
    const bouncer = await startFirewallBouncer({ url: lapidary.url, key, updateFrequency: '1s' });
    const body = { name: 'prometheus', role: 'metrics', expires_in: '1h' };
    const { token } = (await lapidary.operator('POST', '/operator-tokens', body)).body;
    // As the alert says: five of the bouncer's intervals.
    const text = readFileSync(rules, 'utf8');
    const silent = text.slice(text.indexOf('LapidaryBouncerSilent'));
    const quick = silent.replace('> 300', '> 5').replace('for: 1m', 'for: 1s');
    expect(quick).not.toBe(silent);
    await writeFile(join(own, 'rules.yml'), text.replace(silent, quick));
    const prometheus = await startPrometheus(lapidary.url, token, join(own, 'rules.yml'));
    const alerts = async (): Promise<number> => {
      const firing = 'ALERTS{alertname="LapidaryBouncerSilent",bouncer="fw",alertstate="firing"}';
      return (await prometheus.query(firing)).length;
    };
    try {
      const pulls = 'cs_lapi_bouncer_requests_total{route="/v1/decisions/stream"} > 2';
      await until('it polls', async () => (await prometheus.query(pulls)).length === 1);
      expect(await alerts()).toBe(0);
      await bouncer.stop();
      await until('it is an alert', async () => (await alerts()) === 1);
      await bouncer.restart();
      await until('the alert is over', async () => (await alerts()) === 0);
    } finally {
      await prometheus.close();
      await bouncer.close();
      await lapidary.close();
      await engine.close();
      await rm(own, { recursive: true, force: true });
    }
  });
});
