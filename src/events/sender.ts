// Sends each target its messages, in their order and at least once: the next one only when the one before was taken. Each
// target waits for itself. A message counts as sent once its receiver has answered 2xx and that is stored; a crash between
// sends it again, under the same id.

import { sinceMs } from '../runtime/clock.ts';
import { createTurns } from '../engines/upstream.ts';
import { causeOf } from '../http/failure.ts';
import { backoffMs, deliver, urlProblem, type Network, type Outcome } from './delivery.ts';
import type { Found } from './kinds.ts';
import * as log from './log.sql.ts';
import type { Delivery } from './log.sql.ts';
import type { Target } from './targets.ts';

/** `waiting`: messages that were not delivered yet. */
export type Progress = Delivery & { readonly waiting: number };

export function createSender(sql: SqlStorage, network: Network, mayBePrivate: boolean) {
  let targets: readonly Target[] = [];
  const deliveries = new Map(log.readDeliveries(sql).map((each) => [each.target, each]));
  /** One request at a time, beside those to engines: a slow receiver makes other receivers wait, and no engine. */
  const enter = createTurns(1)();
  const sending = new Set<string>();

  /** The targets whose rows are not as they are known here. */
  const unwritten = new Set<string>();
  let failing = false;

  /** Where the storage can't be written, the next send tries again: what was delivered is not sent at each round. */
  const write = (): void => {
    try {
      for (const target of unwritten) {
        const known = deliveries.get(target);
        if (known) log.writeDelivery(sql, known);
        else log.deleteDelivery(sql, target);
        unwritten.delete(target);
      }
      failing = false;
    } catch (error) {
      if (!failing) console.error(`webhooks: what was sent is not stored: ${causeOf(error).message}`);
      failing = true;
    }
  };

  const save = (delivery: Delivery): void => {
    deliveries.set(delivery.target, delivery);
    unwritten.add(delivery.target);
    write();
  };

  /** Why nothing can be sent, before a try; null: it can. A setting may be another one than when the target was made. */
  const hindrance = ({ secret, url }: Target): string | null =>
    secret === null
      ? 'its secret was sealed under another BOOTSTRAP_SECRET: make it anew'
      : urlProblem(url, mayBePrivate);

  const tryOnce = async (
    target: Target,
    message: Pick<log.Message, 'message' | 'body'>,
  ): Promise<Outcome> => {
    const problem = hindrance(target);
    if (problem !== null) return { atMs: Date.now(), status: null, problem };
    return deliver(network, target.url, target.secret as string, message, enter);
  };

  /** Sends until there is nothing more, or a try fails. */
  const drain = async (key: string): Promise<void> => {
    for (;;) {
      const target = targets.find((each) => each.key === key);
      const before = deliveries.get(key);
      if (!target || !before) return;
      const { sentId, failures, triedMs } = before;
      if (failures > 0 && sinceMs(triedMs ?? -Infinity, Date.now()) < backoffMs(failures)) return;
      const message = log.nextMessage(sql, sentId, target.types);
      if (!message) return;
      const { atMs, status, problem } = await tryOnce(target, message);
      const now = deliveries.get(key);
      // It was changed or deleted meanwhile.
      if (!now || now.revision !== before.revision) continue;
      const isSent = problem === null;
      noteChange(target.name, now.problem, problem);
      const after = isSent
        ? { sentId: Math.max(message.id, now.sentId), failures: 0, deliveredMs: atMs }
        : { failures: failures + 1 };
      save({ ...now, triedMs: atMs, status, problem, ...after });
      if (!isSent) return;
    }
  };

  return {
    /** Takes the targets as they are now. New ones get what was said since they were made. */
    take(now: readonly Target[]): void {
      targets = now;
      const keys = new Set(now.map(({ key }) => key));
      for (const key of deliveries.keys()) {
        if (keys.has(key)) continue;
        deliveries.delete(key);
        unwritten.add(key);
      }
      for (const { key, createdMs, revision } of now) {
        const known = deliveries.get(key);
        if (known?.revision === revision) continue;
        const fresh = known ?? { ...noDelivery, sentId: log.lastMessageBefore(sql, createdMs) };
        deliveries.set(key, { ...fresh, target: key, revision, failures: 0 });
        unwritten.add(key);
      }
      write();
    },
    /**
     * Adds messages, within the caller's transaction. What is older than the newest 1,000 is given up. Returns what is to be
     * called after the commit.
     */
    add(found: readonly Found[], nowMs: number): () => void {
      const cut = log.addMessages(sql, found, nowMs);
      const losers: { readonly after: Delivery; readonly name: string }[] = [];
      if (found.length === 0 || cut <= 0) return () => undefined;
      for (const { key, types, name } of targets) {
        const known = deliveries.get(key);
        const lost = known && known.sentId < cut ? log.countWaiting(sql, known.sentId, types, cut) : 0;
        if (!known || lost === 0) continue;
        const after = { ...known, lost: known.lost + lost, sentId: cut };
        log.writeDelivery(sql, after);
        losers.push({ after, name });
      }
      log.removeMessages(sql, cut);
      return () => {
        for (const { after, name } of losers) {
          if (after.lost > 0 && deliveries.get(after.target)?.lost === 0)
            console.error(`webhook ${name}: messages are given up, the oldest first`);
          deliveries.set(after.target, after);
        }
      };
    },
    /** Begins to send what is due. Waits for nothing. */
    send(): void {
      write();
      for (const { key, name } of targets) {
        if (sending.has(key)) continue;
        sending.add(key);
        drain(key)
          .catch((error: unknown) => console.error(`webhook ${name}: ${causeOf(error).message}`))
          .finally(() => sending.delete(key));
      }
    },
    /** Sends a message now, beside the others. If it is taken, the others need not wait any longer. */
    async test(target: Target): Promise<Outcome> {
      const nowMs = Date.now();
      const body = JSON.stringify({
        type: 'webhook.test',
        timestamp: new Date(nowMs).toISOString(),
        data: { webhook: target.name },
      });
      const outcome = await tryOnce(target, { message: log.newMessageName(), body });
      const known = deliveries.get(target.key);
      if (outcome.problem === null && known && known.failures > 0) save({ ...known, failures: 0 });
      return outcome;
    },
    /** How the messages of some targets go, and how many wait, in their order; null: it was not looked at yet. */
    deliveries(asked: readonly Pick<Target, 'key' | 'types'>[]): (Progress | null)[] {
      return asked.map(({ key, types }) => {
        const known = deliveries.get(key);
        return known ? { ...known, waiting: log.countWaiting(sql, known.sentId, types) } : null;
      });
    },
  };
}

const noDelivery = {
  sentId: 0,
  lost: 0,
  failures: 0,
  triedMs: null,
  status: null,
  problem: null,
  deliveredMs: null,
};

/** One line when it begins to fail and one when it is well again, not one for each try. */
function noteChange(name: string, before: string | null, after: string | null): void {
  if ((before === null) === (after === null)) return;
  console.error(`webhook ${name}: ${after ?? 'it takes messages again'}`);
}
