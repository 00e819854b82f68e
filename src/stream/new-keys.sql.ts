// Keys that were made here, with the sequence at that time. Nobody can have read anything with such a key before, so a
// start-up need not carry the removals from before it. This goes by the key and not by the client: a new address is no new
// bouncer. Nothing is known of other keys: those that were registered by their digest, imported or adopted, those that
// replace another key of their bouncer, and those that are older than the oldest tombstone. Their bouncers may still have
// bans in kernel sets, files or key-value stores. A mistake here leaves a ban in place for ever.

import { createMissing } from '../mirror/decisions.sql.ts';

const table = `CREATE TABLE IF NOT EXISTS new_keys (
  version_id INTEGER PRIMARY KEY, bouncer_id INTEGER NOT NULL, sequence INTEGER NOT NULL)`;

/** The first version of a bouncer's key. */
export interface NewKey {
  readonly versionId: number;
  readonly bouncerId: number;
}

/** Further keys are not noted. */
const mostKeys = 50_000;

export type NewKeys = ReturnType<typeof openNewKeys>;

export function openNewKeys(sql: SqlStorage) {
  createMissing(sql, [table]);
  const select = `SELECT version_id AS versionId, bouncer_id AS bouncerId, sequence FROM new_keys`;
  const rows = sql.exec<{ versionId: number; bouncerId: number; sequence: number }>(select);
  const known = new Map(rows.toArray().map(({ versionId, ...key }) => [versionId, key]));

  return {
    /** The sequence at which a version of a key was made; 0: it is not known. */
    madeAt: (versionId: number): number => known.get(versionId)?.sequence ?? 0,
    add({ versionId, bouncerId }: NewKey, sequence: number): void {
      if (known.size >= mostKeys) return;
      sql.exec(`INSERT OR IGNORE INTO new_keys VALUES (?, ?, ?)`, versionId, bouncerId, sequence);
      if (!known.has(versionId)) known.set(versionId, { bouncerId, sequence });
    },
    forgetBouncer(bouncerId: number): void {
      sql.exec(`DELETE FROM new_keys WHERE bouncer_id = ?`, bouncerId);
      for (const [versionId, key] of known) if (key.bouncerId === bouncerId) known.delete(versionId);
    },
    forgetBouncersAfter(bouncerId: number): void {
      sql.exec(`DELETE FROM new_keys WHERE bouncer_id > ?`, bouncerId);
      for (const [versionId, key] of known) if (key.bouncerId > bouncerId) known.delete(versionId);
    },
    /** Forgets keys that were made before the oldest tombstone. */
    forgetUpTo(sequence: number): void {
      sql.exec(`DELETE FROM new_keys WHERE sequence <= ?`, sequence);
      for (const [versionId, key] of known) if (key.sequence <= sequence) known.delete(versionId);
    },
  };
}
