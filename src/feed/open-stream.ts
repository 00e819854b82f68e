// What polls are answered from, as the feed's object finds it in its storage.

import * as log from '../mirror/decisions.sql.ts';
import { tryToWrite, type Store } from '../mirror/mirror.ts';
import { choosesEngines } from '../mirror/view.ts';
import { createBaselines } from '../stream/baselines.ts';
import { forgetViews } from '../stream/clients.ts';
import { createClientLog, openClients } from '../stream/clients.sql.ts';
import { createInvalidated } from '../stream/invalidated.ts';
import { createChangedLimits, type Stream } from '../stream/poll.ts';

export function openStream(storage: DurableObjectStorage, store: Store): Stream {
  const { sql } = storage;
  const clients = openClients(storage);
  const clientLog = createClientLog(storage, clients);
  // A view that names engines may mean another one now. The new names are stored, so this must be stored too.
  if (store.namesMoved) {
    forgetViews(clients, choosesEngines);
    clientLog.writeAll();
  }
  return {
    mirror: store.mirror,
    clients,
    clientLog,
    baselines: createBaselines(log.readBaselines(sql), store.mirror.sequence, (id, body) => {
      return tryToWrite(store, Date.now(), () => log.writeBaseline(sql, id, body)) === null;
    }),
    gzipped: new Map(),
    invalidated: createInvalidated(),
    changedLimits: createChangedLimits(),
    settled: new Map(),
  };
}
