// The state of the key store (D1), and what has changed since another one: its mark, its epoch, and the changes of keys
// with each move of the epoch. Isolates that remember keys read this, and so does the object, which must tell a restored
// backup from the D1 that it knew.

import { and, eq, gt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1, answerMs } from './ask.ts';
import { newestSeq, type AuditHead } from './audit.sql.ts';
import { audit, bouncers, keyChanges, keyEpoch, keyVersions, type KeyVersion } from './schema.ts';

/**
 * The state of the key store: its epoch, the newest audit row (0 and '' without one) by its digest, and when a restored
 * backup was last put right. Two states with the same newest row are equal: every mutation writes one, with its time.
 */
export interface StoreMark {
  readonly epoch: number;
  readonly reconciledMs: number;
  readonly seq: number;
  readonly hash: string;
  /** That row's place in the chain; '' until it is sealed. */
  readonly sealedHash: string;
}

const mark = {
  epoch: keyEpoch.epoch,
  reconciledMs: sql<number>`reconciled_ms`.as('reconciledMs'),
  seq: sql<number>`COALESCE(newest.seq, 0)`.as('seq'),
  hash: sql<string>`COALESCE(newest.digest, newest.hash, '')`.as('hash'),
  sealedHash: sql<string>`COALESCE(newest.hash, '')`.as('sealedHash'),
};

const noMark: StoreMark = { epoch: 0, reconciledMs: 0, seq: 0, hash: '', sealedHash: '' };

export function selectMark(db: DrizzleD1Database) {
  const newest = sql`(SELECT seq, digest, hash FROM ${audit} ORDER BY seq DESC LIMIT 1) newest`;
  return db
    .select(mark)
    .from(keyEpoch)
    .leftJoin(newest, sql`true`);
}

/** Whether the newest row is the head that the object knows, by its digest or by its hash. */
export function isAt({ seq, hash, sealedHash }: StoreMark, head: AuditHead): boolean {
  return seq > 0 && seq === head.seq && (hash === head.hash || sealedHash === head.hash);
}

/** The bouncer that a digest belongs to, with the key's version. */
export interface FoundKey {
  readonly name: string;
  readonly version: KeyVersion;
  readonly policy: Pick<typeof bouncers.$inferSelect, 'viewJson' | 'allowJson' | 'rateLimit' | 'pausedMs'>;
}

/** With this move of the epoch the keys of a bouncer changed. */
export type KeyChange = typeof keyChanges.$inferSelect;

/** More bouncers than an isolate remembers. */
const mostChanges = 50_000;

/** Moves of the epoch whose bouncers are kept. */
const mostMoves = 1_000;

/**
 * The keys of some digests, and what has changed since an epoch (at most `mostChanges`). All of it as of one moment: a
 * revocation between two reads would take effect an epoch later.
 */
export async function askStore(d1: D1Database, sinceEpoch: number, digests: readonly string[]) {
  const { viewJson, allowJson, rateLimit, pausedMs } = bouncers;
  const policy = { viewJson, allowJson, rateLimit, pausedMs };
  const [marks, changes, found] = await askD1(d1, (db) =>
    db.batch([
      selectMark(db),
      selectChanges(db, sinceEpoch),
      db
        .select({ name: bouncers.name, version: keyVersions, policy })
        .from(sql`json_each(${JSON.stringify(digests)}) asked`)
        .innerJoin(keyVersions, sql`${keyVersions.digest} = asked.value`)
        .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId)),
    ]),
  );
  return { mark: marks[0] ?? noMark, changes, found };
}

export function selectEpoch(db: DrizzleD1Database) {
  return db.select({ epoch: keyEpoch.epoch }).from(keyEpoch);
}

/** With an alias: the writer reads rows as D1 names them, without drizzle's mapping. */
const bouncerId = sql<number>`bouncer_id`.as('bouncerId');

/** `isNewestKnown`: without those of the newest move. */
export function selectChanges(db: DrizzleD1Database, sinceEpoch: number, isNewestKnown = false) {
  const { epoch } = keyChanges;
  const older = isNewestKnown ? sql`epoch < (SELECT epoch FROM key_epoch)` : undefined;
  const which = and(gt(epoch, sinceEpoch), older);
  return db.select({ epoch, bouncerId }).from(keyChanges).where(which).limit(mostChanges);
}

/**
 * The bouncers that a mutation may have changed, and those that later ones did. Each moves the epoch at most once, so that
 * is at most one move for each row of the audit log from its own on.
 */
export function selectChanged(db: DrizzleD1Database, seq: SQL) {
  const later = sql`epoch >= (SELECT epoch FROM key_epoch) - (${newestSeq} - ${seq})`;
  return db.select({ bouncerId }).from(keyChanges).where(later);
}

/** The bouncers whose keys have changed; `all` where not every move of the epoch names its bouncers. */
export function changedSince(
  sinceEpoch: number,
  epoch: number,
  changes: readonly KeyChange[],
): ReadonlySet<number> | 'all' {
  const since = changes.filter((change) => change.epoch > sinceEpoch);
  const moves = new Set(since.map((change) => change.epoch));
  if (moves.size !== epoch - sinceEpoch || changes.length >= mostChanges) return 'all';
  return new Set(since.map(({ bouncerId }) => bouncerId));
}

export async function readMark(d1: D1Database): Promise<StoreMark> {
  const [row] = await askD1(d1, selectMark, answerMs);
  return row ?? noMark;
}

/**
 * The statements that move the epoch, so that every isolate looks up the keys of these bouncers anew within 5 s. They
 * belong before those that delete the bouncers.
 */
export function changedStatements(db: DrizzleD1Database, bouncerIds: SQL) {
  const changed = sql`bouncers WHERE id IN ${bouncerIds}`;
  return moveStatements(db, sql`id FROM ${changed}`, sql`EXISTS (SELECT 1 FROM ${changed})`);
}

/** The same for many bouncers that exist; that is not checked. */
export function manyChangedStatements(db: DrizzleD1Database, bouncerIds: readonly number[]) {
  const rows = sql.raw(bouncerIds.map((id) => `(${id})`).join(', '));
  return moveStatements(db, sql`column1 FROM (VALUES ${rows})`, undefined);
}

function moveStatements(db: DrizzleD1Database, changed: SQL, isAny: SQL | undefined) {
  const now = sql`(SELECT epoch FROM key_epoch)`;
  const next = { epoch: sql`epoch + 1` };
  return [
    db.update(keyEpoch).set(next).where(isAny),
    db.run(sql`INSERT INTO key_changes (epoch, bouncer_id) SELECT ${now}, ${changed}`),
    db.delete(keyChanges).where(sql`epoch <= ${now} - ${mostMoves}`),
  ];
}
