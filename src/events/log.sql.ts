// What the feed's object keeps of events, and the SQL for it.
//
// event_messages  The newest messages, in the order in which they are sent. A target that is behind them has lost some.
// event_targets   How far the messages of each target have come, and its last answer. Losing a row sends nothing twice: the
//                 target gets what was said since it was made.
// event_alarms    What was said and is not over, a row for each subject. Losing a row: it is said once more.
// event_watched   The interval that was learnt of each bouncer. Losing a row: it is learnt anew.
// event_watch     One row: when was last looked, since when without a pause, and up to when keys' ends were said.

import { createMissing } from '../mirror/decisions.sql.ts';
import type { AlarmType, Raised } from './alarms.ts';
import { bodyOf, type EventType, type Found } from './kinds.ts';

const tables = [
  `CREATE TABLE IF NOT EXISTS event_messages (
     id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, type TEXT NOT NULL, at_ms INTEGER NOT NULL,
     body TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS event_targets (
     target TEXT PRIMARY KEY, revision INTEGER NOT NULL, sent_id INTEGER NOT NULL, lost INTEGER NOT NULL,
     failures INTEGER NOT NULL, tried_ms INTEGER, status INTEGER, problem TEXT, delivered_ms INTEGER)`,
  `CREATE TABLE IF NOT EXISTS event_alarms (subject TEXT PRIMARY KEY, types TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS event_watched (bouncer_id INTEGER PRIMARY KEY, expected_ms INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS event_watch (
     id INTEGER PRIMARY KEY CHECK (id = 0), looked_ms INTEGER NOT NULL, awake_since_ms INTEGER NOT NULL,
     keys_until_ms INTEGER NOT NULL)`,
];

/** So many messages are kept, whether they were delivered or not. */
export const mostMessages = 1000;

export function createTables(sql: SqlStorage): void {
  createMissing(sql, tables);
}

export interface Message {
  /** Its place in the order. */
  readonly id: number;
  /** `webhook-id`: the same each time that it is sent. */
  readonly message: string;
  readonly body: string;
}

/** Adds a message for each. Returns the last id that is not kept any more. */
export function addMessages(sql: SqlStorage, all: readonly Found[], nowMs: number): number {
  for (const found of all) {
    const insert = `INSERT INTO event_messages (message, type, at_ms, body) VALUES (?, ?, ?, ?)`;
    sql.exec(insert, newMessageName(), found.type, nowMs, bodyOf(found, nowMs));
  }
  const newest = sql.exec<{ id: number | null }>(`SELECT MAX(id) AS id FROM event_messages`).one().id ?? 0;
  return newest - mostMessages;
}

export function newMessageName(): string {
  return `msg_${crypto.randomUUID().replaceAll('-', '')}`;
}

export function removeMessages(sql: SqlStorage, upTo: number): void {
  sql.exec(`DELETE FROM event_messages WHERE id <= ?`, upTo);
}

/** SQL for "after what was sent, and of a type that is wanted". Binds both. */
const waiting = `id > ? AND (?2 IS NULL OR type IN (SELECT value FROM json_each(?2)))`;

type Types = readonly EventType[] | null;

function typesJson(types: Types): string | null {
  return types && JSON.stringify(types);
}

/** The next message of some types (null: of all) after one; null: there is none. */
export function nextMessage(sql: SqlStorage, sentId: number, types: Types): Message | null {
  const next = `SELECT id, message, body FROM event_messages WHERE ${waiting} ORDER BY id LIMIT 1`;
  const [row] = sql.exec(next, sentId, typesJson(types)).toArray();
  return (row as unknown as Message | undefined) ?? null;
}

/** How many messages a target has not got yet, up to one of them. */
export function countWaiting(sql: SqlStorage, sentId: number, types: Types, upTo = Infinity): number {
  const count = `SELECT count(*) AS count FROM event_messages WHERE ${waiting} AND id <= ?3`;
  return sql
    .exec<{ count: number }>(count, sentId, typesJson(types), Math.min(upTo, Number.MAX_SAFE_INTEGER))
    .one().count;
}

/** How the messages of a target go. */
export interface Delivery {
  readonly target: string;
  /** Of the target, when it was last looked at: a change of it ends the wait for the next try. */
  readonly revision: number;
  /** The last message that was delivered, or passed over. */
  readonly sentId: number;
  /** Messages that were given up, since more than 1,000 came after them. */
  readonly lost: number;
  /** Tries in a row that failed. */
  readonly failures: number;
  /** The last try, its status, and what was wrong with it. */
  readonly triedMs: number | null;
  readonly status: number | null;
  readonly problem: string | null;
  readonly deliveredMs: number | null;
}

export function readDeliveries(sql: SqlStorage): Delivery[] {
  const all = `SELECT target, revision, sent_id AS sentId, lost, failures, tried_ms AS triedMs, status, problem,
    delivered_ms AS deliveredMs FROM event_targets`;
  return sql.exec(all).toArray() as unknown as Delivery[];
}

export function writeDelivery(sql: SqlStorage, each: Delivery): void {
  const { target, revision, sentId, lost, failures, triedMs, status, problem, deliveredMs } = each;
  const values = [target, revision, sentId, lost, failures, triedMs, status, problem, deliveredMs];
  sql.exec(`INSERT OR REPLACE INTO event_targets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, ...values);
}

export function deleteDelivery(sql: SqlStorage, target: string): void {
  sql.exec(`DELETE FROM event_targets WHERE target = ?`, target);
}

/** The last message from before a moment; 0: there is none. */
export function lastMessageBefore(sql: SqlStorage, beforeMs: number): number {
  const last = `SELECT MAX(id) AS id FROM event_messages WHERE at_ms < ?`;
  return sql.exec<{ id: number | null }>(last, beforeMs).one().id ?? 0;
}

export function readRaised(sql: SqlStorage): Map<string, Raised> {
  const rows = sql
    .exec<{ subject: string; types: string }>(`SELECT subject, types FROM event_alarms`)
    .toArray();
  return new Map(
    rows.map(({ subject, types }) => [subject, { types: types.split(' ') as AlarmType[], wellMs: null }]),
  );
}

/** Writes what is raised of some subjects, and forgets it of those of which nothing is. */
export function writeRaised(
  sql: SqlStorage,
  subjects: readonly string[],
  raised: ReadonlyMap<string, Raised>,
): void {
  const rows = subjects.map((subject) => [subject, raised.get(subject)?.types.join(' ') ?? null]);
  const given = JSON.stringify(rows);
  sql.exec(
    `DELETE FROM event_alarms WHERE subject IN (SELECT value ->> 0 FROM json_each(?) WHERE value ->> 1 IS NULL)`,
    given,
  );
  sql.exec(
    `INSERT OR REPLACE INTO event_alarms
       SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE value ->> 1 IS NOT NULL`,
    given,
  );
}

export function readWatched(sql: SqlStorage): Map<number, number> {
  const rows = sql.exec<{ id: number; ms: number }>(
    `SELECT bouncer_id AS id, expected_ms AS ms FROM event_watched`,
  );
  return new Map(rows.toArray().map(({ id, ms }) => [id, ms]));
}

export function writeWatched(sql: SqlStorage, learnt: ReadonlyMap<number, number>): void {
  sql.exec(
    `INSERT OR REPLACE INTO event_watched SELECT value ->> 0, value ->> 1 FROM json_each(?)`,
    JSON.stringify([...learnt]),
  );
}

/** Forgets bouncers: one, or all above an id. */
export function forgetWatched(sql: SqlStorage, from: number, to: number): void {
  sql.exec(`DELETE FROM event_watched WHERE bouncer_id BETWEEN ? AND ?`, from, to);
}

/** When was last looked, and since when without a pause. */
export interface Look {
  readonly lookedMs: number;
  readonly awakeSinceMs: number;
  /** What became of keys up to then was said. */
  readonly keysUntilMs: number;
}

/** Null: nobody has looked yet. */
export function readLook(sql: SqlStorage): Look | null {
  const row = `SELECT looked_ms AS lookedMs, awake_since_ms AS awakeSinceMs,
    keys_until_ms AS keysUntilMs FROM event_watch`;
  const [look] = sql.exec(row).toArray();
  return (look as unknown as Look | undefined) ?? null;
}

export function writeLook(sql: SqlStorage, { lookedMs, awakeSinceMs, keysUntilMs }: Look): void {
  sql.exec(`INSERT OR REPLACE INTO event_watch VALUES (0, ?, ?, ?)`, lookedMs, awakeSinceMs, keysUntilMs);
}

export function deleteLook(sql: SqlStorage): void {
  sql.exec(`DELETE FROM event_watch`);
}
