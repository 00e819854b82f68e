// Who polls: one client per bouncer and address, with a cursor for each of its views and when it was last seen. So all
// bouncers that share a key see every change, and programs with different views do not disturb each other. Clients are
// held in memory and written behind (clients.sql.ts).

import { cut } from '../formats/texts.ts';
import { createClientRecords, intervalAfter, type Client } from './client-records.ts';
import { merge, type Cursor, type PlainCursor } from './cursor.ts';

/** Clients that are written together, as one row. */
export interface ClientRow {
  readonly id: number;
  /** The entries of their records. */
  readonly entries: number[];
  /** The baselines of its cursors, as the row was last written. */
  baselines: readonly number[];
}

/** One poll, seen here or by an isolate that answered it without the feed. */
export interface Sighting {
  readonly bouncerId: number;
  readonly versionId: number;
  readonly address: string;
  readonly seenMs: number;
  readonly userAgent: string;
}

/** A poll that an isolate answered. `moved`: the cursor after it, and its view (`requestKey`), unless nothing changed. */
export interface ReportedSighting extends Sighting {
  readonly moved?: { readonly view: string; readonly cursor: PlainCursor };
}

/** A client that uses more views gets full states; it can't use up our memory. */
const viewsPerClient = 6;
const viewKeyLength = 300;
export const userAgentLength = 120;

/**
 * All clients together: some 200,000 with one view each. They are counted as if they shared no text. Most share user agent
 * and view, so 200,000 take some 35 MB; those that vary them take no more than this limit.
 */
const mostBytes = 64 * 1024 * 1024;
/** The share of one bouncer, some 50,000 clients: a stolen key does not push out the others' clients. */
const mostBytesPerBouncer = mostBytes / 4;

/** Some 50 KB of JSON. Larger rows need fewer billed writes; smaller ones make it cheaper to write one cursor. */
const clientsPerRow = 500;

export type Clients = ReturnType<typeof createClients>;

export function createClients() {
  return {
    /** By `clientName`. */
    records: createClientRecords(),
    /** By their ids, which ascend. */
    rows: new Map<number, ClientRow>(),
    /** Rows with room for new clients. */
    roomy: new Set<ClientRow>(),
    /** Rows with a cursor that moved, the longest waiting first. */
    dirty: new Set<ClientRow>(),
    /** Rows in which a client was seen, but no cursor moved. */
    seen: new Set<ClientRow>(),
    /** Each bouncer's share of the limit. */
    bytesOf: new Map<number, number>(),
    bytes: 0,
    cursors: 0,
    nextRowId: 1,
  };
}

export function clientName(bouncerId: number, address: string): string {
  return `${bouncerId} ${address}`;
}

/** A client as it is stored: without its row and without derived fields. */
export type KeptClient = Omit<Client, 'bouncerId' | 'row'>;

/** The client of a name as it is now. */
export function clientOf({ records }: Clients, name: string): Client | undefined {
  const entry = records.find(name);
  return entry === undefined ? undefined : records.read(entry, name);
}

/** Of all clients, in the order in which they lie in memory: any other takes much longer. */
function entriesOf({ rows }: Clients): number[] {
  return [...rows.values()].flatMap(({ entries }) => entries);
}

export function clientsIn({ records }: Clients, row: ClientRow): Client[] {
  return row.entries.map((entry) => records.read(entry));
}

/** The row that a client is stored in. */
export function rowOf({ records, rows }: Clients, name: string): ClientRow | undefined {
  const entry = records.find(name);
  return entry === undefined ? undefined : rows.get(records.rowOf(entry));
}

/** Inserts a client and replaces one of the same name. */
export function insertClient(clients: Clients, kept: KeptClient, row = roomyRow(clients)): Client {
  const known = clientOf(clients, kept.name);
  if (known) forget(clients, known);
  const bouncerId = Number(kept.name.slice(0, kept.name.indexOf(' ')));
  const client = { ...kept, bouncerId, row: row.id };
  row.entries.push(put(clients, client, undefined));
  return client;
}

/** Adds a row: a new one, or one that was read from storage with its id. */
export function addRow(clients: Clients, id = clients.nextRowId): ClientRow {
  const row: ClientRow = { id, entries: [], baselines: [] };
  clients.rows.set(id, row);
  clients.roomy.add(row);
  clients.nextRowId = Math.max(clients.nextRowId, id + 1);
  return row;
}

/** Moves half of a row's clients to a new row. */
export function splitRow(clients: Clients, row: ClientRow): ClientRow {
  const other = addRow(clients);
  for (const entry of row.entries.splice(Math.ceil(row.entries.length / 2))) {
    const client = clients.records.read(entry);
    other.entries.push(put(clients, { ...client, row: other.id }, client));
  }
  clients.dirty.add(other);
  return other;
}

/** Removes an empty row. */
export function removeRow(clients: Clients, row: ClientRow): void {
  clients.rows.delete(row.id);
  clients.roomy.delete(row);
}

/** Notes a poll and returns the name of its client. */
export function noteSighting(clients: Clients, sighting: Sighting): string {
  const { bouncerId, address, versionId, seenMs } = sighting;
  const name = clientName(bouncerId, address);
  const userAgent = cut(sighting.userAgent, userAgentLength);
  const entry = clients.records.find(name);
  if (entry === undefined) {
    const client = insertClient(clients, { ...firstSeen, name, seenMs, userAgent, versionId });
    makeRoom(clients, client);
  } else if (!clients.records.noteSame(entry, versionId, userAgent, seenMs)) {
    const client = clients.records.read(entry);
    const intervalMs = intervalAfter(client.intervalMs, client.seenMs, seenMs);
    put(clients, { ...client, ...usedAgain(client, versionId, seenMs), userAgent, intervalMs }, client);
  }
  clients.seen.add(rowOf(clients, name) as ClientRow);
  return name;
}

const firstSeen: Pick<Client, 'earlierUses' | 'cursors' | 'intervalMs'> = {
  earlierUses: [],
  cursors: [],
  intervalMs: 0,
};

function roomyRow(clients: Clients): ClientRow {
  for (const row of clients.roomy) {
    if (row.entries.length < clientsPerRow) return row;
    clients.roomy.delete(row);
  }
  return addRow(clients);
}

/** The uses after one more. Keeps three versions. A bouncer has at most two that are valid. */
function usedAgain(
  client: Client,
  versionId: number,
  usedMs: number,
): Pick<Client, 'versionId' | 'seenMs' | 'earlierUses'> {
  const { earlierUses } = client;
  if (versionId === client.versionId) {
    return { versionId, seenMs: Math.max(client.seenMs, usedMs), earlierUses };
  }
  const uses = new Map([...earlierUses, [client.versionId, client.seenMs] as const]);
  uses.set(versionId, Math.max(usedMs, uses.get(versionId) ?? 0));
  const ordered = [...uses].sort(([, a], [, b]) => a - b);
  const [newest, seenMs] = ordered.pop() as [number, number];
  return { versionId: newest, seenMs, earlierUses: ordered.slice(-2) };
}

/** The cursor of a client (`clientName`) for a view. */
export function cursorOf(clients: Clients, name: string, view: string): Cursor | undefined {
  return clientOf(clients, name)?.cursors.find((cursor) => cursor.view === view);
}

/** Moves a client's cursor. `undefined` forgets it: the next answer is the full state. */
export function setCursor(clients: Clients, name: string, view: string, cursor: Cursor | undefined): void {
  const client = clientOf(clients, name);
  // It may have been forgotten meanwhile.
  if (!client) return;
  const cursors = client.cursors.filter((each) => each.view !== view);
  if (cursor && view.length <= viewKeyLength) cursors.push({ ...cursor, view });
  const moved = { ...client, cursors: cursors.slice(-viewsPerClient) };
  put(clients, moved, client);
  if (cursor) makeRoom(clients, moved);
  clients.dirty.add(rowOf(clients, name) as ClientRow);
}

/** Moves on the cursor of a client that an isolate has answered. */
export function mergeCursor(
  clients: Clients,
  name: string,
  { view, cursor }: { readonly view: string; readonly cursor: PlainCursor },
): void {
  const known = cursorOf(clients, name, view);
  const merged = known && merge(known, cursor);
  if (merged !== known) setCursor(clients, name, view, merged);
}

/** A client as operators see it: an address that polls with a bouncer's key. */
export interface SeenClient {
  readonly address: string;
  readonly seenMs: number;
  readonly userAgent: string;
  /** The time between its last two pulls; 0: not known. */
  readonly intervalMs: number;
  /** Version id → when it was last used from here. */
  readonly versions: Readonly<Record<number, number>>;
}

/** Of one bouncer so many clients are read, those that were seen last: a key may be used from 50,000 addresses. */
export const mostRead = 1_000;

/**
 * The clients of each of some bouncers, the one seen last first: `mostRead` of each, and those beyond that used a version of
 * its key last.
 */
export function clientsOf(clients: Clients, bouncerIds: readonly number[]): SeenClient[][] {
  const { records } = clients;
  return [...entriesOfEach(clients, bouncerIds).values()].map((entries) => {
    const read = new Set(latest(clients, entries));
    if (read.size < entries.length) for (const entry of lastUsers(clients, entries)) read.add(entry);
    const seen = [...read].map((entry) => seenClient(records.read(entry)));
    return seen.sort((a, b) => b.seenMs - a.seenMs);
  });
}

function entriesOfEach(clients: Clients, bouncerIds: readonly number[]): Map<number, number[]> {
  const found = new Map<number, number[]>(bouncerIds.map((id) => [id, []]));
  for (const entry of entriesOf(clients)) found.get(clients.records.bouncerOf(entry))?.push(entry);
  return found;
}

/** Those that were seen last, `mostRead` of them. */
function latest({ records }: Clients, entries: readonly number[]): readonly number[] {
  if (entries.length <= mostRead) return entries;
  const times = Float64Array.from(entries, records.seenMsOf).sort();
  const least = times[times.length - mostRead] as number;
  return entries.filter((entry) => records.seenMsOf(entry) >= least).slice(0, mostRead);
}

/** For each version of the key the client that used it last. */
function lastUsers({ records }: Clients, entries: readonly number[]): Iterable<number> {
  const last = new Map<number, { readonly entry: number; readonly usedMs: number }>();
  for (const entry of entries) {
    for (const [versionId, usedMs] of records.usesOf(entry)) {
      if (usedMs > (last.get(versionId)?.usedMs ?? 0)) last.set(versionId, { entry, usedMs });
    }
  }
  return last.values().map(({ entry }) => entry);
}

function seenClient({ name, seenMs, userAgent, intervalMs, versionId, earlierUses }: Client): SeenClient {
  const versions = Object.fromEntries<number>([...earlierUses, [versionId, seenMs]]);
  return { address: name.slice(name.indexOf(' ') + 1), seenMs, userAgent, intervalMs, versions };
}

/** A client, and how far it has come in each of its views; the view that moved last comes last. */
export type Place = Pick<Client, 'seenMs' | 'cursors'>;

/** Where the clients of a bouncer stand. */
export interface Places {
  readonly clients: number;
  /** When one was last seen; null: there is none. */
  readonly seenMs: number | null;
  /** Those with a place in the stream, `mostRead` at most. */
  readonly following: readonly Place[];
}

/** Where the clients of each of some bouncers stand, in the order of the question. */
export function placesOf(clients: Clients, bouncerIds: readonly number[]): Places[] {
  const { records } = clients;
  return [...entriesOfEach(clients, bouncerIds).values()].map((entries) => {
    const seenMs = entries.reduce((newest, entry) => Math.max(newest, records.seenMsOf(entry)), 0) || null;
    const following = latest(clients, entries.filter(records.hasCursor)).map((entry) => records.read(entry));
    return { clients: entries.length, seenMs, following };
  });
}

/** Forgets the cursors of some views. */
export function forgetViews(clients: Clients, isForgotten: (view: string) => boolean): void {
  for (const entry of entriesOf(clients)) {
    const { name, cursors } = clients.records.read(entry);
    const views = cursors.map(({ view }) => view).filter(isForgotten);
    for (const view of views) setCursor(clients, name, view, undefined);
  }
}

/** Forgets some clients. */
export function forgetClients(
  clients: Clients,
  isForgotten: (client: Pick<Client, 'bouncerId' | 'seenMs'>) => boolean,
): void {
  const { records } = clients;
  for (const entry of entriesOf(clients)) {
    const seen = { bouncerId: records.bouncerOf(entry), seenMs: records.seenMsOf(entry) };
    if (isForgotten(seen)) forget(clients, records.read(entry));
  }
}

/** The baselines that some cursor refers to, in memory or in storage. */
export function baselinesInUse(clients: Clients): Set<number> {
  const used = new Set(clients.records.otherBaselines());
  for (const row of clients.rows.values()) for (const baseline of row.baselines) used.add(baseline);
  for (const row of clients.dirty) for (const baseline of baselinesOf(clients, row)) used.add(baseline);
  return used;
}

export function baselinesOf({ records }: Clients, row: ClientRow): number[] {
  const baselines = new Set<number>();
  for (const entry of row.entries) records.addBaselines(entry, baselines);
  return [...baselines];
}

/** Writes a client, and counts what it takes. `before`: as it was. */
function put(clients: Clients, client: Client, before: Client | undefined): number {
  count(clients, client, 1);
  if (before) count(clients, before, -1);
  return clients.records.write(client, before);
}

function forget(clients: Clients, client: Client): void {
  const { records } = clients;
  const row = rowOf(clients, client.name) as ClientRow;
  const entry = records.find(client.name) as number;
  const last = row.entries.pop() as number;
  if (last !== entry) row.entries[row.entries.indexOf(entry)] = last;
  count(clients, client, -1);
  records.delete(client);
  if (row.entries.length < clientsPerRow / 2) clients.roomy.add(row);
  clients.dirty.add(row);
}

/** Adds a client to what is counted, or with -1 takes it away. */
function count(clients: Clients, { name, bouncerId, userAgent, cursors }: Client, times: 1 | -1): void {
  const views = cursors.reduce((sum, { view }) => sum + view.length, 0);
  const bytes = 120 + name.length + userAgent.length + 60 * Math.max(1, cursors.length) + views;
  clients.cursors += times * cursors.length;
  clients.bytes += times * bytes;
  const own = (clients.bytesOf.get(bouncerId) ?? 0) + times * bytes;
  if (own === 0) clients.bytesOf.delete(bouncerId);
  else clients.bytesOf.set(bouncerId, own);
}

/** Forgets other clients if one that came or grew exceeds a limit. */
function makeRoom(clients: Clients, { name, bouncerId }: Client): void {
  const { records } = clients;
  const keep = records.find(name);
  const isOwn = (entry: number): boolean => entry !== keep && records.bouncerOf(entry) === bouncerId;
  const isOther = (entry: number): boolean => entry !== keep;
  while ((clients.bytesOf.get(bouncerId) ?? 0) > mostBytesPerBouncer && forgetOne(clients, isOwn));
  while (clients.bytes > mostBytes && forgetOne(clients, isOther));
}

/**
 * Forgets the client of one row that was not seen for longest. The search starts at a random row. To find the oldest of
 * all clients would mean to look at all; and when a few more clients poll in turn than there is room for, the oldest is
 * always the one that polls next.
 */
function forgetOne(clients: Clients, mayGo: (entry: number) => boolean): boolean {
  const { records } = clients;
  const rows = [...clients.rows.values()];
  const start = Math.floor(Math.random() * rows.length);
  for (let step = 0; step < rows.length; step++) {
    const { entries } = rows[(start + step) % rows.length] as ClientRow;
    let oldest: number | undefined;
    for (const entry of entries) {
      if (!mayGo(entry)) continue;
      if (oldest === undefined || records.seenMsOf(entry) < records.seenMsOf(oldest)) oldest = entry;
    }
    if (oldest === undefined) continue;
    forget(clients, records.read(oldest));
    return true;
  }
  return false;
}
