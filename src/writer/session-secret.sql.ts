// What signs the sessions of operators in the console: 32 random bytes that are made once and kept in the object alone. By
// themselves they sign nothing (operators/sessions.ts). If they are lost, operators sign in again.

import { toBase64 } from '../formats/bytes.ts';
import { createMissing } from '../mirror/decisions.sql.ts';
import { unwritable } from '../store/unwritable.ts';

const table = `CREATE TABLE IF NOT EXISTS session_secret (
  id INTEGER PRIMARY KEY CHECK (id = 0), secret TEXT NOT NULL)`;

/** In base64. Throws where none was made yet and none can be written. */
export function sessionSecret(sql: SqlStorage): string {
  try {
    createMissing(sql, [table]);
    const [kept] = sql.exec<{ secret: string }>(`SELECT secret FROM session_secret`).toArray();
    if (kept) return kept.secret;
    const secret = toBase64(crypto.getRandomValues(new Uint8Array(32)));
    sql.exec(`INSERT INTO session_secret VALUES (0, ?)`, secret);
    return secret;
  } catch (error) {
    throw unwritable('the feed’s storage', error);
  }
}
