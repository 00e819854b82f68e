// The engine's database is replaced under Lapidary: by an empty one, whose ids begin at 1 again, and by the old
// one, restored. No ban may be lost, and what the new database says must count.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Poller, pullList, startPoller, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

describeWith('an engine whose database is replaced', ['lab'], () => {
  const old = Array.from({ length: 6 }, (_, index) => `192.0.2.${index + 1}`);
  let engine: Engine;
  let lapidary: Lapidary;
  let edge: Lapi;
  let polling: Poller;
  let starting: Poller;

  beforeEach(async () => {
    engine = await startEngine();
    for (const value of old) await engine.ban(value);
    const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream });
    edge = { url: lapidary.url, key: await lapidary.addBouncer('edge') };
    polling = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('polling') });
    const key = await lapidary.addBouncer('starting');
    starting = startPoller({ url: lapidary.url, key }, { startup: true });
    await polling.untilHas({ banned: old });
    await starting.untilHas({ banned: old });
  });
  afterEach(async () => {
    await polling?.stop();
    await starting?.stop();
    await lapidary?.close();
    await engine?.close();
  });

  async function bothHave(expected: { banned?: string[]; free?: string[] }) {
    await polling.untilHas(expected);
    await starting.untilHas(expected);
  }

  function expectNothingLost(since: { polling: number; starting: number }, ended: string[] = []) {
    for (const poller of [polling, starting]) {
      expect(poller.failures()).toEqual([]);
      expect([...poller.ended()].sort()).toEqual([...ended].sort());
    }
    expect(polling.lacked(old, since.polling)).toEqual([]);
    expect(starting.lacked(old, since.starting)).toEqual([]);
  }

  async function replace(change: () => Promise<void>) {
    await engine.stop();
    await change();
    await engine.start();
  }

  it('by an empty one: nothing is lost, and bans and unbans go on beside', async () => {
    const since = { polling: polling.answers(), starting: starting.answers() };
    await replace(engine.emptyDatabase);
    await lapidary.sync({ full: true });
    await lapidary.sync({ full: true });
    await until('the feed says that the list looks like another database', async (saw) => {
      const [engine] = (await lapidary.feed()).engines;
      saw(engine);
      return /another database/.test(engine.last_error ?? '');
    });
    expectNothingLost(since);

    // Ids 1 and 2, which the mirror knows as others' already.
    await engine.ban('198.51.100.1');
    await engine.ban('198.51.100.2');
    await bothHave({ banned: [...old, '198.51.100.1', '198.51.100.2'] });
    await engine.unban('198.51.100.1');
    await bothHave({ banned: [...old, '198.51.100.2'], free: ['198.51.100.1'] });
    expectNothingLost(since, ['198.51.100.1']);
    expect(valuesOf(await pullList(edge))).toEqual([...old, '198.51.100.2'].sort());
  });

  it('by one that has decisions already when it is seen first: their ids are taken, nothing is lost', async () => {
    const since = { polling: polling.answers(), starting: starting.answers() };
    await replace(engine.emptyDatabase);
    for (const host of [1, 2, 3]) await engine.ban(`198.51.100.${host}`);
    await bothHave({ banned: [...old, '198.51.100.1', '198.51.100.2', '198.51.100.3'] });
    expectNothingLost(since);
    const ids = (await pullList(edge)).map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('by one that has outgrown the old one before it is seen: nothing is lost', async () => {
    const since = { polling: polling.answers(), starting: starting.answers() };
    await replace(async () => {
      await engine.emptyDatabase();
      const rows = Array.from({ length: 50 }, (_, index) => `198.51.100.${index + 1}`);
      const shared = { duration: '24h', scope: 'ip', type: 'ban', reason: 'lab' };
      await engine.start();
      await engine.importDecisions(rows.map((value) => ({ ...shared, value })));
    });
    // A delta of the feed's own in the middle of the import may have lost some of it, as LAPI's deltas do.
    await lapidary.sync({ full: true });
    await lapidary.sync({ full: true });
    await bothHave({ banned: ['198.51.100.1', '198.51.100.50'] });
    await polling.untilAnswered(2);
    await starting.untilAnswered(2);
    expectNothingLost(since);
  });

  it('by the old one, after an empty one: the mirror is what it was', async () => {
    const since = { polling: polling.answers(), starting: starting.answers() };
    const before = (await pullList(edge)).map(({ id, value }) => [id, value]);
    await engine.stop();
    const saved = await engine.copyDatabase();
    await engine.emptyDatabase();
    await engine.start();
    await engine.ban('198.51.100.1');
    await bothHave({ banned: [...old, '198.51.100.1'] });

    await replace(saved.restore);
    await until('the edge has what the restored database has', async (saw) => {
      await lapidary.sync({ full: true });
      const now = (await pullList(edge)).map(({ id, value }) => [id, value]);
      saw(now);
      return JSON.stringify(now) === JSON.stringify(before);
    });
    await bothHave({ banned: old, free: ['198.51.100.1'] });
    expectNothingLost(since, ['198.51.100.1']);

    await engine.ban('198.51.100.9');
    await engine.unban(old[0]!);
    await bothHave({ banned: [...old.slice(1), '198.51.100.9'], free: [old[0]!] });
  });

  it('an operator who forces its list removes what the old one banned', async () => {
    await replace(engine.emptyDatabase);
    await engine.ban('198.51.100.1');
    await bothHave({ banned: [...old, '198.51.100.1'] });
    await lapidary.sync({ full: true, force: true });
    await bothHave({ banned: ['198.51.100.1'], free: old });
  });
});
