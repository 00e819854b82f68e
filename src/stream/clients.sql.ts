// The clients in storage: each row has many of them as JSON. They are written behind, since one row per poll would cost
// more than all other writes together. Losing a row costs repeats, never a change.
//
// At most 64 rows are written in 10 s: 16.6 million billed rows a month, however many clients there are. 10,000 clients are
// 20 rows. When the feed changes and all of them poll every 10 s, each row is written every 10 s: 5.2 million a month.
// 200,000 clients are 400 rows, each of which is then written once a minute.

import { sinceMs } from '../runtime/clock.ts';
import { causeOf } from '../http/failure.ts';
import * as memory from './clients.ts';
import type { Use } from './client-records.ts';
import type { ClientRow, Clients, KeptClient } from './clients.ts';
import { createMissing } from '../mirror/decisions.sql.ts';
import { pause } from '../runtime/wait.ts';

const table = `CREATE TABLE IF NOT EXISTS client_rows (id INTEGER PRIMARY KEY, body TEXT NOT NULL)`;

const mostRows = 64;
const rowsIntervalMs = 10_000;
/** Sightings that moved no cursor wait longer. */
const seenIntervalMs = 60_000;

/** In characters of three bytes at most; SQLite's limit is 2 MB. A longer row is split. */
const rowLength = 256 * 1024;

/** The texts that clients share, and the clients. A view and a user agent are indexes into the texts. */
type Body = [texts: string[], entries: Entry[]];
type Entry = [
  name: string,
  seenMs: number,
  versionId: number,
  agent: number,
  cursors: Stored[],
  uses: Use[],
  /** Absent where the release before wrote it. */
  intervalMs?: number,
];
type Stored = [view: number, before: number, beforeBaseline: number, last: number, lastBaseline: number];

/** Reads all clients. */
export function openClients(storage: DurableObjectStorage): Clients {
  const { sql } = storage;
  const clients = memory.createClients();
  createMissing(sql, [table]);
  for (const { id, body } of sql.exec<{ id: number; body: string }>(`SELECT id, body FROM client_rows`)) {
    const row = memory.addRow(clients, id);
    for (const kept of decode(body)) memory.insertClient(clients, kept, row);
    row.baselines = memory.baselinesOf(clients, row);
  }
  takeShards(storage, clients);
  return clients;
}

function encode(clients: Clients, row: ClientRow): string {
  const indexes = new Map<string, number>();
  const indexOf = (text: string): number => {
    const known = indexes.get(text) ?? indexes.size;
    indexes.set(text, known);
    return known;
  };
  const entries = memory.clientsIn(clients, row).map((client): Entry => {
    const { name, seenMs, versionId, userAgent, cursors, earlierUses, intervalMs } = client;
    const stored = cursors
      .filter(({ others, pending }) => others.length + pending.length === 0)
      .map((at): Stored => {
        return [indexOf(at.view), at.beforeSequence, at.beforeBaseline, at.lastSequence, at.lastBaseline];
      });
    return [name, seenMs, versionId, indexOf(userAgent), stored, [...earlierUses], intervalMs];
  });
  return JSON.stringify([[...indexes.keys()], entries] satisfies Body);
}

function decode(body: string): KeptClient[] {
  const [texts, entries] = JSON.parse(body) as Body;
  return entries.map(([name, seenMs, versionId, agent, stored, earlierUses, intervalMs = 0]) => {
    const cursors = stored.map(([view, ...at]) => cursorFrom(texts[view] as string, ...at));
    return { name, seenMs, versionId, userAgent: texts[agent] as string, cursors, earlierUses, intervalMs };
  });
}

function cursorFrom(view: string, ...at: [before: number, beforeId: number, last: number, lastId: number]) {
  const [beforeSequence, beforeBaseline, lastSequence, lastBaseline] = at;
  return { view, beforeSequence, beforeBaseline, lastSequence, lastBaseline, others: [], pending: [] };
}

export type ClientLog = ReturnType<typeof createClientLog>;

/** Writes clients behind. What can't be written waits for the next time. */
export function createClientLog(storage: DurableObjectStorage, clients: Clients) {
  let writing = false;
  let failing = false;
  let allowance = mostRows;
  let writtenMs = 0;
  let seenMs = 0;

  const tryWrite = (row: ClientRow): void => {
    try {
      writeRow(storage, clients, row);
      failing = false;
    } catch (error) {
      // To the end, so that the other rows do not wait for it.
      clients.dirty.delete(row);
      clients.dirty.add(row);
      if (!failing) console.error(`clients can not be written, and wait: ${causeOf(error).message}`);
      failing = true;
    }
  };

  return {
    /** Writes the waiting rows, one in each turn, so that polls are answered between them. */
    async write(nowMs: number): Promise<void> {
      if (writing) return;
      writing = true;
      allowance = Math.min(mostRows, allowance + (mostRows * sinceMs(writtenMs, nowMs)) / rowsIntervalMs);
      writtenMs = nowMs;
      if (sinceMs(seenMs, nowMs) >= seenIntervalMs) {
        seenMs = nowMs;
        for (const row of clients.seen) clients.dirty.add(row);
        clients.seen.clear();
      }
      for (const row of [...clients.dirty].slice(0, allowance)) {
        allowance--;
        tryWrite(row);
        await pause();
      }
      writing = false;
    },
    /** Writes the row of a client whose cursor must not wait. */
    writeNow(name: string): void {
      const row = memory.rowOf(clients, name);
      if (row) tryWrite(row);
    },
    /** Writes all waiting rows in this turn. Throws if it can't. */
    writeAll(): void {
      for (const row of clients.dirty) writeRow(storage, clients, row);
    },
  };
}

function writeRow(storage: DurableObjectStorage, clients: Clients, row: ClientRow): void {
  const written = storage.transactionSync(() => writeParts(storage.sql, clients, row));
  for (const part of written) {
    part.baselines = memory.baselinesOf(clients, part);
    clients.dirty.delete(part);
  }
  if (row.entries.length === 0) memory.removeRow(clients, row);
}

/** Returns the rows that were written: several if the row had become too long. */
function writeParts(sql: SqlStorage, clients: Clients, row: ClientRow): ClientRow[] {
  if (row.entries.length === 0) {
    sql.exec(`DELETE FROM client_rows WHERE id = ?`, row.id);
    return [row];
  }
  const body = encode(clients, row);
  if (body.length > rowLength && row.entries.length > 1) {
    return [row, memory.splitRow(clients, row)].flatMap((part) => writeParts(sql, clients, part));
  }
  const insert = `INSERT INTO client_rows VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body`;
  sql.exec(insert, row.id, body);
  return [row];
}

/** A client of storage version 3 (commit 539c253), which kept clients in 64 shards. Without limits it has no baselines. */
type ShardEntry = [
  name: string,
  seenMs: number,
  userAgent: string,
  cursors: [view: string, before: number, last: number, beforeBaseline?: number, lastBaseline?: number][],
  versions?: Record<number, number>,
];

/** Converts the clients of storage version 3. */
function takeShards(storage: DurableObjectStorage, clients: Clients): void {
  const { sql } = storage;
  if (sql.exec(`SELECT 1 FROM sqlite_master WHERE name = 'clients'`).toArray().length === 0) return;
  for (const { body } of sql.exec<{ body: string }>(`SELECT body FROM clients`)) {
    for (const entry of JSON.parse(body) as ShardEntry[]) memory.insertClient(clients, ofShard(entry));
  }
  storage.transactionSync(() => {
    for (const row of clients.rows.values()) writeRow(storage, clients, row);
    sql.exec(`DROP TABLE clients`);
  });
}

function ofShard([name, seenMs, userAgent, stored, versions = {}]: ShardEntry): KeptClient {
  const cursors = stored.map(([view, before, last, beforeBaseline = 0, lastBaseline = 0]) => {
    return cursorFrom(view, before, beforeBaseline, last, lastBaseline);
  });
  const uses = Object.entries(versions).map(([id, usedMs]): Use => [Number(id), usedMs]);
  uses.sort(([, a], [, b]) => a - b);
  const [versionId] = uses.pop() ?? [0];
  return { name, seenMs, userAgent, versionId, earlierUses: uses.slice(-2), cursors, intervalMs: 0 };
}
