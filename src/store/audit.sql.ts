// The audit log, and how a mutation is written with its row of it. D1's batch is all or nothing, so a row that can't be
// written takes its mutation with it. The row gets the next number in the batch itself, so any number of mutations at
// once neither wait for each other nor leave a number out. The hash chain follows: the feed's object, through which every
// mutation goes (writer/writer.ts), seals the rows in their order.

import { desc, lte, sql, type SQL } from 'drizzle-orm';
import type { BatchItem } from 'drizzle-orm/batch';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { sha256Hex } from '../crypto/secret.ts';
import { askD1 } from './ask.ts';
import { audit, auditStart, keyEpoch } from './schema.ts';

export interface AuditEntry {
  readonly actor: string;
  /** `bouncer.rotate`: what was done, in two words. */
  readonly action: string;
  readonly target: string;
  /** Names, numbers, times. Never a secret, and no more than 8 hex of a digest. */
  readonly detail: Readonly<Record<string, unknown>>;
}

export type AuditRow = typeof audit.$inferSelect;

/** What an audit row says, before it has a number. */
export interface AuditText {
  readonly atMs: number;
  readonly actor: string;
  readonly action: string;
  readonly target: string;
  readonly detailJson: string;
  /** SHA-256 of the rest, in lower-case hex. */
  readonly digest: string;
}

/** One SQL statement as D1 takes it. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
}

export type Statements = readonly BatchItem<'sqlite'>[];

/** What drizzle built, to be run elsewhere. Each of its statements can say what it is, which the type of a batch hides. */
export function statementOf(query: Statements[number]): Statement {
  const built = query as unknown as { toSQL(): Statement } | { getQuery(): Statement };
  const { sql: text, params } = 'toSQL' in built ? built.toSQL() : built.getQuery();
  return { sql: text, params };
}

/** SQL for "it can be made": its unique columns say the rest. */
export const always: SQL = sql`1`;

/** The rows of each of some statements. */
export type RowsOf<All extends Statements> = {
  readonly [Index in keyof All]: All[Index]['_']['result'];
};

/** What the first row's `previousHash` is. */
export const chainStart = '0'.repeat(64);

export async function textOf(entry: AuditEntry, atMs: number): Promise<AuditText> {
  const { actor, action, target } = entry;
  const row = { atMs, actor, action, target, detailJson: JSON.stringify(entry.detail) };
  return { ...row, digest: await digestOfText(row) };
}

function digestOfText(text: Omit<AuditText, 'digest'>): Promise<string> {
  const { atMs, actor, action, target, detailJson } = text;
  return sha256Hex(JSON.stringify([atMs, actor, action, target, detailJson]));
}

/**
 * A row's place in the chain: SHA-256 over the hash before, its number and its digest, in lower-case hex. Rows from before
 * there were digests have all that they say in the place of one.
 */
export async function hashOf(row: Omit<AuditRow, 'hash'>): Promise<string> {
  const { previousHash, seq, atMs, actor, action, target, detailJson, digest } = row;
  const said = digest === null ? [atMs, actor, action, target, detailJson] : [digest];
  return sha256Hex(JSON.stringify([previousHash, seq, ...said]));
}

/** What is wrong with a row as it stands behind `before`; null: nothing. Whether it should be sealed by now is not asked. */
export async function faultOf(row: AuditRow, before: AuditHead): Promise<string | null> {
  if (row.seq !== before.seq + 1) return 'a row is missing';
  if (row.digest !== null && row.digest !== (await digestOfText(row))) return 'a row was changed';
  if (row.hash === '') return null;
  return row.previousHash === before.hash && row.hash === (await hashOf(row)) ? null : 'a row was changed';
}

/**
 * The statement that writes the row, and answers its number. `unchanged`: SQL that must hold; a time that is NULL
 * violates its column, which is the one way in which a batch can be made to depend on what is there.
 */
export function appendStatement(db: DrizzleD1Database, text: AuditText, unchanged: SQL) {
  return db
    .insert(audit)
    .values({
      ...text,
      seq: sql`(SELECT COALESCE(MAX(seq), 0) + 1 FROM audit)`,
      atMs: sql`CASE WHEN ${unchanged} THEN ${text.atMs} END`,
      previousHash: '',
      hash: '',
    })
    .returning({ seq: audit.seq });
}

/** How far the audit log has come: a row, by its digest, or by its hash where it has none. */
export interface AuditHead {
  readonly seq: number;
  readonly hash: string;
}

/** SQL for "this row is in the log". */
export function hasRow({ seq, hash }: AuditHead): SQL {
  return sql`EXISTS (SELECT 1 FROM audit WHERE seq = ${seq} AND (digest = ${hash} OR hash = ${hash}))`;
}

/** A statement that fails where a row is not in the log (any more): D1 is not what it was. */
export function hasRowStatement(db: DrizzleD1Database, head: AuditHead) {
  return db.update(keyEpoch).set({ epoch: sql`CASE WHEN ${hasRow(head)} THEN epoch END` });
}

/** How many of the newest rows may hold a mutation that is sent again: those of a minute, at the utmost. */
const rowsOfLate = 10_000;

/** SQL for the newest row: in a mutation's own batch, its row. */
export const newestSeq: SQL = sql`(SELECT MAX(seq) FROM audit)`;

/** SQL for the row of a mutation that was written a short time ago; NULL: it was not. */
export function seqOf(digest: string): SQL {
  return sql`(SELECT seq FROM audit WHERE seq > ${newestSeq} - ${rowsOfLate} AND digest = ${digest})`;
}

/** A statement that fails where this very mutation is in the log: it was sent before, and its answer lost. */
export function notWrittenStatement(db: DrizzleD1Database, digest: string) {
  return db
    .update(keyEpoch)
    .set({ reconciledMs: sql`CASE WHEN ${seqOf(digest)} IS NULL THEN reconciled_ms END` });
}

/** Why a batch was refused. */
export type Refusal =
  /** What was decided on has changed meanwhile. */
  | { readonly kind: 'stale' }
  /** D1 does not have what the feed's object has seen in it. */
  | { readonly kind: 'restored' }
  /** A unique column has this value already (`bouncers.name`). */
  | { readonly kind: 'clash'; readonly column: string };

/** Reads a refusal from D1's error; null for any other error. `written`: it was sent again, and the first time had been enough. */
export function refusalOf(error: unknown): Refusal | { readonly kind: 'written' } | null {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const column = /(?:UNIQUE|NOT NULL) constraint failed: ([\w.]+)/.exec(cause.message)?.[1];
    // What a row belongs to is gone.
    const isOrphan = /FOREIGN KEY constraint failed/.test(cause.message);
    if (isOrphan || column === 'audit.at_ms' || column === 'bouncers.revision') return { kind: 'stale' };
    if (column === 'key_epoch.epoch') return { kind: 'restored' };
    if (column === 'key_epoch.reconciled_ms') return { kind: 'written' };
    if (column !== undefined) return { kind: 'clash', column };
  }
  return null;
}

/** The rows after a number, in order. */
export function rowsAfter(d1: D1Database, seq: number, limit: number): Promise<AuditRow[]> {
  return askD1(d1, (db) =>
    db
      .select()
      .from(audit)
      .where(sql`seq > ${seq}`)
      .orderBy(audit.seq)
      .limit(limit),
  );
}

/** The last row that has its place in the chain; null without one. */
export async function lastSealed(d1: D1Database): Promise<AuditHead | null> {
  const [row] = await askD1(d1, (db) =>
    db
      .select({ seq: audit.seq, hash: audit.hash })
      .from(audit)
      .where(sql`hash <> ''`)
      .orderBy(desc(audit.seq))
      .limit(1),
  );
  return row ?? null;
}

/** The last row that was removed by its age; null: none was. */
export async function readStart(d1: D1Database): Promise<AuditHead | null> {
  const [row] = await askD1(d1, (db) =>
    db.select({ seq: auditStart.seq, hash: auditStart.hash }).from(auditStart),
  );
  return row ?? null;
}

/** The statements that remove the rows up to one, and say that it was the last of them. */
export function removeRowsStatements(db: DrizzleD1Database, { seq, hash }: AuditHead) {
  const set = { seq, hash };
  return [
    db.delete(audit).where(lte(audit.seq, seq)),
    db
      .insert(auditStart)
      .values({ id: 0, ...set })
      .onConflictDoUpdate({ target: auditStart.id, set, setWhere: sql`audit_start.seq <> excluded.seq` }),
  ];
}

/** The place of a row in the chain. */
export type Seal = Pick<AuditRow, 'seq' | 'previousHash' | 'hash'>;

export async function writeSeals(d1: D1Database, seals: readonly Seal[]): Promise<void> {
  const rows = JSON.stringify(seals.map(({ seq, previousHash, hash }) => [seq, previousHash, hash]));
  const update = sql`UPDATE audit SET previous_hash = json_extract(value, '$[1]'),
    hash = json_extract(value, '$[2]') FROM json_each(${rows}) WHERE seq = json_extract(value, '$[0]')`;
  await askD1(d1, (db) => db.run(update));
}
