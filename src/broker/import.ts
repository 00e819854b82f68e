// Bouncers of an engine, with the digests that its LAPI keeps: their keys go on working here, and nobody touches a
// bouncer. All or nothing per call, and the same call again does nothing more.

import * as z from 'zod';
import * as db from '../db/import.ts';
import { succeed, type Result } from '../failure.ts';
import type { Sighting } from '../feed/clients.ts';
import { parseNetwork } from '../lapi/ip.ts';
import { digest, nameMustBe, nameRule } from './fields.ts';
import { mutate, type Answer, type Mutation } from './mutations.ts';

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
  .meta({ override: { type: ['string', 'null'] } });

/** Columns that are not needed may be there: an export of all of them will do. */
const lapiRow = z
  .object(
    {
      name: z.string('must be a text').min(1, 'must be a text'),
      api_key: digest,
      revoked: z
        .unknown()
        .optional()
        .meta({ override: { type: ['boolean', 'integer', 'null'] } }),
      type: shown,
      version: shown,
      ip_address: shown,
      last_pull: shown.meta({ description: 'As SQLite, PostgreSQL or MySQL writes a time.' }),
    },
    'not an object',
  )
  .transform((row): LapiBouncer => {
    return {
      name: row.name.slice(0, 300),
      digest: row.api_key,
      revoked: row.revoked === true || row.revoked === 1,
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
    return { name: parent?.name ?? parentName((members[0] as LapiBouncer).name), digest, rows: members };
  });
}

function parentName(name: string): string {
  const at = name.lastIndexOf('@');
  return at > 0 && parseNetwork(name.slice(at + 1)) ? name.slice(0, at) : name;
}

/** Answers what became of each, and to `sightings` when the bouncers were seen last at the engine. */
export async function importBouncers(
  mutation: Mutation,
  rows: readonly LapiBouncer[],
): Promise<Result<Answer>> {
  const all = families(rows);
  return mutate(
    mutation,
    (d) => db.selectTaken(d, all),
    (rows) => {
      const taken = db.takenOf(rows);
      const skipped: Skipped[] = [];
      const imported: Family[] = [];
      const names = new Set<string>();
      for (const family of all) {
        const why = reasonAgainst(family, taken, names);
        if (why !== null) skipped.push({ name: family.name, why });
        else imported.push(family);
        if (why === null) names.add(family.name);
      }
      const folded = imported.reduce((sum, family) => sum + family.rows.length - 1, 0);
      return succeed({
        entry: {
          action: 'bouncer.import',
          target: `${imported.length} bouncers`,
          detail: {
            folded,
            skipped: skipped.length,
            bouncers: imported.map(({ name, digest }) => ({ name, start: digest.slice(0, 8) })),
          },
        },
        unchanged: db.noneTaken(imported),
        statements: (d) => db.importStatements(d, imported, mutation.nowMs),
        answer: { status: 200, body: { imported: imported.length, folded, skipped } },
      });
    },
  );
}

function reasonAgainst(family: Family, taken: db.Taken, names: ReadonlySet<string>): string | null {
  const { name, digest, rows } = family;
  if (rows.some(({ revoked }) => revoked)) return 'its key is revoked at the engine';
  if (taken.revoked.has(digest)) return 'its key was revoked here';
  const owner = taken.digests.get(digest);
  if (owner !== undefined) return `its key is registered already, as ${owner}`;
  if (!nameRule.test(name)) return `its name ${nameMustBe}`;
  if (taken.names.has(name)) return 'a bouncer with this name and another key is here already';
  return names.has(name) ? 'another key in this import has this name' : null;
}

/** When and from where the imported bouncers were last seen at the engine, for the feed to go on from. */
export async function sightingsOf(
  d1: D1Database,
  rows: readonly LapiBouncer[],
  nowMs: number,
): Promise<Sighting[]> {
  const ids = await db.importedIds(d1, nowMs);
  return families(rows).flatMap((family) => {
    const known = ids.get(family.name);
    if (!known) return [];
    return family.rows.flatMap(({ address, lastPullMs, type, version }) => {
      if (lastPullMs === null || address === '') return [];
      const userAgent = version === '' ? type : `${type}/${version}`;
      return [{ ...known, address, seenMs: Math.min(lastPullMs, nowMs), userAgent }];
    });
  });
}
