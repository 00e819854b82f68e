// Reads what a scrape says: pages of D1, and what the feed's object knows. All of it, or an error.

import { readView } from '../bouncers/policy.ts';
import { addTriples } from '../counters/counting.ts';
import type { Counts } from '../counters/counters.sql.ts';
import { readUsage } from '../counters/usage.sql.ts';
import { askFeed } from '../feed/client.ts';
import type { LimitedView } from '../feed/figures.ts';
import { fittingOf } from '../mirror/patterns.ts';
import { createGenerations } from '../runtime/generations.ts';
import { addSeen, type SeenBouncer } from '../stream/behind.ts';
import { labelsOf } from './exposition.ts';
import type { Bouncer, Totals } from './families.ts';
import * as store from './metrics.sql.ts';

const pageBouncers = 500;
/** Reports come every 15 or 30 minutes. An older one says nothing of now. */
const reportCountsMs = 2 * 3_600_000;

/**
 * Hosts by state, and the audit log by action. Only the rows that came since the last scrape are counted, and the object keeps
 * the sums: the log may have 100,000 rows.
 */
export async function readTotals(env: Env, { audited, refused }: Counts): Promise<Totals> {
  const { hosts, newest, added } = await store.readTotals(env.DB, audited.seq);
  const byAction = new Map(Object.entries(audited.byAction));
  for (const { action, count } of added) byAction.set(action, count + (byAction.get(action) ?? 0));
  if (newest > audited.seq) {
    const to = { seq: newest, byAction: Object.fromEntries(byAction) };
    await askFeed(env, async (feed) => feed.noteAudited(to));
  }
  return { hosts, refused, audited: byAction };
}

/** `patterns`: of bouncers' names, by which the allow-list is for some of them. */
export async function readAllBouncers(
  env: Env,
  { requests }: Counts,
  patterns: readonly string[],
  nowMs: number,
): Promise<Bouncer[]> {
  const readings = [readRows(env, nowMs - reportCountsMs), readSeen(env), readSums(env)] as const;
  // Where one fails, no page is read behind the answer.
  await Promise.allSettled(readings);
  const [rows, seen, usage] = await Promise.all(readings);
  const counts = new Map<number, number[]>();
  addTriples(counts, requests);
  const enforced = await readEnforced(env, rows);
  const views = rows.map(({ id, name, viewJson }) => {
    return viewNamed(seen.get(id)?.view ?? null, viewJson, fittingOf(patterns, name));
  });
  const sizes = await readSizes(env, views);
  return rows.map(({ id, name, pausedMs, versions }, at) => ({
    labels: labelsOf({ bouncer: name }),
    pausedMs,
    versions,
    enforced: () => store.enforcedIn(enforced.get(id) ?? '[]'),
    seen: seen.get(id) ?? null,
    viewSize: sizes.get(views[at] as string) ?? null,
    counts: counts.get(id) ?? [],
    usage: () => readUsage(usage.get(id) ?? '[]'),
  }));
}

async function readRows(env: Env, reportsFromMs: number): Promise<store.BouncerRow[]> {
  const rows: store.BouncerRow[] = [];
  for (let afterId: number | undefined = 0; afterId !== undefined;) {
    const page = await store.readBouncers(env.DB, afterId, pageBouncers, reportsFromMs);
    rows.push(...page);
    afterId = page.length < pageBouncers ? undefined : page.at(-1)?.id;
  }
  return rows;
}

/** What reports say is enforced, by bouncer and time. D1 takes each report apart once: those of 10,000 take it half a second. */
const enforcedKept = createGenerations<string>(
  8 * 1024 * 1024,
  (name, json) => 200 + name.length + json.length,
);

/** What the reports of bouncers say is enforced, by bouncer. */
async function readEnforced(env: Env, rows: readonly store.BouncerRow[]): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  const asked: number[] = [];
  for (const { id, reportedMs } of rows) {
    const kept = enforcedKept.get(`${id} ${reportedMs}`);
    if (kept !== undefined) found.set(id, kept);
    else if (reportedMs !== null) asked.push(id);
  }
  for (let at = 0; at < asked.length; at += pageBouncers) {
    for (const each of await store.readEnforced(env.DB, asked.slice(at, at + pageBouncers))) {
      enforcedKept.set(`${each.id} ${each.reportedMs}`, each.json);
      found.set(each.id, each.json);
    }
  }
  return found;
}

/** Those of more views are not counted: a bouncer may ask for any. */
const mostViews = 16;

/** Equal for views that are equal, with their limits and patterns; empty: it has none. */
function viewNamed(request: string | null, viewJson: string | null, patterns: readonly string[]): string {
  if (request === null) return '';
  // What is fixed of lists is stored beside the limits, and makes no other view.
  const { limits } = readView(viewJson);
  return JSON.stringify({ request, limits, ...(patterns.length > 0 && { patterns }) } satisfies LimitedView);
}

/** How many values the views have that most bouncers use, by the names of the views. */
async function readSizes(env: Env, names: readonly string[]): Promise<Map<string, number | null>> {
  const used = [...Map.groupBy(names, (name) => name)].filter(([name]) => name !== '');
  used.sort(([, a], [, b]) => b.length - a.length);
  const most = used.slice(0, mostViews).map(([name]) => name);
  const asked = most.map((name) => JSON.parse(name) as LimitedView);
  const sizes = asked.length === 0 ? [] : await askFeed(env, async (feed) => feed.viewSizes(asked));
  return new Map(most.map((name, at) => [name, sizes[at] ?? null]));
}

/** What is known of all bouncers’ clients, by bouncer. */
export async function readSeen(env: Env): Promise<Map<number, SeenBouncer>> {
  const byId = new Map<number, SeenBouncer>();
  for (let afterRow: number | null = 0; afterRow !== null;) {
    const after: number = afterRow;
    const page = await askFeed(env, async (feed) => feed.seenPage(after));
    for (const each of page.bouncers) addSeen(byId, each);
    afterRow = page.next;
  }
  return byId;
}

async function readSums(env: Env): Promise<Map<number, string>> {
  const byId = new Map<number, string>();
  for (let afterId: number | null = 0; afterId !== null;) {
    const after: number = afterId;
    const page = await askFeed(env, async (feed) => feed.usagePage(after));
    for (const { bouncerId, sums } of page.bouncers) byId.set(bouncerId, sums);
    afterId = page.next;
  }
  return byId;
}
