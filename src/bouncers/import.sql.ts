// The statements of an import: a thousand bouncers in two statements, each with all rows as one JSON text, since D1
// counts statements and bound parameters.

import { eq, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { RowsOf } from '../store/audit.sql.ts';
import { listed } from '../store/facts.ts';
import { bouncers, keyVersions, revokedDigests } from '../store/schema.ts';

export interface ImportedKey {
  readonly name: string;
  readonly lapiName: string;
  readonly digest: string;
}

/** What is there of some names and digests already. */
export interface Taken {
  readonly names: ReadonlySet<string>;
  /** Digest → the bouncer that it opens. */
  readonly digests: ReadonlyMap<string, string>;
  readonly revoked: ReadonlySet<string>;
}

export function selectTaken(db: DrizzleD1Database, keys: readonly ImportedKey[]) {
  return [
    db
      .select({ name: bouncers.name })
      .from(bouncers)
      .where(sql`${bouncers.name} IN ${namesOf(keys)}`),
    db
      .select({ digest: keyVersions.digest, name: bouncers.name })
      .from(keyVersions)
      .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId))
      .where(sql`${keyVersions.digest} IN ${digestsOf(keys)}`),
    db
      .select({ digest: revokedDigests.digest })
      .from(revokedDigests)
      .where(sql`${revokedDigests.digest} IN ${digestsOf(keys)}`),
  ] as const;
}

export function takenOf([names, digests, revoked]: RowsOf<ReturnType<typeof selectTaken>>): Taken {
  return {
    names: new Set(names.map(({ name }) => name)),
    digests: new Map(digests.map(({ digest, name }) => [digest, name])),
    revoked: new Set(revoked.map(({ digest }) => digest)),
  };
}

/** SQL for "none of these is there, and none was taken away". */
export function noneTaken(keys: readonly ImportedKey[]): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM bouncers WHERE name IN ${namesOf(keys)})
    AND NOT EXISTS (SELECT 1 FROM key_versions WHERE digest IN ${digestsOf(keys)})
    AND NOT EXISTS (SELECT 1 FROM revoked_digests WHERE digest IN ${digestsOf(keys)})`;
}

/**
 * The statements that make bouncers with one key each. A raw statement can't be in drizzle's batch, and an insertion
 * from a query names every column of the schema, in its order.
 */
export function importStatements(db: DrizzleD1Database, keys: readonly ImportedKey[], nowMs: number) {
  const rows = JSON.stringify(keys.map(({ name, digest, lapiName }) => [name, digest, lapiName]));
  return [
    db.insert(bouncers).select(sql`
      SELECT NULL, json_extract(value, '$[0]'), ${nowMs}, NULL, NULL, 1, NULL, NULL, NULL, 1,
        json_extract(value, '$[2]')
      FROM json_each(${rows})`),
    db.insert(keyVersions).select(sql`
      SELECT NULL, bouncers.id, json_extract(value, '$[1]'), ${nowMs}, 1, 'current', NULL, NULL, NULL, NULL, NULL
      FROM json_each(${rows}) JOIN bouncers ON bouncers.name = json_extract(value, '$[0]')`),
  ];
}

function namesOf(keys: readonly ImportedKey[]): SQL {
  return listed(keys.map(({ name }) => name));
}

function digestsOf(keys: readonly ImportedKey[]): SQL {
  return listed(keys.map(({ digest }) => digest));
}
