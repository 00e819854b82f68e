// A large engine: all of it is here after the first full list, and again after a restart.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { residentBytes } from '../bench/cpu.ts';
import { describeWith } from '../lab/ability.ts';
import { insertDecisions } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { pullStream } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

/** LARGE_DECISIONS asks for more: 1,000,000 were seen to arrive, and take some minutes. */
const count = Number(process.env['LARGE_DECISIONS'] ?? 20_000);
const chunk = 100_000;
const patienceMs = 120_000 + count;

describeWith(`an engine with ${count} decisions`, ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  beforeAll(async () => {
    engine = await startEngine();
    for (let from = 0; from < count; from += chunk) {
      const rows = Array.from({ length: Math.min(chunk, count - from) }, (_, at) => ({
        value: `2001:db8::${(1 + ((from + at) >> 16)).toString(16)}:${((from + at) & 0xffff).toString(16)}`,
        seconds: 24 * 3600,
      }));
      insertDecisions(engine, rows);
    }
  }, patienceMs);
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  const lists = () => engine.log().match(/"GET \/v1\/decisions HTTP/g)?.length ?? 0;
  const startUp = async () => {
    const reader = { url: lapidary.url, key: await lapidary.addBouncer(`reader-${Date.now()}`) };
    return new Set((await pullStream(reader, 'startup=true')).new?.map(({ value }) => value)).size;
  };
  const untilFresh = () =>
    until(
      'the feed is fresh',
      async (saw) => {
        const health = await lapidary.health();
        saw(health);
        return health.feed === 'fresh';
      },
      patienceMs,
    );
  async function tell(what: string, startedMs: number): Promise<void> {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    const mb = Math.round(residentBytes((await lapidary.pids()).workerd) / 1e6);
    console.log(`${count} decisions, ${what}: after ${seconds} s; the process has ${mb} MB`);
  }

  it(
    'is mirrored completely in one go, and again after a restart',
    async () => {
      let startedMs = Date.now();
      const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
      lapidary = await startLapidary({ upstream, settings: { SYNC_INTERVAL_SECONDS: '10' } });
      await untilFresh();
      expect((await lapidary.feed()).decisions).toBe(count);
      expect(lists()).toBe(1);
      await tell('mirrored', startedMs);
      startedMs = Date.now();
      expect(await startUp()).toBe(count);
      await tell('told to a bouncer', startedMs);

      await lapidary.stop();
      startedMs = Date.now();
      await lapidary.start();
      expect((await lapidary.feed()).decisions).toBe(count);
      await tell('read from storage', startedMs);
      startedMs = Date.now();
      const again = await lapidary.sync({ full: true });
      expect(again).toMatchObject({ ok: true, added: 0, removed: 0, error: null, warning: null });
      expect(await startUp()).toBe(count);
      await tell('compared and told once more', startedMs);
    },
    5 * patienceMs,
  );
});
