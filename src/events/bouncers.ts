// Which bouncers are silent, by what the feed's object remembers of their polls (silence.ts).

import type { Store } from '../mirror/mirror.ts';
import { addSeen, seenPage, type SeenBouncer } from '../stream/behind.ts';
import type { Clients } from '../stream/clients.ts';
import type { Alarms, Wrong } from './alarms.ts';
import { isoTime, type Item } from './kinds.ts';
import * as log from './log.sql.ts';
import {
  countsFromMs,
  excuseOf,
  isNews,
  isSilent,
  patienceMs,
  seen,
  type Awake,
  type Excuse,
  type Watched,
} from './silence.ts';
import { pause } from '../runtime/wait.ts';

export type SeenBouncers = ReadonlyMap<number, SeenBouncer>;

/** All bouncers that are remembered, by id. Takes a turn for each page of clients. */
export async function readBouncers(store: Store, clients: Clients): Promise<SeenBouncers> {
  const all = new Map<number, SeenBouncer>();
  for (let afterRow: number | null = 0; afterRow !== null;) {
    const page = seenPage(clients, store.mirror.sequence, afterRow, Date.now());
    for (const each of page.bouncers) addSeen(all, each);
    afterRow = page.next;
    await pause();
  }
  return all;
}

export function createBouncerWatch(sql: SqlStorage) {
  const stored = log.readWatched(sql);
  const watched = new Map<number, Watched>();
  const excused = new Map<number, Excuse>();

  /** From when silence counts of a bouncer that was seen at `lastMs`. */
  const fromMs = (id: number, lastMs: number, awake: Awake, nowMs: number): number => {
    const { sinceMs = 0 } = excused.get(id) ?? {};
    // It polls again, or the clock was set back.
    if (sinceMs < lastMs || sinceMs > nowMs) excused.delete(id);
    return Math.max(countsFromMs(lastMs, awake), excused.has(id) ? sinceMs : 0);
  };

  return {
    /** Learns from when they were seen. What is new has to be stored. */
    learn(bouncers: SeenBouncers, awakeSinceMs: number): Map<number, number> {
      const news = new Map<number, number>();
      for (const [id, { followedMs }] of bouncers) {
        // One that only looks up is asked by its visitors, and not expected.
        if (followedMs === 0) continue;
        const kept = stored.get(id) ?? null;
        const known = seen(watched.get(id), followedMs, awakeSinceMs, kept);
        watched.set(id, known);
        if (known.expectedMs !== null && isNews(kept, known.expectedMs)) news.set(id, known.expectedMs);
      }
      for (const known of [watched, excused]) {
        for (const id of known.keys()) if (!bouncers.has(id)) known.delete(id);
      }
      return news;
    },
    silent(
      bouncers: SeenBouncers,
      setMs: ReadonlyMap<number, number>,
      { raised }: Alarms,
      awake: Awake,
      nowMs: number,
    ): Wrong[] {
      const late = [...bouncers].filter(([id, { followedMs, seenMs }]) => {
        const expectedMs = watched.get(id)?.expectedMs ?? null;
        const afterMs = setMs.get(id) ?? (expectedMs === null ? null : patienceMs(expectedMs));
        const lastMs = followedMs || seenMs;
        return afterMs !== null && isSilent(lastMs, afterMs, fromMs(id, lastMs, awake, nowMs), nowMs);
      });
      // Whom nobody remembers any more is silent still.
      const gone = [...raised.keys()].filter((subject) => {
        const id = bouncerIdIn(subject);
        return id !== null && !bouncers.has(id);
      });
      const subjects = [...late.map(([id]) => `bouncer ${id}`), ...gone];
      return subjects.map((subject) => ({ type: 'bouncer.silent', subject }));
    },
    /** Whether one that is late is silent. One that may not poll is not, and has its whole patience once it may. */
    isUnexcused(id: number, mayPoll: boolean, nowMs: number): boolean {
      const excuse = excuseOf(excused.get(id), mayPoll, nowMs);
      if (excuse) excused.set(id, excuse);
      else excused.delete(id);
      return excuse === null;
    },
    describe(id: number, name: string, bouncers: SeenBouncers): Item {
      const { expectedMs = null } = watched.get(id) ?? {};
      const { followedMs = 0, seenMs = 0 } = bouncers.get(id) ?? {};
      return {
        name,
        last_seen_at: isoTime(followedMs || seenMs),
        expected_seconds: expectedMs === null ? null : Math.round(expectedMs / 1000),
      };
    },
    /** Stores what is new, within the caller's transaction. Returns what is to be called after the commit. */
    keep(news: ReadonlyMap<number, number>): () => void {
      log.writeWatched(sql, news);
      return () => {
        for (const [id, expectedMs] of news) stored.set(id, expectedMs);
      };
    },
    /** Forgets the bouncers with these ids. */
    forget(from: number, to: number): void {
      for (const known of [watched, stored, excused]) {
        for (const id of known.keys()) if (id >= from && id <= to) known.delete(id);
      }
      log.forgetWatched(sql, from, to);
    },
  };
}

/** The bouncer that is meant by a subject; null: it is none. */
export function bouncerIdIn(subject: string): number | null {
  const [, id] = /^bouncer (\d+)$/.exec(subject) ?? [];
  return id === undefined ? null : Number(id);
}
