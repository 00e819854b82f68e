// The targets of messages as the feed's object reads them from D1, with their secrets opened.

import { eq, sql } from 'drizzle-orm';
import type { BootstrapSecrets } from '../config/settings.ts';
import { open } from '../crypto/seal.ts';
import { causeOf } from '../http/failure.ts';
import { sinceMs } from '../runtime/clock.ts';
import { answerMs, askD1 } from '../store/ask.ts';
import type { AuditHead } from '../store/audit.sql.ts';
import { webhooks } from '../store/schema.ts';
import type { EventType } from './kinds.ts';

/** A webhook. */
export interface Target {
  /** Of this webhook and no later one of its name. */
  readonly key: string;
  readonly name: string;
  readonly url: string;
  /** Null: all. */
  readonly types: readonly EventType[] | null;
  /** Null: it can not be opened. */
  readonly secret: string | null;
  readonly createdMs: number;
  readonly revision: number;
}

type Webhook = typeof webhooks.$inferSelect;

export function targetKey({ name, createdMs }: Pick<Webhook, 'name' | 'createdMs'>): string {
  return `${name} ${createdMs}`;
}

export function typesOf({ eventsJson }: Pick<Webhook, 'eventsJson'>): readonly EventType[] | null {
  return eventsJson === null ? null : (JSON.parse(eventsJson) as EventType[]);
}

/**
 * For so long what was read counts where nothing new was heard of D1. A restored one is mostly noticed with the next poll; this
 * is for where nobody polls.
 */
const keptMs = 600_000;

/**
 * Reads all targets, also that there are none. D1 is asked again when its audit log has a newer row (`head`), since every
 * change of them writes one. Throws `StoreError`. What was sealed under the secret before is sealed anew.
 */
export function createTargets(
  d1: D1Database,
  secrets: BootstrapSecrets | null,
  head: () => AuditHead,
): (nowMs: number) => Promise<readonly Target[]> {
  let kept: { readonly targets: readonly Target[]; readonly hash: string; readonly readMs: number } | null =
    null;
  /** Sealed secret → the secret; null: it can not be opened. */
  let opened = new Map<string, string | null>();

  const secretOf = async ({ id, name, sealedSecret }: Webhook): Promise<string | null> => {
    const known = opened.get(sealedSecret);
    if (known !== undefined) return known;
    const found = secrets && (await open(secrets, name, sealedSecret, 'webhook-secret'));
    if (!found) console.error(`the secret of webhook ${name} was sealed under another BOOTSTRAP_SECRET`);
    if (found?.resealed != null) await reseal(id, sealedSecret, found.resealed);
    return found?.key ?? null;
  };

  const reseal = async (id: number, before: string, sealedSecret: string): Promise<void> => {
    const isSame = sql`${eq(webhooks.id, id)} AND ${eq(webhooks.sealedSecret, before)}`;
    try {
      await askD1(d1, (db) => db.update(webhooks).set({ sealedSecret }).where(isSame), answerMs);
    } catch (error) {
      // The secret before still opens it.
      console.error(`a webhook's secret was not sealed anew: ${causeOf(error).message}`);
    }
  };

  const read = async (): Promise<Target[]> => {
    const rows = await askD1(d1, (db) => db.select().from(webhooks).orderBy(webhooks.id));
    const targets: Target[] = [];
    const now = new Map<string, string | null>();
    for (const row of rows) {
      const secret = await secretOf(row);
      now.set(row.sealedSecret, secret);
      const { name, url, createdMs, revision } = row;
      targets.push({ key: targetKey(row), name, url, types: typesOf(row), secret, createdMs, revision });
    }
    opened = now;
    return targets;
  };

  return async (nowMs) => {
    // Before D1 is asked: a change that comes meanwhile has another head.
    const { hash } = head();
    if (kept?.hash !== hash || sinceMs(kept.readMs, nowMs) >= keptMs) {
      kept = { targets: await read(), hash, readMs: nowMs };
    }
    return kept.targets;
  };
}
