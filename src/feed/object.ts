// The feed as a Durable Object. Its methods are what the Worker may ask, and each one delegates: engines/ has the rounds with
// each engine, mirror/ the decisions, stream/ what a bouncer is answered, writer/ the key store. There is one sequence for
// all engines, so what bans a value is known across them.

import { DurableObject } from 'cloudflare:workers';
import type { AuditHead } from '../store/audit.sql.ts';
import type { StoreMark } from '../store/epoch.sql.ts';
import { fail, type Result } from '../http/failure.ts';
import { readSettings, type Settings } from '../config/settings.ts';
import { withinMs } from '../runtime/wait.ts';
import { createAlarm, stayAwake, type Alarm } from './alarm.ts';
import { createCleaning } from '../writer/cleaning.ts';
import { seenPage, type SeenPage } from '../stream/behind.ts';
import * as clients from '../stream/clients.ts';
import { openCounters, type Audited, type Counters, type Counts } from '../counters/counters.sql.ts';
import type { Step } from '../counters/steps.ts';
import { openUsage, type UsagePage, type UsageReport, type UsageSums } from '../counters/usage.sql.ts';
import type { Decision } from '../formats/decision.ts';
import * as endsLog from '../writer/revocations.sql.ts';
import type { Commit, CommitAsk } from '../writer/commit.ts';
import { sessionSecret } from '../writer/session-secret.sql.ts';
import { createKeyStore, type FeedMemory, type KeyStore } from '../writer/writer.ts';
import * as engines from '../engines/engines.ts';
import { createWatch, type Watch } from '../events/watch.ts';
import { byHandles } from '../mirror/engine-names.ts';
import * as engineEntries from '../mirror/engine-entries.ts';
import * as listing from '../mirror/listing.ts';
import * as local from '../mirror/local.ts';
import { pageOfValues, type ValuesAsk, type ValuesPage } from '../mirror/values.ts';
import { effectOf, sweepAllowList, type AllowEffect } from '../mirror/allow-list.ts';
import { createCensus, statusOf, viewSizes, type LimitedView } from './figures.ts';
import { createFirstSync, type FirstSync } from './first-sync.ts';
import { answerFollow } from './follow.ts';
import { createListing, isListCold } from './list.ts';
import { settleLocation } from './location.ts';
import { createFeedMemory, clock } from './feed-memory.ts';
import { createMaintenance } from './maintenance.ts';
import { openStream } from './open-stream.ts';
import { writeClients } from './write-behind.ts';
import type { Kind } from '../mirror/census.ts';
import type { Report } from '../engines/metrics.ts';
import { openNewKeys, type NewKeys } from '../stream/new-keys.sql.ts';
import type { Mark } from '../stream/invalidated.ts';
import { answerPoll, type Stream, type StreamAnswer } from '../stream/poll.ts';
import type {
  AnyListAnswer,
  Cold,
  FeedStatus,
  Filtered,
  FollowAsk,
  Followed,
  ListAsk,
  StreamAsk,
  SyncAsk,
} from './questions.ts';
import { openRememberedKeys, type Recalled, type RememberedKeys } from '../writer/remembered-keys.ts';
import type { RoundResult, Write } from '../engines/rounds.ts';
import { answerSent, type SentAnswer, type SentAsk, type SentMatch } from '../stream/sent.ts';
import * as mirror from '../mirror/mirror.ts';
import { createKeptFilter } from '../mirror/lookup-filter.ts';

export class DecisionFeed extends DurableObject<Env> {
  readonly #settings: Settings;
  readonly #store: mirror.Store;
  readonly #engines: readonly engines.Engine[];
  readonly #stream: Stream;
  readonly #alarm: Alarm;
  readonly #counters: Counters;
  readonly #usage: UsageSums;
  readonly #maintain: (nowMs: number) => void;
  readonly #newKeys: NewKeys;
  readonly #keys: RememberedKeys;
  readonly #keyStore: KeyStore;
  readonly #clean: (nowMs: number) => Promise<void>;
  readonly #filter: ReturnType<typeof createKeptFilter>;
  readonly #memory: FeedMemory;
  readonly #census: (nowMs: number) => Promise<Kind[]>;
  readonly #watch: Watch;
  readonly #firstSync: FirstSync;
  readonly #listing = createListing();

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { storage } = ctx;
    const { sql } = storage;
    this.#settings = readSettings({ ...env });
    this.#store = mirror.openStore(storage, this.#settings);
    this.#filter = createKeptFilter(this.#store.mirror);
    this.#newKeys = openNewKeys(sql);
    this.#keys = openRememberedKeys(sql);
    this.#counters = openCounters(sql, this.#store.mirror);
    this.#usage = openUsage(sql, this.#counters.isDeleted);
    this.#stream = openStream(storage, this.#store);
    this.#maintain = createMaintenance(this.#store, this.#stream.clients, this.#newKeys, this.#settings);
    this.#memory = createFeedMemory(env.DB, {
      feed: this,
      store: this.#store,
      stream: this.#stream,
      newKeys: this.#newKeys,
      keys: this.#keys,
      engine: () => engines.defaultOf(this.#engines),
      ofBouncers: () => [this.#newKeys, this.#counters, this.#usage, this.#watch],
    });
    this.#keyStore = createKeyStore(sql, env.DB, this.#memory);
    this.#clean = createCleaning(sql, env.DB, this.#keyStore, this.#settings);
    this.#engines = engines.createEngines(this.#store, this.#settings, clock);
    this.#firstSync = createFirstSync(this.#engines, this.#store);
    this.#census = createCensus(this.#store);
    const [audit, head] = [() => this.sealAudit(), () => this.storeHead()];
    const sights = { store: this.#store, engines: this.#engines, clients: this.#stream.clients, audit, head };
    this.#watch = createWatch(storage, env, sights, this.#settings);
    this.#alarm = createAlarm(storage, this.#settings.syncIntervalMs, (error) => {
      mirror.noteFailedWrite(this.#store, Date.now(), error);
    });
    void ctx.blockConcurrencyWhile(async () => {
      const isNew = this.#store.state.sequence === 0;
      await settleLocation(sql, env.DB, this.#settings.feedLocation, isNew);
      // Until it is known what is never banned, nobody is answered.
      if (isNew) await this.#memory.allowList.read();
      await this.#alarm.load();
      await this.#alarm.mend();
    });
    if (this.#engines.length === 0) return;
    void stayAwake(this.#alarm, this.#settings.syncIntervalMs, () => this.#round());
  }

  /** Runs at every sync interval. The next alarm is set first: a handler that throws seven times is never called again. */
  override async alarm(): Promise<void> {
    await this.#alarm.set();
    await this.#round();
  }

  async #round(): Promise<void> {
    const nowMs = Date.now();
    this.#maintain(nowMs);
    this.#keys.writeHeard();
    this.#counters.keep(nowMs);
    // No alarm comes while this one runs, so nothing slow is waited for.
    const all = [
      ...this.#engines.map(engines.syncEngine),
      writeClients(this.ctx.storage.sql, this.#stream, nowMs),
      this.#clean(nowMs),
      this.#memory.allowList.mend(),
      this.#watch.run(),
    ];
    await withinMs(Promise.all(all), this.#settings.syncIntervalMs);
  }

  /** Called before every answer, so that none has rows that have ended. Returns the time. */
  #sweep(): number {
    const nowMs = Date.now();
    mirror.sweep(this.#store, nowMs);
    sweepAllowList(this.#store, clock);
    void this.#alarm.mend();
    return nowMs;
  }

  /** A bouncer's poll of the stream. */
  async stream(ask: StreamAsk): Promise<StreamAnswer | Cold> {
    const view = byHandles(ask.view, this.#store.names);
    if (ask.store) this.#keys.hear(ask.store, Date.now());
    const known = await this.#firstSync.wait(view, ask.startup ? engines.startUpPatienceMs : 0);
    const nowMs = this.#sweep();
    this.note(ask.sightings, ask.mark, ask);
    const client = clients.noteSighting(this.#stream.clients, ask.poll);
    if (!known && ask.startup) return { kind: 'cold' };
    const keyMadeAt = this.#newKeys.madeAt(ask.poll.versionId);
    return answerPoll(this.#stream, client, { ...ask, view, known, keyMadeAt, nowMs });
  }

  /** A live lookup, the whole list, or that of an appliance: active decisions of a view. */
  async list(ask: ListAsk): Promise<AnyListAnswer> {
    const view = byHandles(ask.view, this.#store.names);
    if (ask.store) this.#keys.hear(ask.store, Date.now());
    this.note(ask.sightings, ask.mark, ask);
    clients.noteSighting(this.#stream.clients, ask.poll);
    let nowMs = this.#sweep();
    const isCold = (): boolean => isListCold(this.#engines, this.#store, view, ask);
    if (isCold()) {
      await this.#firstSync.wait(view, engines.lookupPatienceMs);
      nowMs = this.#sweep();
      if (isCold()) return { kind: 'cold' };
    }
    return this.#listing(this.#store.mirror, { ...ask, view }, nowMs);
  }

  /** Notes polls that an isolate answered without asking, and what it has counted. */
  note(
    sightings: readonly clients.ReportedSighting[],
    mark: Mark | null = null,
    { isolate, counts }: Pick<StreamAsk, 'isolate' | 'counts'> = {},
  ): void {
    this.#counters.take(isolate, counts);
    const known = this.#stream.clients;
    const isOurs = mark?.instance === this.#stream.invalidated.instance;
    for (const sighting of sightings) {
      const client = clients.noteSighting(known, sighting);
      if (sighting.moved && isOurs) clients.mergeCursor(known, client, sighting.moved);
    }
  }

  /** What was touched since an isolate last asked. It answers its clients by itself from that. */
  follow(ask: FollowAsk): Followed {
    const nowMs = this.#sweep();
    if (ask.store) this.#keys.hear(ask.store, nowMs);
    this.note(ask.sightings, ask.mark, ask);
    return answerFollow(this.#store, this.#stream, ask, nowMs);
  }

  /**
   * By what an isolate knows that nothing bans an address. Null: an engine's decisions are not known, so an address without
   * a decision may be banned.
   */
  async lookupFilter(): Promise<Filtered | null> {
    if (!engines.areKnown(this.#engines, this.#store)) return null;
    const isForAll = engines.areAllKnown(this.#engines, this.#store);
    return { instance: this.#stream.invalidated.instance, filter: await this.#filter(), isForAll };
  }

  /**
   * Takes a bouncer's report. It is forwarded to the engines of its view (null: all) with their next rounds, and what it says
   * was dropped and processed is added up.
   */
  takeReport(report: Report | null, names: readonly string[] | null, usage?: UsageReport): void {
    if (report) engines.takeReport(this.#engines, this.#store, report, names);
    if (usage) this.#usage.take(usage);
  }

  /**
   * Runs a round of sync now, with one engine or all. `full`: with a full list. `force`: what the list misses is removed
   * without confirmation; with all engines also the decisions of engines that are no longer configured.
   */
  async sync(ask: SyncAsk): Promise<RoundResult> {
    const asked = this.#engines.filter(({ name }) => ask.engine === undefined || ask.engine === name);
    const policy = ask.force ? 'force' : 'confirm';
    const done = await engines.runRounds(asked, (rounds) => rounds.run({ full: ask.full, policy }));
    if (policy !== 'force' || ask.engine !== undefined || !done.ok) return done;
    return { ...done, removed: done.removed + local.removeUnconfigured(this.#store) };
  }

  /** Brings what a machine wrote at an engine into the feed before it answers, unless the engine fails. */
  async syncAfter(engine: string, write: Write): Promise<RoundResult> {
    const written = this.#engines.filter(({ name }) => name === engine);
    return engines.runRounds(written, (rounds) => rounds.runAfter(write));
  }

  status(): FeedStatus {
    return statusOf(this.#store, this.#engines, this.#stream, this.#sweep());
  }

  /** Active decisions by kind, as they were at most 5 s ago. */
  census(): Promise<Kind[]> {
    return this.#census(this.#sweep());
  }

  viewSizes(asked: readonly LimitedView[]): Promise<number[]> {
    return viewSizes(this.#store, asked);
  }

  /** A page of who polls. `afterRow`: 0 begins. */
  seenPage(afterRow: number): SeenPage {
    return seenPage(this.#stream.clients, this.#store.mirror.sequence, afterRow, Date.now());
  }

  /** What was counted for all isolates. */
  counts(): Counts {
    return this.#counters.read(Date.now());
  }

  /** Decisions, changes and polls of the last 24 hours, in steps of five minutes. */
  steps(): readonly Step[] {
    return this.#counters.steps(this.#sweep());
  }

  noteAudited(audited: Audited): void {
    this.#counters.noteAudited(audited);
  }

  /** A page of what bouncers reported. `afterId`: 0 begins. */
  usagePage(afterId: number): UsagePage {
    return this.#usage.page(afterId);
  }

  /** The decisions that no engine confirms any more. Looks at every decision. */
  leftBehind(): local.LeftBehind[] {
    return local.countLeftBehind(this.#store);
  }

  /** Takes a key from the default engine's host, sealed (seal.ts). The next round tries it. */
  async offerEngineKey(host: string, sealed: string): Promise<Result<'registered' | 'unchanged'>> {
    // Clients wait for the first full list again, if there was none for want of a key.
    this.#firstSync.beginAnew();
    const engine = engines.defaultOf(this.#engines);
    if (!engine) return fail({ kind: 'unavailable', problem: 'there is no engine: UPSTREAM_URL is not set' });
    return engine.keys.offer(host, sealed);
  }

  /** The SHA-512 of each key of the engines. No bouncer may have the same key. */
  keyDigests(): Promise<string[]> {
    return engines.keyDigests(this.#engines);
  }

  /** The clients of some bouncers, a list for each, the last seen first. */
  clientsOf(bouncerIds: readonly number[]): clients.SeenClient[][] {
    return clients.clientsOf(this.#stream.clients, bouncerIds);
  }

  /** Writes a mutation of the key store. */
  commit(ask: CommitAsk): Promise<Commit> {
    return this.#keyStore.commit(ask);
  }

  /** The newest row of the audit log that was seen. */
  storeHead(): AuditHead {
    return this.#keyStore.head();
  }

  /** Reconciles the key store and returns its mark; null: it is out of reach. */
  settleStore(): Promise<StoreMark | null> {
    return this.#keyStore.settle();
  }

  /** The keys among some digests that isolates have seen in D1. Other keys may still be valid. */
  recallKeys(digests: readonly string[]): Recalled {
    return this.#keys.recall(digests);
  }

  /** What signs the sessions of operators. */
  sessionSecret(): string {
    return sessionSecret(this.ctx.storage.sql);
  }

  /** Seals the audit log up to its newest row. */
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

  /** How the messages of some webhooks go; null: nothing is known of one yet. */
  deliveries(asked: Parameters<Watch['deliveries']>[0]): ReturnType<Watch['deliveries']> {
    return this.#watch.deliveries(asked);
  }

  /** Sends a webhook a message now. Null: there is no such webhook. */
  testWebhook(name: string): ReturnType<Watch['test']> {
    return this.#watch.test(name);
  }

  /** Adds a decision. The same `request` again within a day gets the same decision. */
  addLocal(decision: Omit<Decision, 'id' | 'origin'>, request: string | null = null): Decision {
    return local.ban(this.#store, decision, request);
  }

  /** Removes decisions that were made here. Names the engines that still ban the value: only they can remove theirs. */
  removeLocal(match: local.Match, request: string | null = null): local.Removal {
    this.#sweep();
    return local.unban(this.#store, match, request);
  }

  /** A page of the operators' list: active decisions after an id, by id. Null: no engine has the name in `filter`. */
  page(afterId: number, limit: number, filter: listing.ListFilter = {}): listing.Listed[] | null {
    this.#sweep();
    return listing.page(this.#store, afterId, limit, filter);
  }

  /** A page of them by what they are about. */
  values(ask: ValuesAsk): Promise<ValuesPage | null> {
    this.#sweep();
    return pageOfValues(this.#store, ask, clock.pause);
  }

  /** What an entry of the allow-list for a value withholds, or would, and which entries do. */
  allowEffect(scope: string, value: string, bouncers: readonly string[] | null): Promise<AllowEffect> {
    this.#sweep();
    return effectOf(this.#store, { scope, value, bouncers }, clock.pause);
  }

  /** A page of the entries of engines' own allow-lists. */
  engineEntries(ask: engineEntries.PageAsk): engineEntries.ListedEngineEntry[] {
    this.#sweep();
    return engineEntries.page(this.#store, ask);
  }

  /** What some bouncers have been sent of the decisions on a value. */
  sentTo(asks: readonly SentAsk[], match: SentMatch): Promise<SentAnswer> {
    const nowMs = this.#sweep();
    return answerSent(this.#store, this.#stream, asks, match, nowMs, clock.pause);
  }
}
