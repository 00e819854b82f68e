// What a mutation of the key store says and is answered, and what is asked of D1 together with it: in its own batch, or after
// it where its answer was lost.

import { type SQL, eq, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { Refusal, Statement, Statements } from '../store/audit.sql.ts';
import { selectChanged, type StoreMark } from '../store/epoch.sql.ts';
import type { SeenClient, Sighting } from '../stream/clients.ts';
import { bouncers, keyVersions, blockedMachines } from '../store/schema.ts';
import { listed } from '../store/facts.ts';

/** A mutation to be written. */
export interface CommitAsk {
  /** Of the audit row that the first statement writes. */
  readonly digest: string;
  readonly statements: readonly Statement[];
  readonly news: News;
  /** It may have been written before, and its answer lost: it is written once all the same. */
  readonly again?: boolean;
}

/** What the feed is to know of it. */
export interface News {
  /** A bouncer that was made with a key of ours: nobody has it yet. */
  readonly newKeyOf?: string;
  /** The id of a bouncer that is gone. */
  readonly gone?: number;
  /** The name of a host that has no engine (any more): a key that it sent is given up. */
  readonly noEngineOn?: string;
  /** Bouncers that were imported, with the digest of the key of each, and who used it. */
  readonly imported?: readonly Imported[];
  /** The ids of bouncers whose clients are to be in the answer. */
  readonly clientsOf?: readonly number[];
}

export interface Imported {
  readonly name: string;
  readonly digest: string;
  readonly uses: readonly ImportedUse[];
}

export type ImportedUse = Pick<Sighting, 'address' | 'seenMs' | 'userAgent'>;

export interface Done {
  readonly kind: 'done';
  readonly mark: StoreMark;
  /** Of an earlier try that was not heard it may be more than that. */
  readonly changed: Changed;
  /** What the last of the statements answers, as JSON; null: nothing, or an earlier try was answered it. */
  readonly bodyJson: string | null;
  /** Of each bouncer in `clientsOf`. */
  readonly clients: readonly (readonly SeenClient[])[];
}

export type Commit =
  | Done
  | Refusal
  | Unwritable
  /** Whether it was written is not known. */
  | { readonly kind: 'unreachable' };

/** What nobody may go on remembering as it was. */
export interface Changed {
  readonly bouncerIds: readonly number[];
  readonly blockedMachines: readonly string[];
}

/** Nothing was written, since there or here nothing can be. */
export interface Unwritable {
  readonly kind: 'unwritable';
  readonly problem: string;
}

/** What is asked with a mutation, once it is written. `seq`: SQL for its row of the audit log. */
export function selectDone(d: DrizzleD1Database, seq: SQL, { newKeyOf, imported = [] }: News) {
  const names = imported.map(({ name }) => name);
  return {
    changed: selectChanged(d, seq),
    blocked: selectBlockedBy(d, seq),
    ...(newKeyOf === undefined ? {} : { newKeys: selectFirstKey(d, newKeyOf) }),
    ...(names.length === 0 ? {} : { ids: selectIds(d, names) }),
  };
}

export type RowsDone = Named<ReturnType<typeof selectDone>>;

/** The rows of each of some queries, by the query's name. */
type Named<Queries> = {
  readonly [Name in keyof Queries]: NonNullable<Queries[Name]> extends Statements[number]
    ? NonNullable<Queries[Name]>['_']['result']
    : never;
};

export function byName<Queries extends object>(queries: Queries, rows: readonly unknown[]): Named<Queries> {
  return Object.fromEntries(Object.keys(queries).map((name, at) => [name, rows[at]])) as Named<Queries>;
}

export function changedOf({ changed, blocked }: RowsDone): Changed {
  return {
    bouncerIds: changed.map(({ bouncerId }) => bouncerId),
    blockedMachines: blocked.map(({ machine }) => machine),
  };
}

/**
 * The one version of a new bouncer's key; no row where a bouncer of this name was there before, whose program may get the
 * key.
 */
export function selectFirstKey(db: DrizzleD1Database, name: string) {
  const wasThere = sql`EXISTS (SELECT 1 FROM audit WHERE action = 'bouncer.delete' AND target = ${name})`;
  return db
    .select({
      versionId: sql<number>`${keyVersions.id}`.as('versionId'),
      bouncerId: sql<number>`${bouncers.id}`.as('bouncerId'),
    })
    .from(keyVersions)
    .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId))
    .where(sql`${bouncers.name} = ${name} AND ${keyVersions.number} = 1 AND NOT ${wasThere}`);
}

/** The ids that bouncers with one key each were given. */
export function selectIds(db: DrizzleD1Database, names: readonly string[]) {
  return db
    .select({
      name: bouncers.name,
      // Two columns of one name would be one in a batch's rows.
      bouncerId: sql<number>`${bouncers.id}`.as('bouncerId'),
      versionId: sql<number>`${keyVersions.id}`.as('versionId'),
    })
    .from(bouncers)
    .innerJoin(keyVersions, eq(keyVersions.bouncerId, bouncers.id))
    .where(sql`${bouncers.name} IN ${listed(names)}`);
}

/** Those that a mutation blocked, whose time they have. */
export function selectBlockedBy(db: DrizzleD1Database, seq: SQL) {
  const itsTime = sql`blocked_ms = (SELECT at_ms FROM audit WHERE seq = ${seq})`;
  return db.select({ machine: blockedMachines.machine }).from(blockedMachines).where(itsTime);
}
