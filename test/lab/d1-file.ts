// The SQLite file in which `npm start` keeps D1, while it is stopped: for rows that nobody can wait for one by one.
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';

/**
 * Writes to D1, in one transaction, and forgets the feed's object: a new one takes all from D1. The file is made at D1's
 * first use.
 */
export async function writeD1(stateDir: string, write: (database: DatabaseSync) => void): Promise<void> {
  const sqlite = process.getBuiltinModule('node:sqlite');
  const folder = join(stateDir, 'd1/lapidary-d1');
  const file = readdirSync(folder).find((name) => /^[0-9a-f]{64}\.sqlite$/.test(name)) as string;
  const database = new sqlite.DatabaseSync(join(folder, file));
  database.exec('BEGIN');
  write(database);
  database.exec('COMMIT');
  database.close();
  await rm(join(stateDir, 'feed'), { recursive: true });
}

/** So many sealed rows of today in place of the audit log, as operators and bouncers leave them. */
export function fillAudit(database: DatabaseSync, rows: number): void {
  database.exec('DELETE FROM audit');
  const insert = database.prepare(
    `INSERT INTO audit (seq, at_ms, actor, action, target, detail_json, digest, previous_hash, hash)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const nowMs = Date.now();
  let previousHash = '0'.repeat(64);
  for (let seq = 1; seq <= rows; seq++) {
    const said = [
      nowMs - rows + seq,
      `token:operator-${seq % 8}`,
      seq % 2 === 0 ? 'decision.ban' : 'bouncer.rotate',
      `bouncer-${seq % 10_000}`,
      JSON.stringify({ number: seq, start: 'a1b2c3d4', grace_seconds: 900, expires_at: null }),
    ] as const;
    const digest = sha256(said);
    const hash = sha256([previousHash, seq, digest]);
    insert.run(seq, ...said, digest, previousHash, hash);
    previousHash = hash;
  }
}

function sha256(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}
