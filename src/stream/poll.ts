// The answer to a poll of the stream: from what its bouncer was delivered to what it is to have.

import type { Row } from '../formats/decision.ts';
import { endOf, removedUpTo, type Mirror } from '../mirror/memory.ts';
import { withPatterns } from '../mirror/patterns.ts';
import { requestKey, viewKey, type View } from '../mirror/view.ts';
import {
  deliveredStates,
  laterBaselines,
  limitsChanged,
  resolveView,
  tooManyOthers,
  usableCursor,
  writeBaselines,
  type Baselines,
  type ResolvedView,
} from './baselines.ts';
import { cursorOf, setCursor, type Clients } from './clients.ts';
import type { ClientLog } from './clients.sql.ts';
import {
  advance,
  isUpToDate,
  lostAt,
  plainOf,
  sameCursor,
  withOthers,
  type Cursor,
  type PendingRemoval,
  type PlainCursor,
} from './cursor.ts';
import { changesSince, fromNothing, fullState, oneSpellingEach, transition, type Answer } from './delta.ts';
import { invalidate, markOf, oldAnswersMs, type Invalidated, type Mark } from './invalidated.ts';
import { bodyOf, keptAnswer, type GzipCache } from './render.ts';
import { settledAt, type Settled } from './settled.ts';
import { sinceMs } from '../runtime/clock.ts';
import { createGenerations, type Generations } from '../runtime/generations.ts';

/** When the limits of a client's view changed: until the first answer after isolates may answer by the old ones. */
export type ChangedLimits = Generations<number>;

export function createChangedLimits(): ChangedLimits {
  return createGenerations(10_000);
}

/** All that polls are answered from. */
export interface Stream {
  readonly mirror: Mirror;
  readonly baselines: Baselines;
  readonly clients: Clients;
  readonly clientLog: ClientLog;
  readonly gzipped: GzipCache;
  readonly invalidated: Invalidated;
  readonly changedLimits: ChangedLimits;
  readonly settled: Settled;
}

export interface Poll {
  /** As it was asked for, with the bouncer's limits and name. Its engines are named by their handles. */
  readonly view: View;
  readonly startup: boolean;
  /** The answer may have been made before, and lost on its way. */
  readonly again?: boolean;
  /** The isolate that asks. Left out by the release before. */
  readonly isolate?: string;
  /** Whether the client accepts gzip. */
  readonly gzip: boolean;
  /** Before this sequence nobody can have read anything with the bouncer's key. */
  readonly keyMadeAt: number;
  /** Whether it is known yet what the engines ban. */
  readonly known: boolean;
  readonly nowMs: number;
}

export interface StreamAnswer {
  readonly kind: 'stream';
  /** The latest sequence. */
  readonly sequence: number;
  /** Where the client stands now. Null: only the object knows. */
  readonly cursor: PlainCursor | null;
  readonly mark: Mark;
  /** Null: nothing has changed for this bouncer. */
  readonly body: ReadableStream<Uint8Array> | string | null;
  readonly gzip: boolean;
}

/** `client`: its name (`clientName`). */
export async function answerPoll(stream: Stream, client: string, asked: Poll): Promise<StreamAnswer> {
  const { mirror, baselines, clients } = stream;
  const poll = { ...asked, view: withPatterns(asked.view, mirror.patterns) };
  const { view, startup, gzip, nowMs } = poll;
  const { sequence } = mirror;
  const slot = requestKey(view);
  const known = cursorOf(clients, client, slot);
  const later = known ? laterBaselines(baselines, known, view) : [];
  const others = [...(known?.others ?? []), ...later];
  const cursor = known && tooManyOthers(baselines, others) ? lostAt(known) : known;
  const resolved = resolveView(baselines, mirror, view, cursor);
  const now = { sequence, baseline: resolved.baseline };
  const from = startup ? undefined : usableCursor(baselines, mirror, cursor);

  const answered = { kind: 'stream', sequence, mark: markOf(stream.invalidated) } as const;
  // No change of the engines is known yet, and a client without a cursor gets none before it has the full state.
  if (!poll.known && !from) return { ...answered, cursor: null, body: null, gzip: false };
  if (from && isUpToDate(from, now)) return { ...answered, cursor: plainOf(from), body: null, gzip: false };
  const pending = startup ? [] : (cursor?.pending ?? []);
  const since = removedUpTo(mirror, poll.keyMadeAt);
  const name = nameOf(resolved, poll, from, others, since, pending);
  const delivery =
    (gzip && keptAnswer(stream.gzipped, name, nowMs, sequence)) ||
    oneSpellingEach(mirror, resolved, answerOf(stream, resolved, poll, from, others, since), pending);
  // An isolate may still answer by limits that have just changed, so the next answer starts from them once more.
  const again = poll.again === true || haveJustChanged(stream, client, slot, nowMs);
  const settled = settledAt(stream.settled, sequence, nowMs, poll.isolate);
  const delivering = { startup, again, later: from ? later : [], settled };
  const next = advance(cursor, now, delivering, delivery.pending);
  setCursor(clients, client, slot, next);
  if (cursor && limitsChanged(baselines, cursor, resolved)) noteChangedLimits(stream, client, slot, nowMs);
  // A body that was cut off takes the cursor back; the client may ask again without `startup`. After a start-up whatever the
  // cursor is by now: another program of the same name may have moved it on. That costs repeats.
  const undo = (): void => {
    const moved = cursorOf(clients, client, slot);
    if (startup) {
      setCursor(clients, client, slot, lostAt(next));
      invalidate(stream.invalidated, client);
    } else if (moved && sameCursor(moved, next)) {
      setCursor(clients, client, slot, cursor && withOthers(cursor, [next.lastBaseline]));
    }
  };
  const rendering = { name, gzip, nowMs, endOf: (row: Row) => endOf(mirror, row) };
  const body = await bodyOf(stream.gzipped, delivery, rendering, undo);
  // A long body may be cut off, and the cursor with it. That of a long view is not kept.
  const isKept = typeof body.body === 'string' && cursorOf(clients, client, slot) !== undefined;
  return { ...answered, cursor: isKept ? plainOf(next) : null, ...body };
}

function noteChangedLimits(stream: Stream, client: string, slot: string, nowMs: number): void {
  invalidate(stream.invalidated, client);
  stream.changedLimits.set(`${client} ${slot}`, nowMs);
  if (writeBaselines(stream.baselines)) stream.clientLog.writeNow(client);
}

/** The first answer after isolates have the new limits counts, too: one before it may be lost. */
function haveJustChanged({ changedLimits }: Stream, client: string, slot: string, nowMs: number): boolean {
  const key = `${client} ${slot}`;
  const changedMs = changedLimits.get(key);
  if (changedMs === undefined) return false;
  if (sinceMs(changedMs, nowMs) > oldAnswersMs) changedLimits.delete(key);
  return true;
}

/**
 * The changes for a client that an isolate answers. `part`: what it knows of the mirror. Null: something else may matter,
 * and only the feed's object can answer.
 */
export function changesInPart(part: Mirror, view: View, { beforeSequence }: PlainCursor): Answer | null {
  const isWhole = view.dedup && (view.limits?.maxDecisions ?? null) === null;
  if (!isWhole || beforeSequence < part.purgedSequence) return null;
  const answer = changesSince(part, view, beforeSequence);
  const isRespelled = ({ canonicalValue }: Row): boolean => part.respelled.has(canonicalValue);
  return answer.removed.some(isRespelled) ? null : answer;
}

/** `since`: the full state has the removals after this sequence. */
function answerOf(
  { mirror, baselines }: Stream,
  resolved: ResolvedView,
  { startup }: Poll,
  from: Cursor | undefined,
  others: readonly number[],
  since: number,
): Answer {
  if (startup) return fullState(mirror, resolved, since);
  if (!from) return fromNothing(mirror, resolved, since);
  if (isPlain(from, others, resolved)) return changesSince(mirror, resolved.view, from.beforeSequence);
  return transition(mirror, resolved, deliveredStates(baselines, from, others));
}

/** Equal for all polls with the same answer. */
function nameOf(
  resolved: ResolvedView,
  { view, startup }: Poll,
  from: Cursor | undefined,
  others: readonly number[],
  since: number,
  pending: readonly PendingRemoval[],
): string {
  const start = startup ? `startup ${since}` : from ? startName(from, others, resolved) : `lost ${since}`;
  const waiting = pending.map(({ row, times }) => `${row.rowId}*${times}`).join();
  return `${start} ${waiting} ${viewKey(view)}`;
}

function startName(from: Cursor, others: readonly number[], resolved: ResolvedView): string {
  const { beforeSequence, beforeBaseline, lastSequence, lastBaseline } = from;
  if (isPlain(from, others, resolved)) return String(beforeSequence);
  return [beforeSequence, beforeBaseline, lastSequence, lastBaseline, ...others].join();
}

/** Whether only the feed has changed since the cursor: the limits are the same and there is no cap. */
function isPlain(
  { beforeBaseline, lastBaseline }: Cursor,
  others: readonly number[],
  { capped, baseline }: ResolvedView,
): boolean {
  return !capped && others.length === 0 && beforeBaseline === baseline && lastBaseline === baseline;
}
