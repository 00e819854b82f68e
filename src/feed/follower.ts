// An isolate follows the feed: once a second at most it asks the feed's object what was touched, and answers the polls of
// the clients that it knows by itself, by the object's own rules. So the load of the object grows with isolates, not with
// bouncers. A mistake here keeps a ban from a bouncer.
//
// What makes it right: a client's cursor says what its bouncer has, and the part of the mirror has every change since then.
// An older cursor is right, too: it repeats changes. So nothing is lost when a client is answered by several isolates in
// turn, or by the object, as long as a change is repeated until all of them have it (settled.ts in stream). What makes a
// cursor wrong the object learns first (invalidated.ts there).

import type { Row } from '../formats/decision.ts';
import type { Names } from '../mirror/engine-names.ts';
import { endOf, type Mirror } from '../mirror/memory.ts';
import { resolveNames, samePatterns } from '../mirror/patterns.ts';
import { applyTouched, createPart, setHolds, trimPart } from '../mirror/touched.ts';
import { requestKey, type View } from '../mirror/view.ts';
import { createGenerations } from '../runtime/generations.ts';
import { clientName, type ReportedSighting, type Sighting } from '../stream/clients.ts';
import { advancePlain, samePlainCursor } from '../stream/cursor.ts';
import { mostAgeMs, type Mark } from '../stream/invalidated.ts';
import { changesSince } from '../stream/delta.ts';
import { changesInPart, type StreamAnswer } from '../stream/poll.ts';
import { bodyOf, smallBody, type Rendering } from '../stream/render.ts';
import { createCursors } from './cursors.ts';
import type { FollowAsk, Followed } from './questions.ts';
import type { Known } from './unbanned.ts';

/** So late this isolate may see a change that another one has followed. */
export const freshMs = 1_000;
/** As many as the feed knows. */
const mostClients = 200_000;
const mostViewBytes = 1024 * 1024;
/** More than an isolate answers in the second between two reports. */
const mostSightings = 10_000;
/** Changes: some 8 MB. A client whose cursor is older asks the object. */
const mostChanges = 20_000;

const entryBytes = 100;
/** Cursors to look for at once. */
const mostForgotten = 100_000;

/** What a bouncer gets; null: nothing has changed for it. */
export type StreamBody = {
  readonly body: ReadableStream<Uint8Array> | string;
  readonly gzip: boolean;
} | null;

/** A question that is under way. */
export interface Following {
  readonly ask: Pick<FollowAsk, 'since' | 'mark'>;
  readonly askedMs: number;
}

/** A moment up to which a bouncer has been told of every change. */
export interface Told {
  /** The object whose sequence it is (invalidated.ts in stream). */
  readonly instance: string;
  readonly sequence: number;
}

/**
 * What has changed for a bouncer. `nothing`: that is certain up to `told`. `unknown`: this isolate has to follow the feed
 * first. `elsewhere`: perhaps something, and only the object can say what.
 */
export type Changes =
  | { readonly kind: 'nothing'; readonly told: Told }
  | { readonly kind: 'changed'; readonly body: StreamBody | Promise<StreamBody> }
  | { readonly kind: 'unknown' | 'elsewhere' };

type Learnt = Pick<StreamAnswer, 'sequence'> & Partial<Pick<StreamAnswer, 'mark' | 'cursor'>>;

export type Follower = ReturnType<typeof createFollower>;

export function createFollower() {
  /** The part of the mirror that this isolate knows. Null: it knows no sequence yet. */
  let part: Mirror | null = null;
  let mark: Mark | null = null;
  let names: Names = new Map();
  let patterns: readonly string[] = [];
  let settled = -1;
  /** Made at the first question: the runtime has no random numbers before the first request. */
  let isolate = '';
  /** When the part was known to be complete. */
  let followedMs = -Infinity;
  /** Numbers in place of views in the keys of so many clients: the texts would take most of the memory. */
  const viewNumbers = createGenerations<number>(mostViewBytes, (key) => entryBytes + key.length);
  let lastNumber = 0;
  /** By client and view. */
  const cursors = createCursors(mostClients);
  const sightings = createGenerations<ReportedSighting>(mostSightings);

  const numberOf = (viewKey: string): number => {
    const known = viewNumbers.get(viewKey);
    if (known !== undefined) return known;
    viewNumbers.set(viewKey, ++lastNumber);
    return lastNumber;
  };
  const keyOf = (poll: Sighting, viewKey: string): string => {
    return `${numberOf(viewKey)} ${clientName(poll.bouncerId, poll.address)}`;
  };

  /** With another object or another history nothing counts that was known. */
  const beginAnew = (newMark: Mark, sequence: number): void => {
    if (mark?.instance !== newMark.instance) {
      cursors.clear();
      followedMs = -Infinity;
      for (const { bouncerId, versionId, address, seenMs, userAgent } of takeSightings()) {
        sightings.set(clientName(bouncerId, address), { bouncerId, versionId, address, seenMs, userAgent });
      }
    }
    mark = newMark;
    part = createPart(sequence);
  };
  const forgetClients = (forget: readonly string[] | 'all'): void => {
    const numbers = viewNumbers.values();
    if (forget === 'all' || forget.length * numbers.length > mostForgotten) return cursors.clear();
    for (const name of forget) for (const number of numbers) cursors.delete(`${number} ${name}`);
  };
  const noteSighting = (key: string, poll: ReportedSighting): void => {
    const moved = poll.moved ?? sightings.get(key)?.moved;
    sightings.set(key, moved ? { ...poll, moved } : poll);
  };
  const takeSightings = (): ReportedSighting[] => {
    const taken = sightings.values();
    if (taken.length > 0) sightings.clear();
    return taken;
  };
  /** Within `ms`; never if the clock was set back since. */
  const isWithin = (ms: number, nowMs: number): boolean => nowMs >= followedMs && nowMs - followedMs <= ms;
  const isFresh = (nowMs: number): boolean => isWithin(freshMs, nowMs);
  /** Also where the question was asked after the poll came: it is as fresh as one of its own. */
  const isCurrent = ({ seenMs }: Sighting, nowMs: number): boolean => {
    return isFresh(nowMs) || (followedMs >= seenMs && isWithin(mostAgeMs, nowMs));
  };

  return {
    isFresh,
    isCurrent,

    /** What this isolate has followed. Null: nothing yet. */
    known: (): Known | null => (part && mark ? { part, instance: mark.instance } : null),

    /** Begins a question about what was touched. */
    ask(nowMs: number): Following {
      return { ask: { since: part?.sequence ?? -1, mark }, askedMs: nowMs };
    },

    /** Takes the answer to a question. Of two at once the later answer may be the older one. `isLatest`: it has every change. */
    take({ ask, askedMs }: Following, followed: Followed, isLatest: boolean): void {
      const { touched, forget, sequence } = followed;
      const isNext = mark?.instance === ask.mark?.instance && part?.sequence === ask.since;
      if (!isNext && mark !== null && mark.instance === followed.mark.instance) return;
      if (part && touched && isNext) applyTouched(part, touched);
      else beginAnew(followed.mark, sequence);
      forgetClients(forget);
      mark = followed.mark;
      names = followed.names;
      // What is known of each bouncer's name is kept while they are the same.
      if (!samePatterns(patterns, followed.patterns ?? [])) patterns = followed.patterns ?? [];
      settled = followed.settled;
      if (part) {
        setHolds(part, followed.holds);
        trimPart(part, mostChanges);
      }
      if (isLatest) followedMs = askedMs;
    },

    /**
     * Answers a poll. `follow`: this isolate has to follow the feed first. `ask`: only the object can answer. A body that is
     * cut off takes the cursor back.
     */
    answer(
      poll: Sighting,
      viewKey: string,
      view: View,
      nowMs: number,
      gzip: () => boolean,
    ): StreamBody | Promise<StreamBody> | 'follow' | 'ask' {
      const key = keyOf(poll, viewKey);
      const cursor = cursors.get(key);
      if (!part || !cursor) return 'ask';
      if (!isCurrent(poll, nowMs)) {
        // It goes with the question.
        noteSighting(key, poll);
        return 'follow';
      }
      if (cursor.beforeSequence >= part.sequence) {
        noteSighting(key, poll);
        return null;
      }
      const resolved = resolveNames(view, names, patterns);
      const answer = changesInPart(part, resolved, cursor);
      if (!answer) return 'ask';
      const next = advancePlain(cursor, answer.sequence, settled);
      cursors.set(key, next);
      const mirror = part;
      const endsMs = (row: Row): number => endOf(mirror, row);
      const small = smallBody(answer, nowMs, endsMs);
      if (small !== null) {
        noteSighting(key, { ...poll, moved: { view: requestKey(resolved), cursor: next } });
        return { body: small, gzip: false };
      }
      noteSighting(key, poll);
      const undo = (): void => {
        if (samePlainCursor(cursors.get(key), next)) cursors.set(key, cursor);
      };
      return longBody(answer, { gzip: gzip(), nowMs, endOf: endsMs }, undo);
    },

    /** Up to where this isolate has followed the feed. Null: no feed is known here. */
    followedTo(): Told | null {
      return part && mark ? { instance: mark.instance, sequence: part.sequence } : null;
    },

    /** Up to where a client was told of everything, if there was nothing for it just now. Null: that is not known here. */
    told(poll: Sighting, viewKey: string): Told | null {
      const cursor = cursors.get(keyOf(poll, viewKey));
      return mark && cursor ? { instance: mark.instance, sequence: cursor.beforeSequence } : null;
    },

    /**
     * What has changed since for a client that waits. It moves no cursor: nobody knows whether the client is still there, and
     * one that has gone must not count as told.
     */
    changesSince(
      poll: Sighting,
      viewKey: string,
      view: View,
      told: Told,
      nowMs: number,
      gzip: () => boolean,
    ): Changes {
      if (!part || !mark || !isCurrent(poll, nowMs)) return { kind: 'unknown' };
      const { instance } = mark;
      const { sequence, purgedSequence } = part;
      const isSame =
        instance === told.instance ? told.sequence >= purgedSequence : told.sequence === sequence;
      if (!isSame) return { kind: 'elsewhere' };
      if (told.sequence === sequence) return { kind: 'nothing', told: { instance, sequence } };
      // The object was ahead when it answered.
      if (told.sequence > sequence) return { kind: 'nothing', told };
      const resolved = resolveNames(view, names, patterns);
      const { added, removed } = changesSince(part, resolved, told.sequence);
      if (added.length + removed.length === 0) return { kind: 'nothing', told: { instance, sequence } };
      const { baseline } = cursors.get(keyOf(poll, viewKey)) ?? {};
      const from = { baseline: baseline ?? 0, beforeSequence: told.sequence, lastSequence: told.sequence };
      const answer = baseline === undefined ? null : changesInPart(part, resolved, from);
      if (!answer) return { kind: 'elsewhere' };
      const mirror = part;
      const rendering = { gzip: gzip(), nowMs, endOf: (row: Row) => endOf(mirror, row) };
      return { kind: 'changed', body: longBody(answer, rendering, () => undefined) };
    },

    /** Learns from the object's answer to a poll where its client stands. An object of the release before does not say it. */
    learn(poll: Sighting, viewKey: string, { mark: newMark, sequence, cursor }: Learnt): void {
      if (!newMark) return;
      if (mark?.instance !== newMark.instance) beginAnew(newMark, sequence);
      const isLate = newMark.count < (mark?.count ?? 0);
      if (cursor && !isLate) cursors.set(keyOf(poll, viewKey), cursor);
      else cursors.delete(keyOf(poll, viewKey));
    },

    /** For a change made through this isolate: the next poll asks the object. */
    forgetLatest(): void {
      followedMs = -Infinity;
    },

    /** Notes a poll that was answered here for the next report. `key`: equal for polls of which the last is enough. */
    noteSighting,

    /** The polls that were answered here since the last report. */
    takeSightings,
    mark: (): Mark | null => mark,
    isolate: (): string => (isolate ||= crypto.randomUUID()),
  };
}

/** Not kept for others: a request must not wait for what another one makes. */
function longBody(
  answer: Parameters<typeof smallBody>[0],
  rendering: Omit<Rendering, 'name'>,
  onCancel: () => void,
): Promise<StreamBody> {
  return bodyOf(new Map(), { answer, pending: [] }, { ...rendering, name: '' }, onCancel);
}
