// The feed: the mirror of the engines, as a Durable Object. Its methods are what the Worker may ask of it and each
// delegates: engines.ts has who is mirrored, store.ts keeps, poll.ts decides what a poll carries, clients.ts
// remembers who has had what. One change counter for all: what bans a value is known across the engines.

import { DurableObject } from 'cloudflare:workers';
import { sinceMs } from '../runtime/clock.ts';
import type { AuditHead } from '../store/audit.sql.ts';
import type { StoreMark } from '../store/epoch.sql.ts';
import { causeOf, fail, type Result } from '../http/failure.ts';
import { readSettings, type Settings } from '../config/settings.ts';
import { withinMs } from '../runtime/wait.ts';
import { createAlarm, stayAwake, type Alarm } from './alarm.ts';
import { activeRows, byStrictness, removedUpTo } from '../stream/answer.ts';
import {
  aimAt,
  createBases,
  forgetBases,
  grounded,
  limitsMoved,
  writeBases,
  type Bases,
} from '../stream/basis.ts';
import { createCleaning } from '../writer/cleaning.ts';
import * as clients from '../stream/clients.ts';
import { createClientLog, openClients, type ClientLog } from '../stream/clients.sql.ts';
import { isComplete, isKnown, lookupPatienceMs, startUpPatienceMs, untilKnown } from './cold.ts';
import { advance, isSettled, sameCursor, usable, type Position } from '../stream/cursor.ts';
import { decisionOf, type Decision, type Row } from '../formats/decision.ts';
import * as endsLog from '../writer/revocations.sql.ts';
import type { Commit, CommitAsk } from '../writer/commit.ts';
import { createKeyStore, type KeyStore } from '../writer/writer.ts';
import {
  createEngines,
  hear,
  oldestOf,
  runRounds,
  statusOf,
  worstOf,
  type Engine,
} from '../engines/engines.ts';
import { byHandles, handleOf } from '../mirror/engine-names.ts';
import { countLeftBehind, type LeftBehind } from '../mirror/left-behind.ts';
import * as local from '../mirror/local.ts';
import { settleLocation } from './location.ts';
import * as log from '../mirror/decisions.sql.ts';
import type { Report } from '../engines/metrics.ts';
import { endOf } from '../mirror/memory.ts';
import { openNewKeys, type NewKeys } from '../stream/new-keys.sql.ts';
import { takeTurns } from '../stream/owed.ts';
import { answerOf, nameOf, type Poll } from '../stream/poll.ts';
import type { Cold, FeedStatus, ListAnswer, ListAsk, StreamAnswer, StreamAsk, SyncAsk } from './questions.ts';
import { openRememberedKeys, type Recalled, type RememberedKeys } from '../writer/remembered-keys.ts';
import type { RoundResult, Write } from '../engines/rounds.ts';
import {
  bodyOf,
  keptAnswer,
  renderList,
  smallAnswerRows,
  streamOf,
  type GzipCache,
} from '../stream/snapshot.ts';
import {
  forgetTombstones,
  noteFailedWrite,
  openStore,
  removeAbandoned,
  sweep,
  tryToWrite,
  writeIfPossible,
  type Store,
} from '../mirror/mirror.ts';
import { createMarks, forgettable, mostAtOnce, type Marks } from '../mirror/tombstones.ts';
import { choosesEngines, isLookup, requestKey, type View } from '../mirror/view.ts';

const forgetIntervalMs = 3_600_000;
/** Longer than D1 keeps the answer to a request with an `Idempotency-Key`. */
const onceKeptMs = 25 * 3_600_000;

export class DecisionFeed extends DurableObject<Env> {
  readonly #settings: Settings;
  readonly #store: Store;
  readonly #engines: readonly Engine[];
  readonly #clients: clients.Clients;
  readonly #clientLog: ClientLog;
  readonly #bases: Bases;
  readonly #gzipped: GzipCache = new Map();
  readonly #alarm: Alarm;
  readonly #marks: Marks;
  readonly #newKeys: NewKeys;
  readonly #keys: RememberedKeys;
  readonly #keyStore: KeyStore;
  readonly #clean: (nowMs: number) => Promise<void>;
  #forgotMs = 0;
  /** When a cold feed was first asked; 0: it was not. */
  #contactMs = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#settings = readSettings({ ...env });
    this.#store = openStore(ctx.storage, this.#settings);
    this.#marks = createMarks(this.#store.mirror, Date.now());
    this.#newKeys = openNewKeys(ctx.storage.sql);
    this.#keys = openRememberedKeys(ctx.storage.sql);
    this.#clients = openClients(ctx.storage);
    this.#clientLog = createClientLog(ctx.storage, this.#clients);
    // What such a bouncer had last may be another engine's. Names are in storage by now: so must this be.
    if (this.#store.namesMoved) {
      clients.forgetViews(this.#clients, choosesEngines);
      this.#clientLog.writeAll();
    }
    const { sql } = ctx.storage;
    this.#keyStore = createKeyStore(sql, env.DB, {
      forgetBouncersAfter: (bouncerId) => {
        // A new bouncer must not start where another one was.
        clients.forgetBouncersAfter(this.#clients, bouncerId);
        this.#newKeys.forgetBouncersAfter(bouncerId);
      },
      forgetBouncer: (bouncerId) => {
        clients.forgetBouncer(this.#clients, bouncerId);
        this.#newKeys.forgetBouncer(bouncerId);
      },
      noteNewKey: (key) => {
        // Since a backup was restored nobody knows which names had been there before.
        if (this.lostTails().length === 0) this.#newKeys.add(key, this.#store.mirror.sequence);
      },
      forgetEngineKey: (host) => this.#engines[0]?.keys.forget(host),
      keyDigests: () => this.keyDigests(),
      note: (sightings) => this.note(sightings),
      clientsOf: (bouncerIds) => this.clientsOf(bouncerIds),
      keys: this.#keys,
    });
    this.#clean = createCleaning(sql, env.DB, this.#keyStore, this.#settings);
    this.#bases = createBases(log.readBases(sql), (id, body) => {
      return tryToWrite(this.#store, Date.now(), () => log.writeBasis(sql, id, body)) === null;
    });
    this.#engines = createEngines(ctx.storage, this.#store, this.#settings);
    this.#alarm = createAlarm(ctx.storage, this.#settings.syncIntervalMs, (error) => {
      noteFailedWrite(this.#store, Date.now(), error);
    });
    void ctx.blockConcurrencyWhile(async () => {
      await settleLocation(sql, env.DB, this.#settings.feedLocation, this.#store.state.sequence === 0);
      await this.#alarm.load();
      await this.#alarm.mend();
    });
    if (this.#engines.length === 0) return;
    void stayAwake(this.#alarm, this.#settings.syncIntervalMs, () => this.#round());
  }

  /**
   * Every sync interval: what ended, what the engine has, cursors to storage. The next alarm is set before
   * anything else: a handler that throws seven times is never called again.
   */
  override async alarm(): Promise<void> {
    await this.#alarm.set();
    await this.#round();
  }

  async #round(): Promise<void> {
    const nowMs = Date.now();
    this.#keepHouse(nowMs);
    this.#keys.writeHeard();
    // No alarm comes while this one runs: who is slow must not keep the others waiting.
    const all = [...this.#engines.map(hear), this.#writeClients(nowMs), this.#clean(nowMs)];
    await withinMs(Promise.all(all), this.#settings.syncIntervalMs);
  }

  /** Before every answer, so that none is made from the past. */
  #look(): number {
    const nowMs = Date.now();
    sweep(this.ctx.storage, this.#store, nowMs);
    void this.#alarm.mend();
    return nowMs;
  }

  /** What ended, and what is too old. */
  #keepHouse(nowMs: number): void {
    const { storage } = this.ctx;
    const store = this.#store;
    sweep(storage, store, nowMs);
    const isDue = sinceMs(this.#forgotMs, nowMs) >= forgetIntervalMs;
    const cutoffMs = isDue ? nowMs - this.#settings.tombstoneMs : -Infinity;
    const most = mostAtOnce(this.#settings.maxDecisions);
    const tooOld = forgettable(store.mirror, this.#marks, { most, cutoffMs }, nowMs);
    if (isDue) clients.forgetBefore(this.#clients, cutoffMs);
    if (!isDue && tooOld <= store.mirror.purgedSequence) return;
    writeIfPossible(store, nowMs, () => {
      forgetTombstones(storage, store, tooOld);
      if (!isDue) return;
      log.forgetOnce(storage.sql, nowMs - onceKeptMs);
      this.#forgotMs = nowMs;
      this.#newKeys.forgetUpTo(store.mirror.purgedSequence);
    });
  }

  async #writeClients(nowMs: number): Promise<void> {
    if (!writeBases(this.#bases)) return;
    await this.#clientLog.write(nowMs);
    if (this.#bases.byId.size === 0) return;
    const { sql } = this.ctx.storage;
    try {
      for (const id of forgetBases(this.#bases, clients.basesInUse(this.#clients))) log.deleteBasis(sql, id);
    } catch (error) {
      // They are read once more at the next wake, and forgotten then.
      console.error(`bases can not be deleted: ${causeOf(error).message}`);
    }
  }

  /** A bouncer's poll of the stream. */
  async stream(asked: StreamAsk): Promise<StreamAnswer | Cold> {
    const ask = { ...asked, view: byHandles(asked.view, this.#store.names) };
    if (asked.store) this.#keys.hear(asked.store, Date.now());
    const known = await this.#isKnown(ask.view, ask.startup ? startUpPatienceMs : 0);
    const nowMs = this.#look();
    this.note(ask.sightings);
    const client = clients.noteSighting(this.#clients, ask.poll);
    if (!known && ask.startup) return { kind: 'cold' };
    const slot = requestKey(ask.view);
    const cursor = clients.cursorOf(client, slot);
    const { mirror } = this.#store;
    const { sequence } = mirror;
    const aim = aimAt(this.#bases, mirror, ask.view);
    const now: Position = { sequence, basis: aim.basis };
    const from = ask.startup ? undefined : grounded(this.#bases, usable(cursor, mirror.purgedSequence));

    const nothing = { kind: 'stream', sequence, body: null, gzip: false } as const;
    // Nothing is known of the engines: no change of theirs is, and whoever has no place in the feed gets none yet.
    if (!known && !from) return { ...nothing, settled: false };
    if (from && isSettled(from, now)) return { ...nothing, settled: true };
    const owed = ask.startup ? [] : (cursor?.owed ?? []);
    const since = removedUpTo(mirror, this.#newKeys.madeAt(ask.poll.versionId));
    const poll: Poll = { view: ask.view, startup: ask.startup, from, since, owed };
    const name = nameOf(aim, poll);
    const turn =
      (ask.gzip && keptAnswer(this.#gzipped, name, nowMs, sequence)) ||
      takeTurns(mirror, aim, answerOf(mirror, this.#bases, aim, poll), owed);
    const next = advance(cursor, now, ask, turn.owed);
    clients.setCursor(this.#clients, client, slot, next);
    if (cursor && limitsMoved(this.#bases, cursor, aim) && writeBases(this.#bases)) {
      this.#clientLog.writeNow(client);
    }
    // A body that was cut off for certain takes the cursor back; the client may ask again without `startup`.
    const undo = (): void => {
      if (!sameCursor(clients.cursorOf(client, slot), next)) return;
      clients.setCursor(this.#clients, client, slot, ask.startup ? undefined : cursor);
    };
    const rendering = { name, gzip: ask.gzip, nowMs, endOf: (row: Row) => endOf(mirror, row) };
    const body = await bodyOf(this.#gzipped, turn, rendering, undo);
    return { kind: 'stream', sequence, settled: false, ...body };
  }

  /** A live lookup, or the whole list: active decisions of a view. */
  async list(ask: ListAsk): Promise<ListAnswer> {
    const view = byHandles(ask.view, this.#store.names);
    const { mirror } = this.#store;
    if (ask.store) this.#keys.hear(ask.store, Date.now());
    this.note(ask.sightings);
    clients.noteSighting(this.#clients, ask.poll);
    let nowMs = this.#look();
    // Of one address it is enough to know one decision; a list of some is none.
    const isFound = (): boolean => isLookup(view) && activeRows(mirror, view).length > 0;
    const isCold = (): boolean => !isKnown(this.#engines, this.#store, view) && !isFound();
    if (isCold()) {
      await this.#isKnown(view, lookupPatienceMs);
      nowMs = this.#look();
      if (isCold()) return { kind: 'cold' };
    }
    const end = ask.limit === null ? undefined : ask.offset + ask.limit;
    const rows = activeRows(mirror, view)
      .filter((row) => row.id > ask.idGreaterThan)
      .slice(ask.offset, end);
    if (view.within?.covering) rows.sort(byStrictness);
    const ends = (row: Row): number => endOf(mirror, row);
    if (rows.length > smallAnswerRows) return { kind: 'long', body: streamOf(renderList(rows, nowMs, ends)) };
    return {
      kind: 'short',
      sequence: mirror.sequence,
      decisions: rows.map((row) => ({ ...decisionOf(row), untilMs: ends(row) })),
    };
  }

  /** Notes polls that an isolate answered by itself. */
  note(sightings: readonly clients.Sighting[]): void {
    for (const sighting of sightings) clients.noteSighting(this.#clients, sighting);
  }

  /** Takes what a bouncer reports of itself, to be passed on to the engines that it sees with their next rounds. */
  takeReport(report: Report, engines: readonly string[] | null): void {
    const seen = engines?.map((name) => handleOf(this.#store.names, name)) ?? null;
    for (const { handle, forwarder } of this.#engines) {
      if (seen === null || seen.includes(handle)) forwarder.take(report);
    }
  }

  /**
   * One round of sync now, with one engine or all. `full`: with a comparison of the whole list. `force`: even
   * where it is doubtful; of all engines it also removes the decisions of those that are no longer configured.
   */
  async sync(ask: SyncAsk): Promise<RoundResult> {
    const engines = this.#engines.filter(({ name }) => ask.engine === undefined || ask.engine === name);
    const done = await runRounds(engines, (rounds) =>
      rounds.run({ full: ask.full, belief: ask.force ? 'all' : 'judge' }),
    );
    if (!ask.force || ask.engine !== undefined || !done.ok) return done;
    return { ...done, removed: done.removed + removeAbandoned(this.ctx.storage, this.#store, Date.now()) };
  }

  /** What a machine wrote at an engine is here once this answers, unless the engine is in trouble. */
  async syncAfter(engine: string, write: Write): Promise<RoundResult> {
    const written = this.#engines.filter(({ name }) => name === engine);
    return runRounds(written, (rounds) => rounds.runAfter(write));
  }

  status(): FeedStatus {
    const nowMs = this.#look();
    const { mirror, failedWriteMs } = this.#store;
    const engines = this.#engines.map((engine) => statusOf(engine, this.#store, this.#settings, nowMs));
    return {
      sequence: mirror.sequence,
      decisions: mirror.byId.size,
      tombstones: mirror.removed.length,
      cursors: this.#clients.cursors,
      freshness: worstOf(engines.map(({ freshness }) => freshness)),
      ageSeconds: oldestOf(engines.map(({ ageSeconds }) => ageSeconds)),
      fullAgeSeconds: oldestOf(engines.map(({ fullAgeSeconds }) => fullAgeSeconds)),
      unwritable: failedWriteMs !== null,
      engines,
    };
  }

  /** What no engine vouches for any more. Looks at every decision. */
  leftBehind(): LeftBehind[] {
    const { mirror, engines, names } = this.#store;
    return countLeftBehind(mirror, engines, names);
  }

  /** Takes a key from the default engine's host, sealed (sealed.ts). The next round tries it. */
  async offerEngineKey(host: string, sealed: string): Promise<Result<'registered' | 'unchanged'>> {
    // Whoever asks a feed that had no key is kept for a moment again.
    this.#contactMs = 0;
    const [engine] = this.#engines;
    if (!engine) return fail({ kind: 'unavailable', problem: 'there is no engine: UPSTREAM_URL is not set' });
    return engine.keys.offer(host, sealed);
  }

  /** The SHA-512 of each key that the feed pulls with: no bouncer may have it. */
  async keyDigests(): Promise<string[]> {
    return (await Promise.all(this.#engines.map(({ keys }) => keys.digests()))).flat();
  }

  /** The clients of each of some bouncers, the one seen last first. */
  clientsOf(bouncerIds: readonly number[]): clients.SeenClient[][] {
    return clients.clientsOf(this.#clients, bouncerIds);
  }

  /** Writes a mutation of the key store. */
  commit(ask: CommitAsk): Promise<Commit> {
    return this.#keyStore.commit(ask);
  }

  /** How far the audit log was seen to come. */
  storeHead(): AuditHead {
    return this.#keyStore.head();
  }

  /** Where the key store is, found right; null: it is out of reach. */
  settleStore(): Promise<StoreMark | null> {
    return this.#keyStore.settle();
  }

  /** The keys among some digests that isolates had seen in D1. What is not among them may still be good. */
  recallKeys(digests: readonly string[]): Recalled {
    return this.#keys.recall(digests);
  }

  /** Seals the audit log as far as it has come. */
  async sealAudit(): Promise<endsLog.AuditMemory> {
    const anchor = await this.#keyStore.seal();
    return { anchor, removed: endsLog.readStart(this.ctx.storage.sql), lost: this.lostTails() };
  }

  lostTails(): endsLog.LostTail[] {
    return endsLog.readLostTails(this.ctx.storage.sql);
  }

  acknowledgeLostTails(foundUntilMs: number): void {
    endsLog.acknowledgeLostTails(this.ctx.storage.sql, foundUntilMs, Date.now());
  }

  /** Bans here. The same `request` again within a day gets the same decision. */
  addLocal(decision: Omit<Decision, 'id' | 'origin'>, request: string | null = null): Decision {
    return local.ban(this.ctx.storage, this.#store, decision, request);
  }

  /** Takes back what was decided here. What only an engine can take back is counted instead. */
  removeLocal(match: local.Match, request: string | null = null): local.Removal {
    this.#look();
    return local.unban(this.ctx.storage, this.#store, match, request);
  }

  /** Active decisions after an id, by id: a page of the operator's list. */
  page(afterId: number, limit: number): local.Listed[] {
    this.#look();
    return local.page(this.#store, afterId, limit);
  }

  /** Whether a view is known, after a wait where it is not. Starts a round at the first contact. */
  async #isKnown(view: View, patienceMs: number): Promise<boolean> {
    const engines = this.#engines;
    if (isComplete(engines, this.#store, view)) return true;
    if (this.#contactMs === 0) {
      this.#contactMs = Date.now();
      for (const engine of engines) void hear(engine);
    }
    return untilKnown(engines, this.#store, view, this.#contactMs, patienceMs);
  }
}
