// What Prometheus makes of /metrics: its own tool finds no fault in a scrape and in the rules, and the server itself reads
// a live Lapidary with an engine, and raises an alert that ends when its cause does.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { promtool, startPrometheus } from '../lab/prometheus.ts';
import { until } from '../lab/wait.ts';

const folder = join(import.meta.dirname, '../../ops/prometheus');
const rules = join(folder, 'rules.yml');

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
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
    });
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
    const labels = { origin: 'lists:"\n\\', ip_type: 'ipv4' };
    const items = [{ name: 'active_decisions', unit: 'ip', value: 2, labels }];
    const metrics = [{ meta: { window_size_seconds: 900, utc_now_timestamp: 1 }, items }];
    const report = { remediation_components: [{ type: 'fw', version: 'v1', metrics }] };
    await send('/usage-metrics', { method: 'POST', body: JSON.stringify(report) });
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

  test('has each series that the rules and docs/metrics.md name, and no other', async () => {
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
    for (const name of named(rules)) expect(given).toContain(name);
  });

  test('is what Prometheus reads; an engine that is down is an alert until it is back', async () => {
    const prometheus = await startPrometheus(lapidary.url, token, rules);
    try {
      await until('it was scraped', async () => (await prometheus.query('up == 1')).length === 1);
      expect(await prometheus.query('sum(cs_active_decisions)')).toMatchObject([{ value: '2' }]);
      expect(await prometheus.query('lapidary_bouncer_active_decisions')).toMatchObject([
        { labels: { bouncer: 'fw', origin: 'lists:"\n\\', ip_type: 'ipv4' }, value: '2' },
      ]);
      expect(await prometheus.query('lapidary_key_expiry_timestamp_seconds')).toMatchObject([
        { value: '+Inf' },
      ]);
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
