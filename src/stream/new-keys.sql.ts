// Which keys were made here, and where the feed was then: before that nobody can have had anything by them, so that a
// start-up need not carry the ends of before. By the key and not by the client, since a new address is no new bouncer.
// Of any other key nothing is known: it was registered by its digest, imported or adopted, it follows another of its
// bouncer, or it is older than the oldest tombstone. Sets in the kernel, files and key-value stores outlive the
// programs that fill them. A mistake here leaves a ban where nobody takes it back.

import { createMissing } from '../mirror/decisions.sql.ts';

const table = `CREATE TABLE IF NOT EXISTS new_keys (
  version_id INTEGER PRIMARY KEY, bouncer_id INTEGER NOT NULL, sequence INTEGER NOT NULL)`;

/** The first version of a bouncer's key. */
export interface NewKey {
  readonly versionId: number;
  readonly bouncerId: number;
}

export interface NewKeys {
  /** The sequence since when a version of a key was there; 0: it is not known. */
  madeAt(versionId: number): number;
  add(key: NewKey, sequence: number): void;
  forgetBouncer(bouncerId: number): void;
  forgetBouncersAfter(bouncerId: number): void;
  /** Forgets those that were made before the tombstones that are left. */
  forgetUpTo(sequence: number): void;
}

/** Of more than these nothing is known. */
const mostKeys = 50_000;

export function openNewKeys(sql: SqlStorage): NewKeys {
  createMissing(sql, [table]);
  const known = new Map<number, Pick<NewKey, 'bouncerId'> & { readonly sequence: number }>();
  const rows = sql.exec<{ versionId: number; bouncerId: number; sequence: number }>(
    `SELECT version_id AS versionId, bouncer_id AS bouncerId, sequence FROM new_keys`,
  );
  for (const { versionId, bouncerId, sequence } of rows) known.set(versionId, { bouncerId, sequence });

  return {
    madeAt: (versionId) => known.get(versionId)?.sequence ?? 0,
    add({ versionId, bouncerId }, sequence) {
      if (known.size >= mostKeys) return;
      sql.exec(`INSERT OR IGNORE INTO new_keys VALUES (?, ?, ?)`, versionId, bouncerId, sequence);
      if (!known.has(versionId)) known.set(versionId, { bouncerId, sequence });
    },
    forgetBouncer(bouncerId) {
      sql.exec(`DELETE FROM new_keys WHERE bouncer_id = ?`, bouncerId);
      for (const [versionId, key] of known) if (key.bouncerId === bouncerId) known.delete(versionId);
    },
    forgetBouncersAfter(bouncerId) {
      sql.exec(`DELETE FROM new_keys WHERE bouncer_id > ?`, bouncerId);
      for (const [versionId, key] of known) if (key.bouncerId > bouncerId) known.delete(versionId);
    },
    forgetUpTo(sequence) {
      sql.exec(`DELETE FROM new_keys WHERE sequence <= ?`, sequence);
      for (const [versionId, key] of known) if (key.sequence <= sequence) known.delete(versionId);
    },
  };
}
