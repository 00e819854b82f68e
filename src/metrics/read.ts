// Reads what a scrape says: pages of D1, and what the feed's object knows. All of it, or an error.

import { addTriples } from '../counters/counting.ts';
import type { Counts } from '../counters/counters.sql.ts';
import { readUsage } from '../counters/usage.sql.ts';
import { askFeed } from '../feed/client.ts';
import { joined, type SeenBouncer } from '../stream/behind.ts';
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

export async function readAllBouncers(env: Env, { requests }: Counts, nowMs: number): Promise<Bouncer[]> {
  const known = Promise.all([readSeen(env), readSums(env)]);
  // Awaited below: where D1 fails first, its error is the answer.
  known.catch(() => undefined);
  const rows = [];
  for (let afterId: number | undefined = 0; afterId !== undefined;) {
    const page = await store.readBouncers(env.DB, afterId, pageBouncers, nowMs - reportCountsMs);
    rows.push(...page);
    afterId = page.length < pageBouncers ? undefined : page.at(-1)?.id;
  }
  const [seen, usage] = await known;
  const counts = new Map<number, number[]>();
  addTriples(counts, requests);
  return rows.map(({ id, ...row }) => ({
    ...row,
    seen: seen.get(id) ?? null,
    counts: counts.get(id) ?? [],
    usage: () => readUsage(usage.get(id) ?? '[]'),
  }));
}

/** What is known of all bouncers’ clients, by bouncer. */
export async function readSeen(env: Env): Promise<Map<number, SeenBouncer>> {
  const byId = new Map<number, SeenBouncer>();
  for (let afterRow: number | null = 0; afterRow !== null;) {
    const after: number = afterRow;
    const page = await askFeed(env, async (feed) => feed.seenPage(after));
    for (const each of page.bouncers) {
      const known = byId.get(each.bouncerId);
      byId.set(each.bouncerId, known ? joined(known, each) : each);
    }
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
