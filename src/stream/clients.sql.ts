// The clients in storage: rows of JSON with many each, written behind, since one row a poll would cost more than all
// the rest together. Losing a row costs repeats, never a change.
//
// What it costs at most: 64 rows in 10 s, 16.6 million billed rows a month, however many clients there are. 10,000
// clients are 20 rows; on a feed that moves every 10 s, with polls every 10 s, each of them is written every 10 s: 5.2
// million. 200,000 are 400 rows, each then written once a minute.

import { sinceMs } from '../runtime/clock.ts';
import { causeOf } from '../http/failure.ts';
import * as memory from './clients.ts';
import type { Client, ClientRow, Clients, KeptClient } from './clients.ts';
import { intern } from '../formats/decision.ts';
import { createMissing } from '../mirror/decisions.sql.ts';

const table = `CREATE TABLE IF NOT EXISTS client_rows (id INTEGER PRIMARY KEY, body TEXT NOT NULL)`;

const mostRows = 64;
const rowsIntervalMs = 10_000;
/** Mere sightings wait longer. */
const seenIntervalMs = 60_000;

/** Characters, of three bytes at most each: SQLite takes 2 MB. A longer one becomes two. */
const rowLength = 256 * 1024;

/** Texts that clients share, and the clients; a cursor's view and a user agent are places in the first. */
type Body = [texts: string[], entries: Entry[]];
type Entry = [name: string, seenMs: number, versionId: number, agent: number, cursors: Place[], uses: Use[]];
type Place = [view: number, before: number, beforeBasis: number, last: number, lastBasis: number];
type Use = readonly [versionId: number, usedMs: number];

/** Reads all clients, those of storage version 3 as well. */
export function openClients(storage: DurableObjectStorage): Clients {
  const { sql } = storage;
  const clients = memory.createClients();
  createMissing(sql, [table]);
  for (const { id, body } of sql.exec<{ id: number; body: string }>(`SELECT id, body FROM client_rows`)) {
    const row = memory.addRow(clients, id);
    for (const kept of decode(body)) memory.insertClient(clients, kept, row);
    row.bases = memory.basesOf(row);
  }
  takeShards(storage, clients);
  return clients;
}

function encode(row: ClientRow): string {
  const places = new Map<string, number>();
  const placeOf = (text: string): number => {
    const known = places.get(text) ?? places.size;
    places.set(text, known);
    return known;
  };
  const entries = row.clients.map(({ name, seenMs, versionId, userAgent, cursors, earlierUses }): Entry => {
    const stored = cursors.filter(({ owed }) => owed.length === 0);
    const placed = stored.map((at): Place => {
      return [placeOf(at.view), at.beforeSequence, at.beforeBasis, at.lastSequence, at.lastBasis];
    });
    return [name, seenMs, versionId, placeOf(userAgent), placed, [...earlierUses]];
  });
  return JSON.stringify([[...places.keys()], entries] satisfies Body);
}

function decode(body: string): KeptClient[] {
  const [texts, entries] = JSON.parse(body) as Body;
  const shared = texts.map(intern);
  return entries.map(([name, seenMs, versionId, agent, places, earlierUses]) => {
    const cursors = places.map(([view, beforeSequence, beforeBasis, lastSequence, lastBasis]) => {
      return { view: shared[view] as string, beforeSequence, beforeBasis, lastSequence, lastBasis, owed: [] };
    });
    return { name, seenMs, versionId, userAgent: shared[agent] as string, cursors, earlierUses };
  });
}

/** The writing behind. What can't be written waits for the next time. */
export interface ClientLog {
  /** Writes what waits, one row a turn, so that polls are answered between them. */
  write(nowMs: number): Promise<void>;
  /** Writes the row of a client whose cursor must not wait. */
  writeNow(client: Client): void;
  /** Writes all that waits, in this turn. Throws when it can't. */
  writeAll(): void;
}

export function createClientLog(storage: DurableObjectStorage, clients: Clients): ClientLog {
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
      // To the end: it keeps no other waiting.
      clients.dirty.delete(row);
      clients.dirty.add(row);
      if (!failing) console.error(`clients can not be written, and wait: ${causeOf(error).message}`);
      failing = true;
    }
  };

  return {
    async write(nowMs) {
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
        await scheduler.wait(0);
      }
      writing = false;
    },
    writeNow: ({ row }) => tryWrite(row),
    writeAll() {
      for (const row of clients.dirty) writeRow(storage, clients, row);
    },
  };
}

function writeRow(storage: DurableObjectStorage, clients: Clients, row: ClientRow): void {
  const written = storage.transactionSync(() => writeParts(storage.sql, clients, row));
  for (const part of written) {
    part.bases = memory.basesOf(part);
    clients.dirty.delete(part);
  }
  if (row.clients.length === 0) memory.removeRow(clients, row);
}

/** The rows that were written: two and more where it had become too long. */
function writeParts(sql: SqlStorage, clients: Clients, row: ClientRow): ClientRow[] {
  if (row.clients.length === 0) {
    sql.exec(`DELETE FROM client_rows WHERE id = ?`, row.id);
    return [row];
  }
  const body = encode(row);
  if (body.length > rowLength && row.clients.length > 1) {
    return [row, memory.splitRow(clients, row)].flatMap((part) => writeParts(sql, clients, part));
  }
  sql.exec(
    `INSERT INTO client_rows VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
    row.id,
    body,
  );
  return [row];
}

/** A client of storage version 3, in one of 64 shards; the versions of keys and the bases came later. */
type ShardEntry = [
  name: string,
  seenMs: number,
  userAgent: string,
  cursors: [view: string, before: number, last: number, beforeBasis?: number, lastBasis?: number][],
  versions?: Record<number, number>,
];

/** Takes over what storage version 3 kept of clients. */
function takeShards(storage: DurableObjectStorage, clients: Clients): void {
  const { sql } = storage;
  if (sql.exec(`SELECT 1 FROM sqlite_master WHERE name = 'clients'`).toArray().length === 0) return;
  for (const { body } of sql.exec<{ body: string }>(`SELECT body FROM clients`)) {
    for (const entry of JSON.parse(body) as ShardEntry[]) memory.insertClient(clients, ofShard(entry));
  }
  storage.transactionSync(() => {
    for (const row of clients.rows) writeRow(storage, clients, row);
    sql.exec(`DROP TABLE clients`);
  });
}

function ofShard([name, seenMs, userAgent, places, versions = {}]: ShardEntry): KeptClient {
  const cursors = places.map(([view, beforeSequence, lastSequence, beforeBasis = 0, lastBasis = 0]) => {
    return { view: intern(view), beforeSequence, beforeBasis, lastSequence, lastBasis, owed: [] };
  });
  const uses = Object.entries(versions).map(([id, usedMs]): Use => [Number(id), usedMs]);
  uses.sort(([, a], [, b]) => a - b);
  const [versionId] = uses.pop() ?? [0];
  return { name, seenMs, userAgent: intern(userAgent), versionId, earlierUses: uses, cursors };
}
