// D1 as it was, put back while everything else goes on: what Time Travel does.
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';

const tables = [
  'bouncers',
  'key_versions',
  'operator_tokens',
  'webhooks',
  'revoked_digests',
  'ends_outbox',
  'key_epoch',
  'key_changes',
  'audit',
  'idempotent_answers',
];
export type Dump = ReadonlyMap<string, readonly Record<string, unknown>[]>;

export async function backUp(): Promise<Dump> {
  const dump = new Map<string, Record<string, unknown>[]>();
  for (const table of tables) dump.set(table, (await env.DB.prepare(`SELECT * FROM ${table}`).all()).results);
  return dump;
}

/** All tables as they were, at once. */
export async function putBack(dump: Dump): Promise<void> {
  vi.spyOn(console, 'warn').mockReturnValue();
  await env.DB.batch([
    ...tables.map((table) => env.DB.prepare(`DELETE FROM ${table}`)),
    ...[...dump].flatMap(([table, rows]) =>
      rows.map((row) => {
        const marks = Object.keys(row).map(() => '?');
        return env.DB.prepare(
          `INSERT INTO ${table} (${Object.keys(row).join()}) VALUES (${marks.join()})`,
        ).bind(...Object.values(row));
      }),
    ),
  ]);
}
