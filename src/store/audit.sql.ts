// The audit log, and how a mutation is written with its row. A batch of D1 is all or nothing: a row that cannot be written
// takes its mutation with it. The row gets its number in the batch, so any number of mutations at once neither wait for
// each other nor leave a number out. Its place in the hash chain follows: the feed's object seals the rows in their order
// (writer/sealing.ts).

import { desc, gt, lte, ne, sql, type SQL } from 'drizzle-orm';
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

/** A row before it has a number. `digest`: SHA-256 of the rest, in lower-case hex. */
export type AuditText = Omit<AuditRow, 'seq' | 'previousHash' | 'hash' | 'digest'> & {
  readonly digest: string;
};

/** One SQL statement as D1 takes it. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
}

export type Statements = readonly BatchItem<'sqlite'>[];

/** What drizzle built, to be run elsewhere. Every statement has one of the two methods, which the type of a batch hides. */
export function statementOf(query: Statements[number]): Statement {
  const built = query as unknown as { toSQL(): Statement } | { getQuery(): Statement };
  const { sql: text, params } = 'toSQL' in built ? built.toSQL() : built.getQuery();
  return { sql: text, params };
}

/** SQL that always holds: for a mutation that only the unique columns can refuse. */
export const always: SQL = sql`1`;

/** The rows of each of some statements. */
export type RowsOf<All extends Statements> = {
  readonly [Index in keyof All]: All[Index]['_']['result'];
};

/** The first row's `previousHash`. */
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
 * A row's place in the chain: SHA-256 over the hash of the row before, its number and its digest, in lower-case hex. Old
 * rows have no digest: their fields are hashed instead.
 */
export async function hashOf(row: Omit<AuditRow, 'hash'>): Promise<string> {
  const { previousHash, seq, atMs, actor, action, target, detailJson, digest } = row;
  const content = digest === null ? [atMs, actor, action, target, detailJson] : [digest];
  return sha256Hex(JSON.stringify([previousHash, seq, ...content]));
}

/** What is wrong with a row after `before`; null: nothing. A row that is not sealed yet is no fault here. */
export async function faultOf(row: AuditRow, before: AuditHead): Promise<string | null> {
  if (row.seq !== before.seq + 1) return 'a row is missing';
  if (row.digest !== null && row.digest !== (await digestOfText(row))) return 'a row was changed';
  if (row.hash === '') return null;
  return row.previousHash === before.hash && row.hash === (await hashOf(row)) ? null : 'a row was changed';
}

/**
 * The statement that writes the row, and answers its number. `unchanged`: SQL that must hold. Where it does not, the time
 * is NULL, which its column refuses: only a constraint can make a batch depend on what is in the tables.
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

/** A row of the audit log, by its digest or its hash: how far the log has come. */
export interface AuditHead {
  readonly seq: number;
  readonly hash: string;
}

/** SQL for "this row is in the log". */
export function hasRow({ seq, hash }: AuditHead): SQL {
  return sql`EXISTS (SELECT 1 FROM audit WHERE seq = ${seq} AND (digest = ${hash} OR hash = ${hash}))`;
}

/** A statement that fails where a row is not in the log (any more): D1 was restored. */
export function hasRowStatement(db: DrizzleD1Database, head: AuditHead) {
  return db.update(keyEpoch).set({ epoch: sql`CASE WHEN ${hasRow(head)} THEN epoch END` });
}

/** Among how many of the newest rows a mutation that is sent again may be: at most those of a minute. */
const recentRows = 10_000;

/** SQL for the number of the newest row: in a mutation's own batch, of its own row. */
export const newestSeq: SQL = sql`(SELECT MAX(seq) FROM audit)`;

/** SQL for the number of a mutation's row among the recent ones; NULL: it was not written. */
export function seqOf(digest: string): SQL {
  return sql`(SELECT seq FROM audit WHERE seq > ${newestSeq} - ${recentRows} AND digest = ${digest})`;
}

/** A statement that fails where this mutation is in the log already: it was sent before, and its answer lost. */
export function notWrittenStatement(db: DrizzleD1Database, digest: string) {
  return db
    .update(keyEpoch)
    .set({ reconciledMs: sql`CASE WHEN ${seqOf(digest)} IS NULL THEN reconciled_ms END` });
}

/** Why a batch was refused. */
export type Refusal =
  /** What the mutation was based on has changed meanwhile. */
  | { readonly kind: 'stale' }
  /** D1 does not have the newest row that the feed's object has seen. */
  | { readonly kind: 'restored' }
  /** A unique column has this value already (`bouncers.name`). */
  | { readonly kind: 'clash'; readonly column: string };

/** Reads a refusal from D1's error; null for any other error. `written`: it was written when it was first sent. */
export function refusalOf(error: unknown): Refusal | { readonly kind: 'written' } | null {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const column = /(?:UNIQUE|NOT NULL) constraint failed: ([\w.]+)/.exec(cause.message)?.[1];
    // The row that it belongs to was deleted.
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
  const later = gt(audit.seq, seq);
  return askD1(d1, (db) => db.select().from(audit).where(later).orderBy(audit.seq).limit(limit));
}

/** The last row that has its place in the chain; null without one. */
export async function lastSealed(d1: D1Database): Promise<AuditHead | null> {
  const { seq, hash } = audit;
  const [row] = await askD1(d1, (db) =>
    db.select({ seq, hash }).from(audit).where(ne(hash, '')).orderBy(desc(seq)).limit(1),
  );
  return row ?? null;
}

/** The last row that was removed by its age; null: none was. */
export async function readStart(d1: D1Database): Promise<AuditHead | null> {
  const { seq, hash } = auditStart;
  const [row] = await askD1(d1, (db) => db.select({ seq, hash }).from(auditStart));
  return row ?? null;
}

/** The statements that remove the rows up to one, and note that it was the last of them. */
export function removeRowsStatements(db: DrizzleD1Database, { seq, hash }: AuditHead) {
  const row = { id: 0, seq, hash };
  const update = { target: auditStart.id, set: row, setWhere: sql`audit_start.seq <> excluded.seq` };
  return [
    db.delete(audit).where(lte(audit.seq, seq)),
    db.insert(auditStart).values(row).onConflictDoUpdate(update),
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
