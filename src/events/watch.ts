// Looks at what operators want to be told of, says it, and has it sent. It runs in the feed's object with its rounds and
// costs a poll nothing: who was seen is read from the clients, a page in each turn. While there is no webhook, nothing is
// looked at.

import { statusOf, type Engine, type EngineStatus } from '../engines/engines.ts';
import type { Enter } from '../engines/upstream.ts';
import type { Settings } from '../config/settings.ts';
import { causeOf } from '../http/failure.ts';
import type { Store } from '../mirror/mirror.ts';
import { sinceMs } from '../runtime/clock.ts';
import { joined, seenPage, type SeenBouncer } from '../stream/behind.ts';
import type { Clients } from '../stream/clients.ts';
import { forgetTimes, judge, noAlarms, type Alarms, type Judged, type Wrong } from './alarms.ts';
import type { Network, Outcome } from './delivery.ts';
import type { EventType, Found, Item } from './kinds.ts';
import * as log from './log.sql.ts';
import { createSender } from './sender.ts';
import { isNews, isSilent, patienceMs, seen, type Watched } from './silence.ts';
import { createTargets, namesOf } from './targets.ts';

const lookEveryMs = 10_000;
/** After so long without a look, and three rounds, we were away. */
const mostPauseMs = 120_000;

/** What is looked at. */
export interface Sights {
  readonly store: Store;
  readonly engines: readonly Engine[];
  readonly clients: Clients;
}

/** Something that is said. */
interface Said {
  readonly type: EventType;
  readonly subject: string;
  readonly item: Item;
}

export type Watch = ReturnType<typeof createWatch>;

export function createWatch(
  storage: DurableObjectStorage,
  d1: D1Database,
  sights: Sights,
  settings: Settings,
  network: Network,
  turns: () => Enter,
) {
  const { sql } = storage;
  log.createTables(sql);
  const readTargets = createTargets(d1, settings.bootstrap);
  const sender = createSender(storage, network, turns, settings.privateWebhooks);
  const longestPauseMs = Math.max(mostPauseMs, 3 * settings.syncIntervalMs);
  const stored = log.readWatched(sql);
  const watched = new Map<number, Watched>();
  let look = log.readLook(sql);
  let alarms: Alarms = { ...noAlarms, raised: log.readRaised(sql) };
  let triedMs = -Infinity;
  let looking = false;
  let failing = false;
  /** How often bouncers were forgotten: what was read before does not count. */
  let forgotten = 0;

  const engineStates = (nowMs: number): EngineStatus[] =>
    sights.engines.map((engine) => statusOf(engine, sights.store, settings, nowMs));

  const learn = (bouncers: ReadonlyMap<number, SeenBouncer>, awakeSinceMs: number): Map<number, number> => {
    const news = new Map<number, number>();
    for (const [id, { followedMs }] of bouncers) {
      // One that only looks up is asked by its visitors, and not expected.
      if (followedMs === 0) continue;
      const kept = stored.get(id) ?? null;
      const known = seen(watched.get(id), followedMs, awakeSinceMs, kept);
      watched.set(id, known);
      if (known.expectedMs !== null && isNews(kept, known.expectedMs)) news.set(id, known.expectedMs);
    }
    for (const id of watched.keys()) if (!bouncers.has(id)) watched.delete(id);
    return news;
  };

  const silent = (
    bouncers: ReadonlyMap<number, SeenBouncer>,
    awakeSinceMs: number,
    nowMs: number,
  ): Wrong[] => {
    const late = [...watched].filter(
      ([, { seenMs, expectedMs }]) =>
        expectedMs !== null && isSilent(seenMs, patienceMs(expectedMs), awakeSinceMs, nowMs),
    );
    // Whom nobody remembers any more is silent still.
    const gone = [...alarms.raised.keys()].filter((subject) => {
      const id = bouncerIdIn(subject);
      return id !== null && !bouncers.has(id);
    });
    const subjects = [...late.map(([id]) => subjectOf(id)), ...gone];
    return subjects.map((subject) => ({ type: 'bouncer.silent', subject }));
  };

  /** What is said of each subject. One that nobody can name, or that has no key, is left out. */
  const describe = async ({ begun, over }: Judged, nowMs: number): Promise<Said[]> => {
    const all = [...begun, ...over];
    const names = await namesOf(
      d1,
      all.flatMap(({ subject }) => bouncerIdIn(subject) ?? []),
      nowMs,
    );
    const states = new Map(engineStates(nowMs).map((state) => [`engine ${state.name}`, state]));
    return all.flatMap(({ type, subject }): Said[] => {
      const id = bouncerIdIn(subject);
      const name = id === null ? undefined : names.get(id);
      const state = states.get(subject);
      if (name !== undefined)
        return [{ type, subject, item: { name, ...describeWatched(watched.get(id ?? 0)) } }];
      return state ? [{ type, subject, item: describeEngine(state) }] : [];
    });
  };

  const lookAround = async (): Promise<void> => {
    const before = forgotten;
    const targets = await readTargets();
    sender.take(targets);
    if (targets.length === 0) {
      if (alarms.raised.size > 0) log.writeRaised(sql, [...alarms.raised.keys()], new Map());
      alarms = noAlarms;
      watched.clear();
      return;
    }
    const bouncers = await readBouncers(sights);
    const nowMs = Date.now();
    const isAwake = look !== null && nowMs >= look.lookedMs && nowMs - look.lookedMs <= longestPauseMs;
    const awakeSinceMs = isAwake && look ? look.awakeSinceMs : nowMs;
    const news = learn(bouncers, awakeSinceMs);
    const wrong = [...silent(bouncers, awakeSinceMs, nowMs), ...engineStates(nowMs).flatMap(troubleOf)];
    const judged = judge(isAwake ? alarms : forgetTimes(alarms), wrong, nowMs);
    const said = await describe(judged, nowMs);
    if (forgotten !== before) return;
    const next = withoutUnsaid(judged, said);
    storage.transactionSync(() => {
      sender.add(together(said), nowMs);
      log.writeWatched(sql, news);
      log.writeRaised(sql, [...judged.begun.map(({ subject }) => subject), ...judged.ended], next.raised);
      log.writeLook(sql, { lookedMs: nowMs, awakeSinceMs });
    });
    for (const [id, expectedMs] of news) stored.set(id, expectedMs);
    alarms = next;
    look = { lookedMs: nowMs, awakeSinceMs };
  };

  const tryToLook = async (): Promise<void> => {
    if (looking || sinceMs(triedMs, Date.now()) < lookEveryMs) return;
    looking = true;
    triedMs = Date.now();
    try {
      await lookAround();
      failing = false;
    } catch (error) {
      if (!failing) console.error(`webhooks: nothing new is said now: ${causeOf(error).message}`);
      failing = true;
    } finally {
      looking = false;
    }
  };

  const forget = (from: number, to: number): void => {
    const isForgotten = (id: number | null): boolean => id !== null && id >= from && id <= to;
    forgotten++;
    for (const id of [...watched.keys(), ...stored.keys()]) {
      if (!isForgotten(id)) continue;
      watched.delete(id);
      stored.delete(id);
    }
    const gone = [...alarms.raised.keys()].filter((subject) => isForgotten(bouncerIdIn(subject)));
    alarms = {
      ...alarms,
      raised: new Map([...alarms.raised].filter(([subject]) => !gone.includes(subject))),
    };
    log.forgetWatched(sql, from, to);
    if (gone.length > 0) log.writeRaised(sql, gone, alarms.raised);
  };

  return {
    /** Looks, at most every 10 s, and begins to send what is due. Waits for no receiver. */
    async run(): Promise<void> {
      await tryToLook();
      sender.send();
    },
    forgetBouncer: (id: number): void => forget(id, id),
    forgetBouncersAfter: (id: number): void => forget(id + 1, Number.MAX_SAFE_INTEGER),
    /** How the messages of some targets go, in their order; null: nothing is known of one yet. */
    deliveries: sender.deliveries,
    /** Sends a webhook a message of no meaning. Null: there is no such webhook. */
    async test(name: string): Promise<Outcome | null> {
      const targets = await readTargets();
      sender.take(targets);
      const target = targets.find((each) => each.name === name);
      if (!target) return null;
      const outcome = await sender.test(target);
      if (outcome.problem === null) sender.send();
      return outcome;
    },
  };
}

/** All bouncers that are remembered, by id. */
async function readBouncers({ store, clients }: Sights): Promise<Map<number, SeenBouncer>> {
  const all = new Map<number, SeenBouncer>();
  for (let afterRow: number | null = 0; afterRow !== null;) {
    const page = seenPage(clients, store.mirror.sequence, afterRow, Date.now());
    for (const each of page.bouncers) {
      const known = all.get(each.bouncerId);
      all.set(each.bouncerId, known ? joined(known, each) : each);
    }
    afterRow = page.next;
    await scheduler.wait(0);
  }
  return all;
}

function subjectOf(bouncerId: number): string {
  return `bouncer ${bouncerId}`;
}

function bouncerIdIn(subject: string): number | null {
  const [, id] = /^bouncer (\d+)$/.exec(subject) ?? [];
  return id === undefined ? null : Number(id);
}

/** One that refuses our key is stale soon, too: that is not said besides. */
function troubleOf({ name, link, freshness }: EngineStatus): Wrong[] {
  const subject = `engine ${name}`;
  if (link === 'refused') return [{ type: 'engine.refused', subject }];
  const isStale = freshness === 'stale' || (freshness === 'cold' && link === 'failing');
  return isStale ? [{ type: 'engine.stale', subject }] : [];
}

function describeWatched(known: Watched | undefined): Item {
  const expectedMs = known?.expectedMs ?? null;
  return {
    last_seen_at: isoTime(known?.seenMs ?? 0),
    expected_seconds: expectedMs === null ? null : Math.round(expectedMs / 1000),
  };
}

function describeEngine({ name, lastSyncMs, lastResyncMs, lastError }: EngineStatus): Item {
  return {
    name,
    last_sync_at: isoTime(lastSyncMs),
    last_full_list_at: isoTime(lastResyncMs),
    error: lastError,
  };
}

/** 0: never. */
function isoTime(ms: number): string | null {
  return ms === 0 ? null : new Date(ms).toISOString();
}

/** What could not be said has to be judged anew. */
function withoutUnsaid({ next, begun }: Judged, said: readonly Said[]): Alarms {
  const subjects = new Set(said.map(({ subject }) => subject));
  const raised = new Map(next.raised);
  for (const { subject } of begun) if (!subjects.has(subject)) raised.delete(subject);
  return { ...next, raised };
}

/** What is said of one type goes together. */
function together(said: readonly Said[]): Found[] {
  return [...Map.groupBy(said, ({ type }) => type)].map(([type, all]) => ({
    type,
    items: all.map(({ item }) => item),
  }));
}
