// What the feed's object removes and forgets by time: decisions that have ended, tombstones, cursors, answers to requests that
// are sent again. A mistake here forgets a removal before every bouncer has it.

import type { Settings } from '../config/settings.ts';
import * as log from '../mirror/decisions.sql.ts';
import * as mirror from '../mirror/mirror.ts';
import { createMarks, forgettable, mostAtOnce } from '../mirror/tombstones.ts';
import { sinceMs } from '../runtime/clock.ts';
import { forgetClients, type Clients } from '../stream/clients.ts';
import type { NewKeys } from '../stream/new-keys.sql.ts';

const forgetIntervalMs = 3_600_000;
/** Longer than D1 keeps the answer to a request with an `Idempotency-Key`. */
const onceKeptMs = 25 * 3_600_000;

/** Runs in every round. */
export function createMaintenance(
  store: mirror.Store,
  clients: Clients,
  newKeys: NewKeys,
  { tombstoneMs, maxDecisions }: Settings,
): (nowMs: number) => void {
  const marks = createMarks(store.mirror, Date.now());
  let forgotMs = 0;
  return (nowMs) => {
    mirror.sweep(store, nowMs);
    const isDue = sinceMs(forgotMs, nowMs) >= forgetIntervalMs;
    const cutoffMs = isDue ? nowMs - tombstoneMs : -Infinity;
    const most = mostAtOnce(maxDecisions);
    const tooOld = forgettable(store.mirror, marks, { most, cutoffMs }, nowMs);
    // The tombstones after the cursors of these clients are deleted.
    if (isDue) forgetClients(clients, ({ seenMs }) => seenMs < cutoffMs);
    if (!isDue && tooOld <= store.mirror.purgedSequence) return;
    mirror.writeIfPossible(store, nowMs, () => {
      mirror.forgetTombstones(store, tooOld);
      if (!isDue) return;
      log.forgetOnce(store.storage.sql, nowMs - onceKeptMs);
      forgotMs = nowMs;
      newKeys.forgetUpTo(store.mirror.purgedSequence);
    });
  };
}
