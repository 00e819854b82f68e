// Engines on each database that LAPI can have. MariaDB notes times in whole seconds, so a ban of the second of a pull is in
// no delta, ever; the others lose only what waits for its turn to be written. Every ban has to arrive in time all the same.
// In time means by rounds of sync, not by a clock: a ban that was committed before a round began is in what a bouncer gets
// once the round after that one has ended.
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { login, postAlert } from '../lab/alert.ts';
import type { DatabaseKind } from '../lab/database-server.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Liar, sendInstead, startLiar } from '../lab/liar.ts';
import { pullList, pullStream, valuesOf } from '../lab/poller.ts';
import { randomFrom } from '../lab/random.ts';
import { until } from '../lab/wait.ts';

const seed = 20_260_731;
const alerts = 200;
const bansPerAlert = 5;
const lastsMs = 24_000;
const poolSize = 4;

/** Bouncer of an edge, and what it has been told so far. */
function newBouncer(edge: Lapi) {
  const banned = new Set<string>();
  let started = false;
  return {
    banned,
    async poll() {
      const answer = await pullStream(edge, started ? '' : 'startup=true');
      started = true;
      for (const { value } of answer.deleted ?? []) banned.delete(value);
      for (const { value } of answer.new ?? []) banned.add(value);
    },
  };
}

describeWith('an engine on SQLite', ['lab'], () => followsEngineOn('sqlite'));
describeWith('an engine on PostgreSQL', ['databases'], () => followsEngineOn('postgresql'));
describeWith('an engine on MariaDB', ['databases'], () => followsEngineOn('mariadb'));

function followsEngineOn(database: DatabaseKind): void {
  let engine: Engine;
  let liar: Liar;
  let lapidary: Lapidary | undefined;
  beforeEach(async () => {
    engine = await startEngine({ database });
    liar = await startLiar(engine);
  });
  afterEach(async () => {
    await lapidary?.close();
    await liar?.close();
    await (engine as Engine | undefined)?.close();
  });

  async function begin(settings: Record<string, string>): Promise<Lapidary> {
    const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream, settings });
    return lapidary;
  }
  const untilFresh = (edge: Lapidary) =>
    until('the feed is fresh', async () => (await edge.health()).feed === 'fresh');

  it('is followed: of 1,000 bans at random moments none is late', async () => {
    const edge = await begin({ SYNC_INTERVAL_SECONDS: '2' });
    await untilFresh(edge);
    const bouncer = newBouncer({ url: edge.url, key: await edge.addBouncer('bouncer') });
    await bouncer.poll();

    /** Each ban with the number of pulls that had begun when it was committed. */
    const committed = new Map<string, number>();
    const late = new Set<string>();
    let problem: unknown;
    // A round begins with its pull of the stream; while that one waits, the round before has ended.
    liar.onArrival(async (subject, count) => {
      if (subject !== 'stream') return;
      await bouncer.poll().catch((error: unknown) => (problem ??= error));
      for (const [value, pulls] of committed) {
        if (pulls + 3 <= count && !bouncer.banned.has(value)) late.add(value);
      }
    });

    const token = await login(engine);
    const random = randomFrom(seed);
    const moments = Array.from({ length: alerts }, () => random() * lastsMs).sort((a, b) => a - b);
    const startMs = Date.now();
    async function banSome() {
      for (let moment = moments.shift(); moment !== undefined; moment = moments.shift()) {
        const first = moments.length * bansPerAlert;
        await delay(Math.max(0, startMs + moment - Date.now()));
        const values = Array.from(
          { length: bansPerAlert },
          (_, at) => `2001:db8::${(first + at + 1).toString(16)}`,
        );
        await postAlert(engine, { decisions: values.map((value) => ({ value })) }, token);
        const pulls = liar.asked('stream');
        for (const value of values) committed.set(value, pulls);
      }
    }
    await Promise.all(Array.from({ length: poolSize }, banSome));
    const last = liar.asked('stream') + 3;
    await until('the rounds for the last ban have ended', () => liar.asked('stream') > last);

    expect(problem).toBeUndefined();
    expect(committed.size).toBe(alerts * bansPerAlert);
    expect([...late].slice(0, 10)).toEqual([]);
    expect([...committed.keys()].filter((value) => !bouncer.banned.has(value))).toEqual([]);
    // A set: what the engine's database refused at first it may have twice.
    const listed = await pullList({ url: edge.url, key: await edge.addBouncer('lister') });
    expect([...new Set(valuesOf(listed))]).toEqual([...committed.keys()].sort());
    const key = await edge.addBouncer('looker');
    const unseen: string[] = [];
    const asking = [...committed.keys()];
    async function lookSomeUp() {
      for (let value = asking.pop(); value !== undefined; value = asking.pop()) {
        const answer = await fetch(`${edge.url}/v1/decisions?ip=${value}`, { headers: { 'x-api-key': key } });
        if ((await answer.json()) === null) unseen.push(value);
      }
    }
    await Promise.all(Array.from({ length: poolSize }, lookSomeUp));
    expect(unseen).toEqual([]);
  });

  it('has what is posted through the edge in the very second of a pull', async () => {
    // No round but those that a post brings by itself.
    const edge = await begin({ SYNC_INTERVAL_SECONDS: '3600', RESYNC_INTERVAL_SECONDS: '86400' });
    await edge.sync({ full: true });
    const reader = { url: edge.url, key: await edge.addBouncer('reader') };
    const through = { url: edge.url, machine: engine.machine };
    const token = await login(through);
    const posted: string[] = [];
    for (let post = 1; post <= 8; post++) {
      // A pull early in a second, and a post late in the same one.
      await delay(1000 - (Date.now() % 1000));
      await edge.sync();
      await delay(800 - (Date.now() % 1000));
      posted.push(`192.0.2.${post}`);
      await postAlert(through, { decisions: [{ value: `192.0.2.${post}` }] }, token);
      await until('the list has what was posted', async (saw) => {
        const has = valuesOf(await pullList(reader));
        saw(has);
        return posted.every((value) => has.includes(value));
      });
    }
  });

  if (database === 'sqlite') return;
  it('that has lost it refuses everybody: no new key is asked for', async () => {
    const edge = await begin({});
    await untilFresh(edge);
    await engine.databaseServer!.stop();
    const engineIs = async (saw: (thing: unknown) => void) => {
      const [said] = (await edge.feed()).engines;
      saw(said);
      return said as { state: string; last_error: string | null };
    };
    // At first it may still answer 500: it knew the key a moment ago.
    const { last_error: said } = await until('the feed is refused', async (saw) => {
      const is = await engineIs(saw);
      return is.last_error?.includes('403') && is;
    });
    expect(said).toMatch(/key/i);
    expect(said).toMatch(/database/i);
    expect(JSON.stringify(await edge.health())).not.toMatch(/key/);
    // Before anybody has logged in, nobody is told where the database is and whose.
    const { port, user, name } = engine.databaseServer!;
    const body = JSON.stringify({ machine_id: 'nobody', password: 'wrong', scenarios: [] });
    const login = async (url: string) => {
      const headers = { 'user-agent': 'crowdsec/v1' };
      const answer = await fetch(`${url}/v1/watchers/login`, { method: 'POST', headers, body });
      return { status: answer.status, text: await answer.text() };
    };
    expect((await login(engine.url)).text).toContain(String(port));
    const refused = await login(edge.url);
    expect(refused.status).toBe(503);
    for (const secret of ['127.0.0.1', String(port), user, name]) expect(refused.text).not.toContain(secret);

    await engine.databaseServer!.start();
    await until('the feed is well again', async (saw) => (await engineIs(saw)).state === 'ok');
    await engine.ban('192.0.2.1');
    const reader = { url: edge.url, key: await edge.addBouncer('reader') };
    await until('the ban is here', async () => valuesOf(await pullList(reader)).includes('192.0.2.1'));
  });
}

describeWith('a new installation', ['lab'], () => {
  it('has its first ban within two syncs, whatever the deltas lose', async () => {
    const engine = await startEngine();
    const liar = await startLiar(engine);
    let lapidary: Lapidary | undefined;
    try {
      const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
      lapidary = await startLapidary({ upstream, settings: { SYNC_INTERVAL_SECONDS: '10' } });
      const edge = lapidary;
      await until('the feed is fresh', async () => (await edge.health()).feed === 'fresh');
      const bouncer = newBouncer({ url: edge.url, key: await edge.addBouncer('bouncer') });
      await bouncer.poll();
      liar.lie(
        sendInstead(() => '{"new":null,"deleted":null}'),
        'stream',
      );
      await engine.ban('192.0.2.1');
      const pulls = liar.asked('stream');
      const ended = Promise.withResolvers<void>();
      liar.onArrival(async (subject, count) => {
        if (subject !== 'stream' || count !== pulls + 3) return;
        await bouncer.poll().then(ended.resolve, ended.reject);
      });
      await ended.promise;
      expect([...bouncer.banned]).toEqual(['192.0.2.1']);
    } finally {
      await lapidary?.close();
      await liar.close();
      await engine.close();
    }
  });
});
