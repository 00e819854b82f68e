// Usage metrics with a real engine: what a bouncer reports at the edge is in the engine's database and its cscli; an
// engine that has no such route (before 1.6.3) is not asked again and again.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { versionOf } from '../conformance/case.ts';
import { openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

/** As go-cs-bouncer sends it. `packets`: what tells one report from another. */
function reportOf(packets: number): object {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const labels = { ip_type: 'ipv4', origin: 'CAPI' };
  return {
    remediation_components: [
      {
        type: 'crowdsec-firewall-bouncer',
        version: 'v0.0.34',
        os: { name: 'debian', family: 'debian', version: '12' },
        feature_flags: [],
        utc_startup_timestamp: nowSeconds - 900,
        metrics: [
          {
            meta: { window_size_seconds: 900, utc_now_timestamp: nowSeconds },
            items: [
              { name: 'dropped', unit: 'packet', value: packets, labels },
              { name: 'processed', unit: 'byte', value: packets * 1.5, labels: { ip_type: 'ipv4' } },
              // The engine's JSON reader would refuse the whole post for this one.
              { name: 'dropped', unit: 'byte', value: 'many' },
            ],
          },
        ],
      },
    ],
  };
}

describeWith('usage metrics of bouncers, at the engine', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let knows: boolean;
  const bouncers = new Map<string, string>();

  beforeAll(async () => {
    engine = await startEngine();
    knows = versionOf(engine.version).since('1.6.3');
    await engine.ban('192.0.2.1');
    const key = await engine.addBouncer('lapidary');
    lapidary = await startLapidary({ upstream: { url: engine.url, key } });
    for (const name of ['web-1', 'web-2']) bouncers.set(name, await lapidary.addBouncer(name));
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  async function report(name: string, packets: number): Promise<void> {
    const headers = { 'x-api-key': bouncers.get(name) ?? '', 'content-type': 'application/json' };
    const init = { method: 'POST', headers, body: JSON.stringify(reportOf(packets)) };
    const response = await fetch(`${lapidary.url}/v1/usage-metrics`, init);
    expect([response.status, await response.text()]).toEqual([201, '']);
  }

  /** Posts that the engine has answered, by its own log. */
  const posts = (status: number) =>
    engine
      .log()
      .split('\n')
      .filter((line) => line.includes(`POST /v1/usage-metrics HTTP/1.1 ${status}`)).length;

  /** What the engine has of us, or nothing where it keeps no metrics. */
  function stored(): { by: string; metrics: any[] }[] {
    if (!knows) return [];
    const database = openDatabase(engine);
    try {
      const rows = database.prepare('SELECT generated_by, payload FROM metrics ORDER BY id').all();
      return rows.map((row) => ({
        by: String(row['generated_by']),
        metrics: JSON.parse(String(row['payload'])).metrics,
      }));
    } finally {
      database.close();
    }
  }

  const itemsOf = (bouncer: string) =>
    stored()
      .flatMap(({ metrics }) => metrics.flatMap((part) => part.items))
      .filter((item) => item.labels.bouncer === bouncer);

  /** Some rounds of the feed with the engine, over more time than lies between two posts. */
  async function rounds(seconds: number): Promise<void> {
    const synced = async () => Date.parse((await lapidary.feed()).engines[0].last_sync_at);
    const startMs = await synced();
    await until(`the feed has pulled for ${seconds} s`, async () => {
      return (await synced()) - startMs >= seconds * 1000;
    });
  }

  test("get their 201, and are the engine's where it has the route", async () => {
    await report('web-1', 41);
    if (!knows) {
      await until('the engine was asked', () => posts(404) === 1);
      return;
    }
    await until('the engine has it', (saw) => {
      saw(stored());
      return itemsOf('web-1').length === 2;
    });
    expect(stored()).toMatchObject([{ by: 'lapidary' }]);
    expect(itemsOf('web-1')).toEqual([
      {
        name: 'dropped',
        unit: 'packet',
        value: 41,
        labels: { ip_type: 'ipv4', origin: 'CAPI', bouncer: 'web-1' },
      },
      { name: 'processed', unit: 'byte', value: 61.5, labels: { ip_type: 'ipv4', bouncer: 'web-1' } },
    ]);
  });

  test('cost the engine few posts, however many bouncers there are and however often they report', async () => {
    for (let packets = 1; packets <= 20; packets++) {
      for (const name of bouncers.keys()) await report(name, packets);
    }
    await rounds(12);
    if (!knows) {
      expect(posts(404)).toBe(1);
      return;
    }
    await until('the newest of each is there', () =>
      [...bouncers.keys()].every((name) => itemsOf(name).some((item) => item.value === 20)),
    );
    expect(stored().length).toBeLessThanOrEqual(3);
  });

  test('are what cscli shows of the feed, whose row at the engine stays as it was', async () => {
    const database = openDatabase(engine);
    const rows = database.prepare('SELECT name, type, version, last_pull FROM bouncers').all();
    database.close();
    expect(rows).toMatchObject([
      { name: 'lapidary', type: 'lapidary', version: 'v1', last_pull: expect.anything() },
    ]);
    if (!knows) return;
    const file = join(engine.dir, 'config-with-prometheus.yaml');
    const text = await readFile(join(engine.dir, 'config.yaml'), 'utf8');
    await writeFile(
      file,
      text.replace('prometheus: {enabled: false}', 'prometheus: {enabled: true, level: full}'),
    );
    // What it reads from the address is beside what it reads from the database: there is nothing to read.
    const show = ['metrics', 'show', 'bouncers', '--url', `${engine.url}/metrics`];
    const shown = JSON.parse(await engine.cscli('-c', file, ...show, '-o', 'json'));
    expect(shown.bouncers.lapidary.CAPI.dropped.packet).toBeGreaterThanOrEqual(41);
  });

  test('do not hold the feed up, nor fail a bouncer, while the engine is down', async () => {
    await engine.stop();
    await report('web-1', 99);
    await engine.start();
    await until('the feed is well again', async () => (await lapidary.feed()).engines[0].state === 'ok');
    if (knows) {
      await until('the engine has it', () => itemsOf('web-1').some((item) => item.value === 99));
    }
    expect(lapidary.log()).not.toMatch(/usage metrics/);
  });
});
