// Looks at what operators want to be told of, says it, and has it sent. It runs in the feed's object with its rounds and
// costs a poll nothing: who was seen is read from the clients, a page in each turn. While there is no webhook, nothing is
// looked at.

import { statusOf, type Engine } from '../engines/engines.ts';
import type { Settings } from '../config/settings.ts';
import { causeOf } from '../http/failure.ts';
import type { Store } from '../mirror/mirror.ts';
import { sinceMs } from '../runtime/clock.ts';
import type { AuditHead } from '../store/audit.sql.ts';
import type { Clients } from '../stream/clients.ts';
import type { AuditMemory } from '../writer/revocations.sql.ts';
import { forgetTimes, judge, noAlarms, type Alarms, type Judged } from './alarms.ts';
import { createAuditWatch } from './audit.ts';
import { bouncerIdIn, createBouncerWatch, readBouncers, type SeenBouncers } from './bouncers.ts';
import { networkFor, type Network, type Outcome } from './delivery.ts';
import { namesOf, readExpiring, readHostTrouble, readSilentAfter } from './facts.sql.ts';
import type { EventType, Found, Item } from './kinds.ts';
import * as log from './log.sql.ts';
import { createSender } from './sender.ts';
import type { Awake } from './silence.ts';
import { createTargets } from './targets.ts';
import { describeKey, engineTrouble, hostTrouble, type Trouble } from './trouble.ts';

const lookEveryMs = 10_000;
/** How often hosts are looked at, and what operators have set of bouncers: that takes questions of D1. */
const hostsEveryMs = 60_000;
/** How often the ends of keys are, so that those of many are said together. */
const keysEveryMs = 300_000;
/** D1 may have a change so long after its time. */
const lateMs = 30_000;
/** After so long without a look, and three rounds, we were away. */
const mostPauseMs = 120_000;

/** What is looked at. */
export interface Sights {
  readonly store: Store;
  readonly engines: readonly Engine[];
  readonly clients: Clients;
  /** What is remembered of the audit log. */
  readonly audit: () => Promise<AuditMemory>;
  /** Its newest row, as far as it is known without a question. */
  readonly head: () => AuditHead;
}

/** Something that is said. */
interface Said {
  readonly type: EventType;
  readonly item: Item;
  readonly subject?: string;
}

export type Watch = ReturnType<typeof createWatch>;

export function createWatch(
  storage: DurableObjectStorage,
  env: Env,
  { store, engines, clients, audit, head }: Sights,
  settings: Settings,
) {
  const { sql } = storage;
  const d1 = env.DB;
  const network = networkFor(env, settings);
  const readTargets = createTargets(d1, settings.bootstrap, head);
  const readAudit = createAuditWatch(d1, audit);
  const longestPauseMs = Math.max(mostPauseMs, 3 * settings.syncIntervalMs);
  let kept: Kept | null = null;
  /** Not when the object starts, which must not fail where its storage can't be written. */
  const open = (): Kept => (kept ??= openKept(storage, network, settings));
  let hosts: Trouble = { wrong: [], items: new Map() };
  let hostsMs = -Infinity;
  let setMs: ReadonlyMap<number, number> = new Map();
  /** Of this process; undefined: it has not looked yet. */
  let restart: Awake['restart'] | undefined;
  let triedMs = -Infinity;
  let looking = false;
  let failing = false;
  /** How often bouncers were forgotten: what was read before does not count. */
  let forgotten = 0;

  /** Reads hosts, and what is set of bouncers, where it is time. */
  const readHosts = async (nowMs: number): Promise<Trouble> => {
    if (sinceMs(hostsMs, nowMs) < hostsEveryMs) return hosts;
    hosts = hostTrouble(await readHostTrouble(d1, nowMs));
    setMs = await readSilentAfter(d1);
    hostsMs = nowMs;
    return hosts;
  };

  /** What became of keys since the last time, and up to when. */
  const readKeys = async (untilMs: number, nowMs: number): Promise<{ said: Said[]; untilMs: number }> => {
    const toMs = nowMs - lateMs;
    // The clock was set back: what was said in the time that comes again is said once more.
    const fromMs = Math.min(untilMs, toMs);
    if (untilMs <= toMs && toMs - fromMs < keysEveryMs) return { said: [], untilMs };
    const { expiring, expired } = await readExpiring(d1, fromMs, toMs);
    const said: Said[] = [
      ...expiring.map((key): Said => ({ type: 'key.expiring', item: describeKey(key) })),
      ...expired.map((key): Said => ({ type: 'key.expired', item: describeKey(key) })),
    ];
    return { said, untilMs: toMs };
  };

  /** What is said of each subject. One that nobody can name, and a bouncer that may not poll, is left out. */
  const describe = async (
    { bouncerWatch }: Kept,
    judged: Judged,
    items: Trouble['items'],
    bouncers: SeenBouncers,
    nowMs: number,
  ): Promise<Said[]> => {
    const all = [...judged.begun, ...judged.over];
    const ids = all.flatMap(({ subject }) => bouncerIdIn(subject) ?? []);
    const names = await namesOf(d1, ids, nowMs);
    const itemOf = (type: EventType, subject: string): Item | undefined => {
      const id = bouncerIdIn(subject);
      if (id === null) return items.get(subject);
      const name = names.get(id);
      const isSaid = type !== 'bouncer.silent' || bouncerWatch.isUnexcused(id, name !== undefined, nowMs);
      return name !== undefined && isSaid ? bouncerWatch.describe(id, name, bouncers) : undefined;
    };
    return all.flatMap(({ type, subject }): Said[] => {
      const item = itemOf(type, subject);
      return item ? [{ type, subject, item }] : [];
    });
  };

  /** Nobody wants to be told: what is known now is nobody's news later. */
  const rest = (state: Kept): void => {
    if (state.look === null) return;
    log.deleteLook(sql);
    log.writeRaised(sql, [...state.alarms.raised.keys()], new Map());
    state.alarms = noAlarms;
    state.look = null;
  };

  const lookAround = async (): Promise<void> => {
    const before = forgotten;
    const state = open();
    const { sender, bouncerWatch } = state;
    const targets = await readTargets(Date.now());
    sender.take(targets);
    if (targets.length === 0) return rest(state);
    const bouncers = await readBouncers(store, clients);
    const nowMs = Date.now();
    const hostsNow = await readHosts(nowMs);
    const auditNow = await readAudit(nowMs, state.alarms.raised.has('audit'));
    const keys = await readKeys(state.look?.keysUntilMs ?? nowMs - lateMs, nowMs);
    const { look, alarms } = state;
    const isAwake = look !== null && nowMs >= look.lookedMs && nowMs - look.lookedMs <= longestPauseMs;
    const awakeSinceMs = isAwake && look ? look.awakeSinceMs : nowMs;
    const restartNow =
      !isAwake || !look ? null : restart === undefined ? { atMs: nowMs, lookedMs: look.lookedMs } : restart;
    const awake: Awake = { sinceMs: awakeSinceMs, restart: restartNow };
    const news = bouncerWatch.learn(bouncers, awakeSinceMs);
    const enginesNow = engineTrouble(engines.map((engine) => statusOf(engine, store, nowMs)));
    const silent = bouncerWatch.silent(bouncers, setMs, alarms, awake, nowMs);
    const wrong = [...silent, ...enginesNow.wrong, ...hostsNow.wrong, ...auditNow.wrong];
    const known = isAwake ? alarms : forgetTimes(alarms);
    const judged = judge(known, wrong, nowMs);
    const items = new Map([...enginesNow.items, ...hostsNow.items, ...auditNow.items]);
    const said = await describe(state, judged, items, bouncers, nowMs);
    if (forgotten !== before) return;
    const next = withoutUnsaid(known, judged, said);
    const now = { lookedMs: nowMs, awakeSinceMs, keysUntilMs: keys.untilMs };
    const committed = storage.transactionSync(() => {
      const all = [sender.add(together([...said, ...keys.said]), nowMs), bouncerWatch.keep(news)];
      log.writeRaised(sql, [...judged.begun.map(({ subject }) => subject), ...judged.ended], next.raised);
      log.writeLook(sql, now);
      return all;
    });
    for (const each of committed) each();
    state.alarms = next;
    state.look = now;
    restart = restartNow;
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

  /** Null: it was not opened before, and can not be now. */
  const openIfPossible = (): Kept | null => {
    try {
      return open();
    } catch {
      return null;
    }
  };

  const forget = (from: number, to: number): void => {
    const isGone = (subject: string): boolean => {
      const id = bouncerIdIn(subject);
      return id !== null && id >= from && id <= to;
    };
    forgotten++;
    const state = openIfPossible();
    if (!state) return;
    const { bouncerWatch, alarms } = state;
    bouncerWatch.forget(from, to);
    const gone = [...alarms.raised.keys()].filter(isGone);
    if (gone.length === 0) return;
    const raised = new Map([...alarms.raised].filter(([subject]) => !isGone(subject)));
    state.alarms = { ...alarms, raised };
    log.writeRaised(sql, gone, raised);
  };

  return {
    /** Looks, at most every 10 s, and begins to send what is due. Waits for no receiver. */
    async run(): Promise<void> {
      await tryToLook();
      kept?.sender.send();
    },
    forgetBouncer: (id: number): void => forget(id, id),
    forgetBouncersAfter: (id: number): void => forget(id + 1, Number.MAX_SAFE_INTEGER),
    /** How the messages of some targets go, in their order; null: nothing is known of one yet. */
    deliveries: (asked: Parameters<Sender['deliveries']>[0]): ReturnType<Sender['deliveries']> =>
      openIfPossible()?.sender.deliveries(asked) ?? asked.map(() => null),
    /** Sends a webhook a message of no meaning. Null: there is no such webhook. */
    async test(name: string): Promise<Outcome | null> {
      const { sender } = open();
      const targets = await readTargets(Date.now());
      sender.take(targets);
      const target = targets.find((each) => each.name === name);
      if (!target) return null;
      const outcome = await sender.test(target);
      if (outcome.problem === null) sender.send();
      return outcome;
    },
  };
}

/** What is kept in the object's storage, and what was read of it. */
interface Kept {
  readonly sender: Sender;
  readonly bouncerWatch: ReturnType<typeof createBouncerWatch>;
  look: log.Look | null;
  alarms: Alarms;
}

type Sender = ReturnType<typeof createSender>;

/** Throws if the storage can't be written the first time. */
function openKept(storage: DurableObjectStorage, network: Network, { privateWebhooks }: Settings): Kept {
  const { sql } = storage;
  log.createTables(sql);
  return {
    sender: createSender(sql, network, privateWebhooks),
    bouncerWatch: createBouncerWatch(sql),
    look: log.readLook(sql),
    alarms: { ...noAlarms, raised: log.readRaised(sql) },
  };
}

/** What was not said has to be judged anew, and keeps nothing else waiting. */
function withoutUnsaid(before: Alarms, { next, begun }: Judged, said: readonly Said[]): Alarms {
  const subjects = new Set(said.map(({ subject }) => subject));
  const types = new Set(said.map(({ type }) => type));
  const raised = new Map(next.raised);
  for (const { subject } of begun) if (!subjects.has(subject)) raised.delete(subject);
  const saidNow = [...next.saidMs].filter(([type]) => types.has(type));
  return { ...next, raised, saidMs: new Map([...before.saidMs, ...saidNow]) };
}

/** What is said of one type goes together. */
function together(said: readonly Said[]): Found[] {
  return [...Map.groupBy(said, ({ type }) => type)].map(([type, all]) => ({
    type,
    items: all.map(({ item }) => item),
  }));
}
