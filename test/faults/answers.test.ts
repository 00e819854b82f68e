// Whatever stands between Lapidary and its engine answers: while it lies, bouncers are served the last good
// state; when it stops, they get what happened meanwhile, even what the engine counts as delivered.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Liar, type LieName, lies, sendInstead, startLiar } from '../lab/liar.ts';
import { type Poller, startPoller } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

/** How the feed describes each lie; `atOnce`: where it is about deltas, too. One that is `ok` is a good answer of doubtful content, or of elements that are none. */
const expected: Record<
  LieName,
  { state: 'failing' | 'refused' | 'ok'; says: RegExp | null; atOnce?: RegExp }
> = {
  'status 500': { state: 'failing', says: /answers with status 500/ },
  'status 403': {
    state: 'refused',
    says: /status 403: it does not know UPSTREAM_API_KEY, or its database is down/,
  },
  'silence before the headers': { state: 'failing', says: /silent/ },
  'silence in mid-body': { state: 'failing', says: /silent/ },
  'a body cut before its Content-Length': { state: 'failing', says: /out of reach|cut off/ },
  'a chunked body without its end': { state: 'failing', says: /out of reach|cut off/ },
  'an empty object': { state: 'failing', says: /wrong kind of list/ },
  'a bare empty array for the stream': { state: 'failing', says: /wrong kind of list/ },
  'a page of HTML': { state: 'failing', says: /stands before the engine answers with status 200/ },
  'an empty body': { state: 'failing', says: /empty body|cut off/ },
  'empty lists': { state: 'ok', says: /another database/ },
  'empty lists of the chunked dialect': { state: 'ok', says: /another database/ },
  'half of the list': { state: 'ok', says: /misses \d+ of \d+ decisions/ },
  'a redirect to a login page': { state: 'failing', says: /status 302/ },
  'bytes of no meaning': { state: 'failing', says: /can't be read/ },
  // With nothing to read in it the list tells of no database, and the unban is in no delta either.
  'durations that are none': { state: 'ok', says: null, atOnce: /another database/ },
  "a duration beyond Go's own": { state: 'ok', says: null },
};
const names = Object.keys(lies) as LieName[];
const aboutTheList = names.filter((name) => name !== 'a bare empty array for the stream');

describeWith('an engine behind a liar', ['lab'], () => {
  const hosts = Array.from({ length: 12 }, (_, index) => `192.0.2.${index + 1}`);
  const lasting = [...hosts, '203.0.113.0/25', '2001:db8::1', 'FR'];
  /** Each is unbanned during one lie. */
  const passing = Array.from({ length: 40 }, (_, index) => `203.0.113.${128 + index}`);
  let engine: Engine;
  let liar: Liar;
  let lapidary: Lapidary;
  let polling: Poller;
  let starting: Poller;
  let fresh = 0;

  beforeAll(async () => {
    engine = await startEngine();
    liar = await startLiar(engine);
    const row = { duration: '24h', scope: 'ip', type: 'ban', reason: 'lab' };
    await engine.importDecisions([...hosts, ...passing, '2001:db8::1'].map((value) => ({ ...row, value })));
    await engine.ban('203.0.113.0/25');
    await engine.ban('FR', { scope: 'Country' });
    const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream, settings: { UPSTREAM_TIMEOUT_SECONDS: '1' } });
    await lapidary.sync({ full: true });
    polling = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('polling') });
    const key = await lapidary.addBouncer('starting');
    starting = startPoller({ url: lapidary.url, key }, { startup: true });
    await polling.untilHas({ banned: lasting });
    await starting.untilHas({ banned: lasting });
  });
  afterAll(async () => {
    await polling?.stop();
    await starting?.stop();
    await lapidary?.close();
    await liar?.close();
    await engine?.close();
  });

  /** Runs `during` while the liar lies; bouncers must not notice, but for what changes while it does. */
  async function whileLying(name: LieName, about: 'list' | undefined, during: () => Promise<void>) {
    const banned = `198.51.100.${fresh}`;
    const unbanned = passing[fresh++]!;
    const since = { polling: polling.answers(), starting: starting.answers() };
    liar.lie(lies[name], about);
    try {
      await engine.ban(banned);
      await engine.unban(unbanned);
      await during();
      await polling.untilAnswered(2);
      await starting.untilAnswered(2);
    } finally {
      liar.tellTheTruth();
    }
    // After failures the next full list is in no hurry of its own.
    await lapidary.sync({ full: true });
    await polling.untilHas({ banned: [banned], free: [unbanned] });
    await starting.untilHas({ banned: [banned], free: [unbanned] });
    for (const poller of [polling, starting]) {
      expect(poller.failures()).toEqual([]);
      expect(lasting.filter((value) => poller.ended().has(value))).toEqual([]);
    }
    expect(polling.lacked(lasting, since.polling)).toEqual([]);
    expect(starting.lacked(lasting, since.starting)).toEqual([]);
    await untilFeedSays('ok', undefined);
  }

  /** In mid-round the feed may already say what the first half of it found. */
  async function untilFeedSays(state: string, lastError: RegExp | undefined) {
    await until(`the feed is ${state} and says ${lastError}`, async (saw) => {
      const [engine] = (await lapidary.feed()).engines;
      saw(engine);
      const said = lastError ? lastError.test(engine.last_error ?? '') : engine.last_error === null;
      return engine.state === state && said;
    });
  }

  async function checkLie(name: LieName, about: 'list' | undefined) {
    const { state, atOnce } = expected[name];
    const says = (about === undefined && atOnce) || expected[name].says;
    await whileLying(name, about, async () => {
      // Each waits for one that began before it. A list that is silent is waited for longer each time.
      const rounds = name.startsWith('silence') ? 1 : 2;
      for (let round = 0; round < rounds; round++) {
        const { ok, error, warning } = await lapidary.sync({ full: true });
        expect(ok).toBe(state === 'ok');
        if (says) expect(error ?? warning).toMatch(says);
        else expect(error ?? warning).toBeNull();
      }
      await untilFeedSays(state, says ?? undefined);
      const health = await lapidary.health();
      expect(health.status).toBe('up');
      if (state === 'refused')
        await until('/health says so', async () => (await lapidary.health()).upstream === 'refused');
    });
    // A login page was never asked for, least of all with our key.
    expect(liar.asked('elsewhere')).toBe(0);
  }

  it.each(names)('that answers everything with %s', (name) => checkLie(name, undefined));
  it.each(aboutTheList)('that answers the full list with %s', (name) => checkLie(name, 'list'));

  it('that is silent for three syncs: /health says that the feed is stale', async () => {
    await whileLying('silence before the headers', undefined, async () => {
      await until('the feed is stale', async (saw) => {
        const health = await lapidary.health();
        saw(health);
        return health.feed === 'stale' && health.age_seconds >= 3;
      });
    });
    await until('the feed is fresh', async () => (await lapidary.health()).feed === 'fresh');
  });

  it('that repeats half of the list is accepted, and what comes back is served again', async () => {
    const kept = lasting.slice(0, 3);
    const few = sendInstead(({ subject, body }) => {
      if (subject !== 'list') return body;
      const all = JSON.parse(body.toString()) as { value: string }[];
      return JSON.stringify(all.filter(({ value }) => kept.includes(value)));
    });
    liar.lie(few, 'list');
    const { warning } = await lapidary.sync({ full: true });
    expect(warning).toMatch(/misses \d+ of \d+ decisions/);
    await polling.untilHas({ banned: kept, free: lasting.slice(3) });
    liar.tellTheTruth();
    await lapidary.sync({ full: true });
    await polling.untilHas({ banned: lasting });
    expect(polling.failures()).toEqual([]);
  });
});
