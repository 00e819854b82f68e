// Writes what is held in memory and may be lost without harm: clients with their cursors, and the baselines of these.

import { causeOf } from '../http/failure.ts';
import * as log from '../mirror/decisions.sql.ts';
import { forgetUnused, writeBaselines } from '../stream/baselines.ts';
import { baselinesInUse } from '../stream/clients.ts';
import type { Stream } from '../stream/poll.ts';

export async function writeClients(sql: SqlStorage, stream: Stream, nowMs: number): Promise<void> {
  const { baselines, clientLog, clients } = stream;
  if (!writeBaselines(baselines)) return;
  await clientLog.write(nowMs);
  if (baselines.byId.size === 0) return;
  try {
    for (const id of forgetUnused(baselines, baselinesInUse(clients))) log.deleteBaseline(sql, id);
  } catch (error) {
    // The next start reads them again, and then forgets them.
    console.error(`baselines can not be deleted: ${causeOf(error).message}`);
  }
}
