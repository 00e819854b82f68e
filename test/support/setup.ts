// Every test starts from empty storage with all migrations applied, leaves clock and network as they were, and leaves no
// key or token in a row of D1.
import { applyD1Migrations, reset } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { mintedIn } from '../../src/crypto/mint.ts';

beforeEach(async () => {
  await reset();
  await applyD1Migrations(env.DB, env.MIGRATIONS);
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
  // The log is sealed behind the answers: not into the storage of the next test.
  await env.DECISION_FEED.getByName('default').sealAudit();
  const tables = await env.DB.prepare(
    `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'`,
  ).all<{ name: string }>();
  const rows = await env.DB.batch(
    tables.results.map(({ name }) => env.DB.prepare(`SELECT * FROM "${name}"`)),
  );
  for (const [at, { results }] of rows.entries()) {
    const leaked = mintedIn(JSON.stringify(results)).length;
    expect(leaked, `keys or tokens in rows of ${tables.results[at]?.name}`).toBe(0);
  }
});
