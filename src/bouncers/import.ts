// Bouncers of an engine, with the digests that its LAPI keeps: their keys go on working here, and nobody touches a
// bouncer. All or nothing per call, and the same call again does nothing more.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import * as db from './import.sql.ts';
import { selectEngineKey } from './host-keys.sql.ts';
import { succeed, type Failure, type Result } from '../http/failure.ts';
import type { ImportedUse } from '../writer/commit.ts';
import { parseNetwork } from '../formats/ip.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import { digest, nameRule } from '../operations/fields.ts';
import { mutate, type Answer, type Mutation } from '../operations/mutate.ts';

/** A row of LAPI's table `bouncers`. */
export interface LapiBouncer {
  readonly name: string;
  readonly digest: string;
  readonly revoked: boolean;
  readonly type: string;
  readonly version: string;
  readonly address: string;
  readonly lastPullMs: number | null;
}

export interface Skipped {
  readonly name: string;
  readonly why: string;
}

export const mostImported = 1000;

/** For the body of an import: a thousand rows of LAPI are some 400 KB. */
export const importLimitBytes = 2 * 1024 * 1024;

/** Of a text column that is only shown: whatever else stands in it is no reason to refuse the row. */
const shown = z
  .unknown()
  .optional()
  .transform((value) => (typeof value === 'string' ? value.slice(0, 100) : ''))
  .meta({ description: 'What is no text counts as none.' });

/** Columns that are not needed may be there: an export of all of them will do. */
const lapiRow = z
  .object(
    {
      name: z.string('must be a text').min(1, 'must be a text'),
      api_key: digest,
      // A text is no answer: "0" is true to one reader and false to another.
      revoked: z
        .union([z.boolean(), z.literal(0), z.literal(1)], 'must be true, false, 0, 1 or null')
        .nullish()
        .transform((value) => value === true || value === 1),
      type: shown,
      version: shown,
      ip_address: shown,
      last_pull: shown.meta({
        description: 'As SQLite, PostgreSQL or MySQL writes a time; what is none counts as none.',
      }),
    },
    'not an object',
  )
  .transform((row): LapiBouncer => {
    return {
      name: row.name.slice(0, 300),
      digest: row.api_key,
      revoked: row.revoked,
      type: row.type,
      version: row.version,
      address: row.ip_address,
      lastPullMs: readTime(row.last_pull),
    };
  });

/** What the documented export writes. An engine without bouncers exports null (MySQL) or an empty list. */
export const lapiExport = z
  .strictObject({
    bouncers: z
      .array(lapiRow, 'must be the list that the export wrote')
      .max(mostImported, `must be at most ${mostImported}: send them in several calls`)
      .nullable(),
  })
  .transform(({ bouncers }) => bouncers ?? []);

export const importShape = z.object({
  imported: z.int(),
  folded: z.int().meta({ description: 'Rows of further addresses that went into their parent.' }),
  renamed: z
    .array(z.object({ lapi_name: z.string(), name: z.string() }))
    .meta({ description: 'Those whose names are none of ours.' }),
  skipped: z.array(z.object({ name: z.string(), why: z.string() })),
});

/** SQLite writes `2026-01-02 03:04:05.678901234+00:00`, PostgreSQL a `T`, MySQL no zone (it is UTC). */
function readTime(value: string): number | null {
  const match = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,3})?)\d*(Z|[+-]\d\d(?::\d\d)?)?$/.exec(value);
  if (!match) return null;
  const [, day, time, zone = 'Z'] = match;
  const ms = Date.parse(`${day}T${time}${/^[+-]\d\d$/.test(zone) ? `${zone}:00` : zone}`);
  return Number.isNaN(ms) ? null : ms;
}

/** One bouncer to be: a row of LAPI and those that share its key. */
interface Family {
  readonly name: string;
  /** What LAPI calls it. */
  readonly lapiName: string;
  readonly digest: string;
  readonly rows: readonly LapiBouncer[];
}

/**
 * LAPI from 1.6.3 on makes a row `name@address` of its own for every further address that a key is used from.
 * Here these are the clients of one bouncer.
 */
function families(rows: readonly LapiBouncer[]): Family[] {
  const byDigest = new Map<string, LapiBouncer[]>();
  for (const row of rows) {
    const family = byDigest.get(row.digest);
    if (family) family.push(row);
    else byDigest.set(row.digest, [row]);
  }
  return [...byDigest].map(([digest, members]) => {
    const parent = members.find(({ name }) => parentName(name) === name);
    const lapiName = parent?.name ?? parentName((members[0] as LapiBouncer).name);
    return { name: nameOfOurs(lapiName, digest), lapiName, digest, rows: members };
  });
}

/**
 * LAPI takes any text as a name; ours stand in paths. What is left of one gets the start of the digest, so that two of
 * them stay two, and the same import again finds the same.
 */
function nameOfOurs(lapiName: string, digest: string): string {
  if (nameRule.test(lapiName)) return lapiName;
  const plain = lapiName
    .normalize('NFKD')
    .replace(/\p{Mark}/gu, '')
    .replace(/[^A-Za-z0-9._@-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 55)
    .replace(/-+$/, '');
  return `${plain || 'bouncer'}-${digest.slice(0, 8)}`;
}

function parentName(name: string): string {
  const at = name.lastIndexOf('@');
  return at > 0 && parseNetwork(name.slice(at + 1)) ? name.slice(0, at) : name;
}

const feedsKey = 'it is the key that Lapidary itself pulls with';

/** One that a host sent before its last, and that is still in use: of that only the feed's object knows. */
const isFeeds: Failure = {
  kind: 'conflict',
  field: 'bouncers',
  problem: 'one of these keys is one that Lapidary itself pulls with: leave that row out',
};

/** Answers what became of each. The keys that Lapidary pulls with, of these settings and of a host, are no bouncer's here. */
export async function importBouncers(
  mutation: Mutation,
  rows: readonly LapiBouncer[],
  { engines }: Pick<Settings, 'engines'>,
): Promise<Result<Answer>> {
  const all = families(rows);
  const set = await Promise.all(engines.flatMap(({ apiKey }) => (apiKey === null ? [] : [digestOf(apiKey)])));
  const reads = (d: DrizzleD1Database) => [selectEngineKey(d), ...db.selectTaken(d, all)] as const;
  return mutate(mutation, reads, ([sent, ...found]) => {
    const feedDigests = [...set, ...sent.map(({ digest }) => digest)];
    const taken = db.takenOf(found);
    const skipped: Skipped[] = [];
    const imported: Family[] = [];
    const names = new Set<string>();
    for (const family of all) {
      const why = reasonAgainst(family, taken, names, feedDigests);
      if (why !== null) skipped.push({ name: family.lapiName, why });
      else imported.push(family);
      if (why === null) names.add(family.name);
    }
    const renamed = imported
      .filter(({ name, lapiName }) => name !== lapiName)
      .map(({ name, lapiName }) => ({ lapi_name: lapiName, name }));
    const folded = imported.reduce((sum, family) => sum + family.rows.length - 1, 0);
    return succeed({
      entry: {
        action: 'bouncer.import',
        target: `${imported.length} bouncers`,
        detail: {
          folded,
          renamed,
          skipped: skipped.length,
          bouncers: imported.map(({ name, digest }) => ({ name, start: digest.slice(0, 8) })),
        },
      },
      unchanged: db.noneTaken(imported),
      statements: (d) => db.importStatements(d, imported, mutation.nowMs),
      answer: { status: 200, body: { imported: imported.length, folded, renamed, skipped } },
      clash: () => isFeeds,
      news: {
        imported: imported.map((family) => {
          return { name: family.name, digest: family.digest, uses: usesOf(family, mutation.nowMs) };
        }),
      },
    });
  });
}

function reasonAgainst(
  { name, digest, rows }: Family,
  taken: db.Taken,
  names: ReadonlySet<string>,
  feedDigests: readonly string[],
): string | null {
  if (feedDigests.includes(digest)) return feedsKey;
  if (rows.some(({ revoked }) => revoked)) return 'its key is revoked at the engine';
  if (taken.revoked.has(digest)) return 'its key was revoked here';
  const owner = taken.digests.get(digest);
  if (owner !== undefined) return `its key is registered already, as ${owner}`;
  if (taken.names.has(name)) return 'a bouncer with this name and another key is here already';
  return names.has(name) ? 'another key in this import has this name' : null;
}

/** When and from where a bouncer was last seen at the engine, for the feed to go on from. */
function usesOf({ rows }: Family, nowMs: number): ImportedUse[] {
  return rows.flatMap(({ address, lastPullMs, type, version }) => {
    if (lastPullMs === null || address === '') return [];
    const userAgent = version === '' ? type : `${type}/${version}`;
    return [{ address, seenMs: Math.min(lastPullMs, nowMs), userAgent }];
  });
}
