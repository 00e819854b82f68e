// A mutation of the key store as it crosses the object's RPC, and what the writer reads of it: in its own batch, or later
// where the answer to that was lost.

import { type SQL, eq, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { Refusal, Statement, Statements } from '../store/audit.sql.ts';
import { selectAllowed } from '../store/allow-list.sql.ts';
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
  /** It was sent before, and its answer lost. It is written once all the same. */
  readonly again?: boolean;
}

/** What the feed has to learn of it. */
export interface News {
  /** The name of a bouncer that was made with a key from here: nobody has that key yet. */
  readonly newKeyOf?: string;
  /** The id of a bouncer that was deleted. */
  readonly gone?: number;
  /** The name of a host that has no engine (any more): the engine key that it sent is discarded. */
  readonly noEngineOn?: string;
  /** Bouncers that were imported, with the digest of the key of each, and who used it. */
  readonly imported?: readonly {
    readonly name: string;
    readonly digest: string;
    readonly uses: readonly ImportedUse[];
  }[];
  /** The ids of all bouncers whose keys it changes, with one move of the epoch: many are not read again. */
  readonly changed?: readonly number[];
  /** The ids of bouncers whose clients belong into the answer. */
  readonly clientsOf?: readonly number[];
  /** It changes the allow-list. */
  readonly allowList?: true;
}

export type ImportedUse = Pick<Sighting, 'address' | 'seenMs' | 'userAgent'>;

export interface Done {
  readonly kind: 'done';
  readonly mark: StoreMark;
  /** Where an earlier try wrote it, this may name more than it changed. */
  readonly changed: Changed;
  /** What the last of the statements answers, as JSON; null: nothing, or an earlier try wrote it. */
  readonly bodyJson: string | null;
  /** Of each bouncer in `clientsOf`. */
  readonly clients: readonly (readonly SeenClient[])[];
}

export type Commit =
  | Done
  | Refusal
  /** Nothing was written: D1 or the object's storage takes no write. */
  | { readonly kind: 'unwritable'; readonly problem: string }
  /** Whether it was written is not known. */
  | { readonly kind: 'unreachable' };

/** What isolates must not remember as it was. */
export interface Changed {
  readonly bouncerIds: readonly number[];
  readonly blockedMachines: readonly string[];
}

/** What is read of a mutation once it is written. `seq`: SQL for its row of the audit log. */
export function selectDone(
  d: DrizzleD1Database,
  seq: SQL,
  { newKeyOf, imported = [], allowList }: News,
  isChangedKnown = false,
) {
  const names = imported.map(({ name }) => name);
  return {
    ...(isChangedKnown ? {} : { changed: selectChanged(d, seq) }),
    blocked: selectBlockedBy(d, seq),
    ...(newKeyOf === undefined ? {} : { newKeys: selectFirstKey(d, newKeyOf) }),
    ...(names.length === 0 ? {} : { ids: selectIds(d, names) }),
    ...(allowList ? { allowed: selectAllowed(d) } : {}),
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

export function changedOf({ changed = [], blocked }: RowsDone, known: readonly number[] = []): Changed {
  return {
    bouncerIds: [...known, ...changed.map(({ bouncerId }) => bouncerId)],
    blockedMachines: blocked.map(({ machine }) => machine),
  };
}

/**
 * The one version of a new bouncer's key. No row where an earlier bouncer had this name: its program may be given the new
 * key.
 */
function selectFirstKey(db: DrizzleD1Database, name: string) {
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
function selectIds(db: DrizzleD1Database, names: readonly string[]) {
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

/** The machines that a mutation blocked: they have its time. */
function selectBlockedBy(db: DrizzleD1Database, seq: SQL) {
  const itsTime = sql`blocked_ms = (SELECT at_ms FROM audit WHERE seq = ${seq})`;
  return db.select({ machine: blockedMachines.machine }).from(blockedMachines).where(itsTime);
}
