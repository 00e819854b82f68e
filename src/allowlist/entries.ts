// Entries of the allow-list as operators make, change and remove them. What they do to decisions is in mirror/allow-list.ts.
// Whatever may let free more than was meant needs `force`.

import { asc, eq, gt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { glob } from '../formats/glob.ts';
import { formatNetwork, parseNetwork, type Network } from '../formats/ip.ts';
import { badInput, conflict, fail, succeed, type Result } from '../http/failure.ts';
import type { AllowEffect } from '../mirror/allow-list.ts';
import { fittingOf } from '../mirror/patterns.ts';
import { duration, isoTime, longestMs, time } from '../operations/fields.ts';
import {
  checkRevision,
  mutate,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import { allowedNetworks } from '../store/allow-list.sql.ts';
import { askD1 } from '../store/ask.ts';
import type { RowsOf } from '../store/audit.sql.ts';
import { rowJson } from '../store/facts.ts';
import { bouncers as bouncerRows } from '../store/schema.ts';

type Entry = typeof allowedNetworks.$inferSelect;

/** The feed keeps a copy in memory, and each change of the list reads all of it. */
const mostEntries = 10_000;

/** Of one entry. */
const mostBouncers = 30;
/** Of all entries together. Each change of the list reads all. */
const mostNamed = 30_000;
/** Different ones of all entries: rows, polls and questions of isolates have them. */
const mostNames = 1_000;
/** Those with `*` among them: the name of each bouncer is compared with each. */
const mostWild = 100;

/** An entry that is wider than this needs `force`. */
const widestEntry = { v4: 8, v6: 32 };
/** So does one that lets a banned range free that is wider than this. */
const widestFreed = { v4: 24, v6: 64 };

const valueMustBe = 'must be an IP address or a CIDR range';
const commentMustBe = 'must be 1 to 200 characters';

const comment = z
  .string(commentMustBe)
  .min(1, commentMustBe)
  .max(200, commentMustBe)
  .meta({ description: 'Why, for those who read the list later.', example: 'office' });
const life = duration(1000, longestMs);

const bouncersMustBe = `must be a list of 1 to ${mostBouncers} names of bouncers, or patterns like web-*`;

/** Null: every bouncer. */
const bouncers = z
  .array(glob, bouncersMustBe)
  .min(1, bouncersMustBe)
  .max(mostBouncers, bouncersMustBe)
  .transform((patterns): readonly string[] => [...new Set(patterns)].sort())
  .nullish()
  .transform((patterns) => (patterns?.some((pattern) => /^\*+$/.test(pattern)) ? null : (patterns ?? null)))
  .meta({
    description:
      'For which bouncers: their names, in which `*` stands for any characters. Absent, and with `*` among them: for all.',
    example: ['web-*', 'vpn-1'],
  });

export const newEntry = z.strictObject({
  value: z
    .string(valueMustBe)
    .transform((text, context): Network => {
      const network = parseNetwork(text);
      if (network) return network;
      context.addIssue({ code: 'custom', message: valueMustBe });
      return z.NEVER;
    })
    .meta({ description: 'An address or a CIDR range.', example: '192.0.2.10' }),
  comment,
  expires_in: life.optional().meta({ description: 'Absent: it does not end.', example: '8h' }),
  bouncers,
  force: z
    .boolean('must be true or false')
    .default(false)
    .meta({
      description:
        `Also for a range wider than /${widestEntry.v4} (IPv6: /${widestEntry.v6}), and where a banned range wider than ` +
        `/${widestFreed.v4} (/${widestFreed.v6}) is let free with it.`,
    }),
});

export const entryChange = z
  .strictObject({
    comment: comment.optional(),
    expires_in: life.nullish().meta({ description: 'From now on. Null: it does not end.', example: '8h' }),
  })
  .refine((change) => Object.values(change).some((field) => field !== undefined), {
    message: 'must have comment, expires_in or both',
  })
  .meta({ minProperties: 1 });

export const entryShape = z
  .object({
    id: z.int(),
    value: z.string(),
    comment: z.string(),
    expires_at: time.nullable().meta({ description: 'Null: it does not end.' }),
    bouncers: z
      .array(z.string())
      .nullable()
      .meta({ description: 'For which bouncers: patterns of their names. Null: for all.' }),
    created_at: time,
    created_by: z.string(),
    revision: z.int().meta({ description: 'Counts its changes; its ETag.' }),
  })
  .meta({ id: 'AllowedNetwork' });

/** What an entry withholds, as operators read it. */
export const effectShape = {
  decisions: z.int().meta({ description: 'Active decisions that it withholds.' }),
  ranges: z
    .array(
      z.object({
        id: z.int().meta({ description: 'Of the decision.' }),
        value: z.string(),
        origin: z.string(),
        scenario: z.string(),
        addresses_freed: z.string().meta({
          description: 'How many addresses of it nobody allowed. The stream can not except one from a range.',
        }),
      }),
    )
    .meta({ description: 'Banned ranges among them in which the entry is: the first 100.' }),
  warnings: z
    .array(z.string())
    .meta({ description: 'What the entry lets free besides, and what it can not.' }),
};

export function describeEntry(entry: Entry): z.input<typeof entryShape> {
  const { id, value, expiresMs, createdMs, actor, revision } = entry;
  const [expires_at, created_at] = [isoTime(expiresMs), isoTime(createdMs)];
  const bouncers = entry.bouncersJson === null ? null : (JSON.parse(entry.bouncersJson) as string[]);
  const shown = { id, value, comment: entry.comment, expires_at, bouncers };
  return { ...shown, created_at, created_by: actor, revision };
}

const mostShown = 100;

/** `bouncers`: for which ones the entry is; null: for all. */
export function describeEffect(
  value: string,
  bouncers: readonly string[] | null,
  { decisions, ranges, beyond }: AllowEffect,
) {
  const from = bouncers === null ? '' : ` from ${bouncers.join(', ')}`;
  const shown = ranges.slice(0, mostShown).map(({ decision, freed }) => {
    const { id, origin, scenario } = decision;
    return { id, value: decision.value, origin, scenario, addresses_freed: freed };
  });
  const warnings = shown.map(
    (range) =>
      `${value} is in the banned range ${range.value} (decision ${range.id}), which is withheld as a whole${from}: ` +
      `${range.addresses_freed} other addresses are let free, but for look-ups and /lists`,
  );
  if (beyond > 0) {
    warnings.push(
      `${beyond} active decisions are on countries, AS numbers or other scopes: no address can be excepted from them`,
    );
  }
  return { decisions, ranges: shown, warnings };
}

const isLive = (nowMs: number): SQL => sql`(expires_ms IS NULL OR expires_ms > ${nowMs})`;

/** A page of those that have not ended, by id. */
export function listEntries(d1: D1Database, afterId: number, limit: number, nowMs: number): Promise<Entry[]> {
  const which = sql`${gt(allowedNetworks.id, afterId)} AND ${isLive(nowMs)}`;
  return askD1(d1, (d) =>
    d.select().from(allowedNetworks).where(which).orderBy(asc(allowedNetworks.id)).limit(limit),
  );
}

export async function findEntry(d1: D1Database, id: number, nowMs: number): Promise<Entry | undefined> {
  const [found] = await askD1(d1, (d) => selectEntry(d, id, nowMs));
  return found;
}

function selectEntry(d: DrizzleD1Database, id: number, nowMs: number) {
  const which = sql`${eq(allowedNetworks.id, id)} AND ${isLive(nowMs)}`;
  return d.select().from(allowedNetworks).where(which);
}

/** An entry as it is answered. `which`: SQL for the one row. */
function shown(which: SQL): Shown<Entry> {
  return {
    json: sql`(SELECT ${rowJson(allowedNetworks)} FROM allowed_networks WHERE ${which})`,
    describe: (entry) => ({ entry: describeEntry(entry) }),
  };
}

export function askEffect(env: Env, value: string, bouncers: readonly string[] | null): Promise<AllowEffect> {
  return askFeed(env, async (feed) => (await feed.allowEffect('Range', value, bouncers)) as AllowEffect);
}

export async function createEntry(
  mutation: Mutation,
  { value: network, comment: why, expires_in: lifeMs, bouncers, force }: z.output<typeof newEntry>,
): Promise<Result<Answer>> {
  const { env, actor, nowMs } = mutation;
  const value = formatNetwork(network);
  const family = network.bytes.length === 4 ? 'v4' : 'v6';
  if (!force && network.prefixBits < widestEntry[family]) {
    return badInput('value', `is wider than /${widestEntry[family]}: send force if it is meant`);
  }
  const bouncersJson = bouncers && JSON.stringify(bouncers);
  const same = sql`value = ${value} AND bouncers_json IS ${bouncersJson} AND ${isLive(nowMs)}`;
  const live = sql`SELECT count(*) FROM allowed_networks WHERE ${isLive(nowMs)}`;
  const reads = (d: DrizzleD1Database) =>
    [
      d.select({ id: allowedNetworks.id }).from(allowedNetworks).where(same),
      d
        .select({
          count: sql<number>`count(*)`,
          // With aliases: two columns of one name would be one.
          named: countNames(bouncersJson, nowMs, sql`count(*)`).as('named'),
          patterns: countNames(bouncersJson, nowMs, sql`count(DISTINCT value)`).as('patterns'),
          wild: countNames(bouncersJson, nowMs, countWild).as('wild'),
        })
        .from(allowedNetworks)
        .where(isLive(nowMs)),
    ] as const;
  let effect: AllowEffect | null = null;
  const decide = async ([[taken], [all]]: RowsOf<ReturnType<typeof reads>>): Promise<Result<Draft>> => {
    if (taken) return fail(conflict('value', `entry ${taken.id} allows it already`));
    if ((all?.count ?? 0) >= mostEntries) {
      return fail(
        conflict('value', `there are ${mostEntries} entries, and no more can be: remove one first`),
      );
    }
    const tooMany = all && tooManyNames(all);
    if (tooMany) return fail(conflict('bouncers', `${tooMany}: remove an entry first`));
    effect = await askEffect(env, value, bouncers);
    const wide = effect.ranges.find(({ prefixBits }) => prefixBits < widestFreed[family]);
    if (wide && !force) {
      const { decision, freed } = wide;
      const problem =
        `${value} is in the banned range ${decision.value} (decision ${decision.id}): to allow it lets ${freed} other ` +
        'addresses free; send force if that is meant';
      return fail(conflict('force', problem));
    }
    const expiresMs = lifeMs === undefined ? null : nowMs + lifeMs;
    const detail = { comment: why, until: isoTime(expiresMs), ...(bouncers && { bouncers }), force };
    return succeed({
      entry: { action: 'allowlist.add', target: value, detail },
      unchanged: sql`NOT EXISTS (SELECT 1 FROM allowed_networks WHERE ${same}) AND (${live}) < ${mostEntries}
        AND ${countNames(bouncersJson, nowMs, sql`count(*)`)} <= ${mostNamed}
        AND ${countNames(bouncersJson, nowMs, sql`count(DISTINCT value)`)} <= ${mostNames}
        AND ${countNames(bouncersJson, nowMs, countWild)} <= ${mostWild}`,
      statements: (d) => [
        d.delete(allowedNetworks).where(sql`NOT ${isLive(nowMs)}`),
        d
          .insert(allowedNetworks)
          .values({ value, comment: why, bouncersJson, expiresMs, createdMs: nowMs, actor }),
      ],
      answer: { status: 201 },
      news: { allowList: true },
    });
  };
  const answer = await mutate(mutation, reads, decide, shown(same));
  if (!answer.ok) return answer;
  effect ??= await askEffect(env, value, bouncers);
  const { warnings, ...described } = describeEffect(value, bouncers, effect);
  const unnamed = bouncers ? await withoutBouncer(env.DB, bouncers) : [];
  const body = {
    ...answer.value.body,
    ...described,
    warnings: [...warnings, ...unnamed.map((pattern) => `no bouncer is named ${pattern} now`)],
  };
  return succeed({ ...answer.value, body });
}

const countWild = sql`count(DISTINCT CASE WHEN instr(value, '*') > 0 THEN value END)`;

/** A count of the names in all entries that have not ended and in one more. */
function countNames(json: string | null, nowMs: number, count: SQL): SQL<number> {
  return sql<number>`(SELECT ${count} FROM (
    SELECT named.value FROM allowed_networks, json_each(bouncers_json) AS named WHERE ${isLive(nowMs)}
    UNION ALL SELECT value FROM json_each(${json ?? '[]'})))`;
}

function tooManyNames(counts: { named: number; patterns: number; wild: number }): string | null {
  if (counts.named > mostNamed) return `all entries may name ${mostNamed} bouncers`;
  if (counts.patterns > mostNames) return `all entries may have ${mostNames} different names`;
  return counts.wild > mostWild ? `all entries may have ${mostWild} different names with *` : null;
}

/** Those of some patterns that no bouncer's name fits. */
async function withoutBouncer(d1: D1Database, patterns: readonly string[]): Promise<string[]> {
  // GLOB of D1 takes 50 bytes at most, so they are matched here.
  const rows = await askD1(d1, (d) => d.select({ name: bouncerRows.name }).from(bouncerRows));
  const unnamed = new Set(patterns);
  for (const { name } of rows) for (const pattern of fittingOf(patterns, name)) unnamed.delete(pattern);
  return [...unnamed];
}

export function changeEntry(
  mutation: Mutation,
  id: number,
  change: z.output<typeof entryChange>,
): Promise<Result<Answer>> {
  return changeOne(mutation, id, (entry) => {
    const { expires_in: lifeMs } = change;
    const to = {
      comment: change.comment ?? entry.comment,
      expiresMs: lifeMs === undefined ? entry.expiresMs : lifeMs === null ? null : mutation.nowMs + lifeMs,
      revision: entry.revision + 1,
    };
    return {
      entry: {
        action: 'allowlist.change',
        target: entry.value,
        detail: { comment: to.comment, until: isoTime(to.expiresMs) },
      },
      statements: (d) => [d.update(allowedNetworks).set(to).where(eq(allowedNetworks.id, id))],
      answer: { status: 200 },
    };
  });
}

export function removeEntry(mutation: Mutation, id: number): Promise<Result<Answer>> {
  return changeOne(mutation, id, (entry) => ({
    entry: { action: 'allowlist.remove', target: entry.value, detail: { comment: entry.comment } },
    statements: (d) => [d.delete(allowedNetworks).where(eq(allowedNetworks.id, id))],
    answer: { status: 204, body: {} },
  }));
}

/** A change of an entry that has not ended. */
function changeOne(
  mutation: Mutation,
  id: number,
  draftOf: (entry: Entry) => Omit<Draft, 'unchanged' | 'news'>,
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => [selectEntry(d, id, mutation.nowMs)] as const;
  const decide = ([[entry]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!entry) return fail({ kind: 'not-found', what: `entry ${id} of the allow-list` });
    const expected = checkRevision(mutation, entry.revision);
    if (!expected.ok) return expected;
    const unchanged = sql`EXISTS (SELECT 1 FROM allowed_networks WHERE id = ${id} AND revision = ${entry.revision})`;
    return succeed({ ...draftOf(entry), unchanged, news: { allowList: true } });
  };
  return mutate(mutation, reads, decide, shown(sql`id = ${id}`));
}
