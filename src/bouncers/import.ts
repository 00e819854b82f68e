// Import: bouncers of an engine, by the digests that its LAPI keeps of their keys. The keys go on working here, and no
// bouncer needs to be touched. A call imports all of its rows or none, and may be repeated safely.

import { eq, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import type { RowsOf } from '../store/audit.sql.ts';
import { listed } from '../store/facts.ts';
import { bouncers, keyVersions, revokedDigests } from '../store/schema.ts';
import { insertStatements } from './bouncers.sql.ts';
import { selectEngineKey } from './host-keys.sql.ts';
import { succeed, type Failure, type Result } from '../http/failure.ts';
import type { ImportedUse } from '../writer/commit.ts';
import { parseNetwork } from '../formats/ip.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import { digest, nameRule } from '../operations/fields.ts';
import { mutate, type Answer, type Mutation } from '../operations/mutate.ts';

const mostImported = 1000;

/** A thousand rows of LAPI are about 400 KB. */
export const importLimitBytes = 2 * 1024 * 1024;

/** A text column that is only shown. Another type is no reason to refuse the row. */
const shown = z
  .unknown()
  .optional()
  .transform((value) => (typeof value === 'string' ? value.slice(0, 100) : ''))
  .meta({ description: 'Anything but a text counts as none.' });

/** A row of LAPI's table `bouncers`. Further columns may be there: an export of all columns will do. */
const lapiRow = z
  .object(
    {
      name: z.string('must be a text').min(1, 'must be a text'),
      api_key: digest,
      // No text: "0" is true to one reader and false to another.
      revoked: z
        .union([z.boolean(), z.literal(0), z.literal(1)], 'must be true, false, 0, 1 or null')
        .nullish()
        .transform((value) => value === true || value === 1),
      type: shown,
      version: shown,
      ip_address: shown,
      last_pull: shown.meta({
        description: 'As SQLite, PostgreSQL or MySQL writes a time; anything else counts as none.',
      }),
    },
    'not an object',
  )
  .transform(({ name, api_key, ip_address, last_pull, ...row }) => {
    const lastPullMs = readTime(last_pull);
    return { ...row, name: name.slice(0, 300), digest: api_key, address: ip_address, lastPullMs };
  });

type LapiBouncer = z.output<typeof lapiRow>;

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
  merged: z.int().meta({ description: 'Rows of further addresses that were merged into their parent.' }),
  renamed: z
    .array(z.object({ lapi_name: z.string(), name: z.string() }))
    .meta({ description: 'Those whose LAPI name is no valid name here.' }),
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

/** A bouncer to be imported: the rows of LAPI that share one key. */
interface Candidate {
  readonly name: string;
  /** Its name in LAPI. */
  readonly lapiName: string;
  readonly digest: string;
  readonly rows: readonly LapiBouncer[];
}

/**
 * LAPI from 1.6.3 on adds a row `name@address` for every further address that a key is used from. Here these addresses
 * are clients of one bouncer.
 */
function candidatesOf(rows: readonly LapiBouncer[]): Candidate[] {
  return [...Map.groupBy(rows, (row) => row.digest)].map(([digest, members]) => {
    const parent = members.find(({ name }) => parentName(name) === name);
    const lapiName = parent?.name ?? parentName((members[0] as LapiBouncer).name);
    return { name: validName(lapiName, digest), lapiName, digest, rows: members };
  });
}

/**
 * A name that may stand in a path: LAPI takes any text. Unfit characters are replaced and the digest's prefix is added, so
 * that two names never become one, and a repeated import makes the same name.
 */
function validName(lapiName: string, digest: string): string {
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

/** The digest of a key that Lapidary pulled with earlier. Only the feed's object knows these. */
const isFeedKey: Failure = {
  kind: 'conflict',
  field: 'bouncers',
  problem: 'one of these keys is one that Lapidary itself pulls with: leave that row out',
};

/** Imports all rows that can be, and answers what became of each. A key that Lapidary itself pulls with is skipped. */
export async function importBouncers(
  mutation: Mutation,
  rows: readonly LapiBouncer[],
  { engines }: Pick<Settings, 'engines'>,
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const candidates = candidatesOf(rows);
  const set = engines.flatMap(({ apiKey }) => (apiKey === null ? [] : [digestOf(apiKey)]));
  const reads = (d: DrizzleD1Database) => [selectEngineKey(d), ...selectTaken(d, candidates)] as const;
  return mutate(mutation, reads, ([sent, ...found]) => {
    const taken = takenOf(found, new Set([...set, ...sent.map(({ digest }) => digest)]));
    const skipped: { name: string; why: string }[] = [];
    const imported: Candidate[] = [];
    const names = new Set<string>();
    for (const candidate of candidates) {
      const why = reasonAgainst(candidate, taken, names);
      if (why !== null) {
        skipped.push({ name: candidate.lapiName, why });
      } else {
        imported.push(candidate);
        names.add(candidate.name);
      }
    }
    const renamed = imported
      .filter(({ name, lapiName }) => name !== lapiName)
      .map(({ name, lapiName }) => ({ lapi_name: lapiName, name }));
    const merged = imported.reduce((sum, candidate) => sum + candidate.rows.length - 1, 0);
    return succeed({
      entry: {
        action: 'bouncer.import',
        target: `${imported.length} bouncers`,
        detail: {
          folded: merged,
          renamed,
          skipped: skipped.length,
          bouncers: imported.map(({ name, digest }) => ({ name, start: digest.slice(0, 8) })),
        },
      },
      unchanged: noneTaken(imported),
      statements: (d) =>
        insertStatements(
          d,
          imported.map(({ name, digest, lapiName }) => ({ name, digest, lapiName })),
          nowMs,
        ),
      answer: { status: 200, body: { imported: imported.length, merged, renamed, skipped } },
      clash: () => isFeedKey,
      news: {
        imported: imported.map(({ name, digest, rows }) => ({ name, digest, uses: usesOf(rows, nowMs) })),
      },
    });
  });
}

function reasonAgainst(
  { name, digest, rows }: Candidate,
  taken: ReturnType<typeof takenOf>,
  names: ReadonlySet<string>,
): string | null {
  if (taken.feed.has(digest)) return 'it is the key that Lapidary itself pulls with';
  if (rows.some(({ revoked }) => revoked)) return 'its key is revoked at the engine';
  if (taken.revoked.has(digest)) return 'its key was revoked here';
  const owner = taken.digests.get(digest);
  if (owner !== undefined) return `its key is registered already, as ${owner}`;
  if (taken.names.has(name)) return 'a bouncer with this name and another key is here already';
  return names.has(name) ? 'another key in this import has this name' : null;
}

/** When and from where the engine last saw a bouncer. The feed goes on from there. */
function usesOf(rows: Candidate['rows'], nowMs: number): ImportedUse[] {
  return rows.flatMap(({ address, lastPullMs, type, version }) => {
    if (lastPullMs === null || address === '') return [];
    const userAgent = version === '' ? type : `${type}/${version}`;
    return [{ address, seenMs: Math.min(lastPullMs, nowMs), userAgent }];
  });
}

function selectTaken(db: DrizzleD1Database, candidates: readonly Candidate[]) {
  return [
    db
      .select({ name: bouncers.name })
      .from(bouncers)
      .where(sql`${bouncers.name} IN ${namesOf(candidates)}`),
    db
      .select({ digest: keyVersions.digest, name: bouncers.name })
      .from(keyVersions)
      .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId))
      .where(sql`${keyVersions.digest} IN ${digestsOf(candidates)}`),
    db
      .select({ digest: revokedDigests.digest })
      .from(revokedDigests)
      .where(sql`${revokedDigests.digest} IN ${digestsOf(candidates)}`),
  ] as const;
}

/** Which names and digests can not be imported. `feed`: the digests of the keys that Lapidary pulls with. */
function takenOf(
  [names, digests, revoked]: RowsOf<ReturnType<typeof selectTaken>>,
  feed: ReadonlySet<string>,
) {
  return {
    names: new Set(names.map(({ name }) => name)),
    /** Digest → the bouncer that it belongs to. */
    digests: new Map(digests.map(({ digest, name }) => [digest, name])),
    revoked: new Set(revoked.map(({ digest }) => digest)),
    feed,
  };
}

/** SQL for "none of these names and digests is there, and no digest was revoked". */
function noneTaken(candidates: readonly Candidate[]): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM bouncers WHERE name IN ${namesOf(candidates)})
    AND NOT EXISTS (SELECT 1 FROM key_versions WHERE digest IN ${digestsOf(candidates)})
    AND NOT EXISTS (SELECT 1 FROM revoked_digests WHERE digest IN ${digestsOf(candidates)})`;
}

function namesOf(candidates: readonly Candidate[]): SQL {
  return listed(candidates.map(({ name }) => name));
}

function digestsOf(candidates: readonly Candidate[]): SQL {
  return listed(candidates.map(({ digest }) => digest));
}
