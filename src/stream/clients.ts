// Who polls: one client per bouncer and address, with a cursor for each of its views and when it was last seen. So all
// bouncers that share a key see every change, and programs with different views do not disturb each other. Clients are
// held in memory and written behind (clients.sql.ts).

import { merge, type Cursor, type PlainCursor } from './cursor.ts';
import { cut, intern } from '../formats/texts.ts';

/** Flat to save memory: there may be 200,000. */
export interface Client {
  /** `clientName`. */
  readonly name: string;
  readonly bouncerId: number;
  seenMs: number;
  userAgent: string;
  /** The version of the bouncer's key that was used at `seenMs`. */
  versionId: number;
  /** When other versions were last used from here, the latest last. */
  earlierUses: readonly (readonly [versionId: number, usedMs: number])[];
  /** The one that moved last comes last. */
  cursors: readonly ViewCursor[];
  row: ClientRow;
  /** Its share of the memory limits. */
  bytes: number;
}

/** A cursor with the key of its view (`requestKey`). */
export interface ViewCursor extends Cursor {
  readonly view: string;
}

/** Clients that are written together, as one row. */
export interface ClientRow {
  readonly id: number;
  readonly clients: Client[];
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
 * and view, so 200,000 take some 40 MB; those that vary them take no more than this limit.
 */
const mostBytes = 64 * 1024 * 1024;
/** The share of one bouncer, some 50,000 clients: a stolen key does not push out the others' clients. */
const mostBytesPerBouncer = mostBytes / 4;

/** Some 50 KB of JSON. Larger rows need fewer billed writes; smaller ones make it cheaper to write one cursor. */
const clientsPerRow = 500;

export type Clients = ReturnType<typeof createClients>;

export function createClients() {
  return {
    byName: new Map<string, Client>(),
    rows: [] as ClientRow[],
    /** Rows with room for new clients. */
    roomy: new Set<ClientRow>(),
    /** Rows with a cursor that moved, the longest waiting first. */
    dirty: new Set<ClientRow>(),
    /** Rows in which a client was seen, but no cursor moved. */
    seen: new Set<ClientRow>(),
    /** The `bytes` of each bouncer's clients. */
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
export type KeptClient = Omit<Client, 'bouncerId' | 'row' | 'bytes'>;

/** Inserts a client and replaces one of the same name. */
export function insertClient(clients: Clients, kept: KeptClient, row = roomyRow(clients)): Client {
  const { name, seenMs, userAgent, versionId, earlierUses, cursors } = kept;
  const known = clients.byName.get(name);
  if (known) forget(clients, known);
  const bouncerId = Number(name.slice(0, name.indexOf(' ')));
  const client = { name, bouncerId, seenMs, userAgent, versionId, earlierUses, cursors, row, bytes: 0 };
  clients.byName.set(name, client);
  clients.cursors += cursors.length;
  row.clients.push(client);
  weigh(clients, client);
  return client;
}

/** Adds a row: a new one, or one that was read from storage with its id. */
export function addRow(clients: Clients, id = clients.nextRowId): ClientRow {
  const row: ClientRow = { id, clients: [], baselines: [] };
  clients.rows.push(row);
  clients.roomy.add(row);
  clients.nextRowId = Math.max(clients.nextRowId, id + 1);
  return row;
}

/** Moves half of a row's clients to a new row. */
export function splitRow(clients: Clients, row: ClientRow): ClientRow {
  const other = addRow(clients);
  for (const client of row.clients.splice(Math.ceil(row.clients.length / 2))) {
    client.row = other;
    other.clients.push(client);
  }
  clients.dirty.add(other);
  return other;
}

/** Removes an empty row. */
export function removeRow(clients: Clients, row: ClientRow): void {
  const at = clients.rows.indexOf(row);
  if (at >= 0) clients.rows.splice(at, 1);
  clients.roomy.delete(row);
}

/** Notes a poll and returns its client. */
export function noteSighting(clients: Clients, sighting: Sighting): Client {
  const { bouncerId, address, versionId, seenMs } = sighting;
  const name = clientName(bouncerId, address);
  const userAgent = cut(sighting.userAgent, userAgentLength);
  const client = clients.byName.get(name) ?? addClient(clients, name, sighting, intern(userAgent));
  noteUse(client, versionId, seenMs);
  if (client.userAgent !== userAgent) {
    client.userAgent = intern(userAgent);
    weigh(clients, client);
  }
  clients.seen.add(client.row);
  return client;
}

const none: readonly never[] = [];

function addClient(clients: Clients, name: string, sighting: Sighting, userAgent: string): Client {
  const { seenMs, versionId } = sighting;
  const kept = { name, seenMs, userAgent, versionId, earlierUses: none, cursors: none };
  const client = insertClient(clients, kept);
  makeRoom(clients, client);
  return client;
}

function roomyRow(clients: Clients): ClientRow {
  for (const row of clients.roomy) {
    if (row.clients.length < clientsPerRow) return row;
    clients.roomy.delete(row);
  }
  return addRow(clients);
}

/** Keeps three versions. A bouncer has at most two that are valid. */
function noteUse(client: Client, versionId: number, usedMs: number): void {
  if (versionId === client.versionId) {
    client.seenMs = Math.max(client.seenMs, usedMs);
    return;
  }
  const uses = new Map([...client.earlierUses, [client.versionId, client.seenMs] as const]);
  uses.set(versionId, Math.max(usedMs, uses.get(versionId) ?? 0));
  const ordered = [...uses].sort(([, a], [, b]) => a - b);
  [client.versionId, client.seenMs] = ordered.pop() as [number, number];
  client.earlierUses = ordered.slice(-2);
}

/** A client's cursor for a view. */
export function cursorOf(client: Client, view: string): Cursor | undefined {
  return client.cursors.find((cursor) => cursor.view === view);
}

/** Moves a client's cursor. `undefined` forgets it: the next answer is the full state. */
export function setCursor(clients: Clients, client: Client, view: string, cursor: Cursor | undefined): void {
  const known = client.cursors.find((each) => each.view === view);
  const cursors = client.cursors.filter((each) => each !== known);
  if (cursor && view.length <= viewKeyLength) cursors.push({ ...cursor, view: known?.view ?? intern(view) });
  // The client may have been forgotten meanwhile.
  if (clients.byName.get(client.name) !== client) return;
  const kept = cursors.slice(-viewsPerClient);
  clients.cursors += kept.length - client.cursors.length;
  client.cursors = kept;
  weigh(clients, client);
  makeRoom(clients, client);
  clients.dirty.add(client.row);
}

/** Moves on the cursor of a client that an isolate has answered. */
export function mergeCursor(
  clients: Clients,
  client: Client,
  { view, cursor }: { readonly view: string; readonly cursor: PlainCursor },
): void {
  const known = cursorOf(client, view);
  const merged = known && merge(known, cursor);
  if (merged !== known) setCursor(clients, client, view, merged);
}

/** A client as operators see it: an address that polls with a bouncer's key. */
export interface SeenClient {
  readonly address: string;
  readonly seenMs: number;
  readonly userAgent: string;
  /** Version id → when it was last used from here. */
  readonly versions: Readonly<Record<number, number>>;
}

/** The clients of each of some bouncers, the one seen last first. */
export function clientsOf(clients: Clients, bouncerIds: readonly number[]): SeenClient[][] {
  const found = new Map<number, SeenClient[]>(bouncerIds.map((id) => [id, []]));
  for (const client of clients.byName.values()) {
    const { bouncerId, name, seenMs, userAgent, versionId, earlierUses } = client;
    const versions = Object.fromEntries([...earlierUses, [versionId, seenMs]]);
    const address = name.slice(name.indexOf(' ') + 1);
    found.get(bouncerId)?.push({ address, seenMs, userAgent, versions });
  }
  return [...found.values()].map((seen) => seen.sort((a, b) => b.seenMs - a.seenMs));
}

/** A client, and how far it has come in each of its views; the view that moved last comes last. */
export interface Place {
  readonly seenMs: number;
  readonly cursors: readonly ViewCursor[];
}

/** Where the clients of some bouncers stand, by bouncer. */
export function placesOf(clients: Clients, bouncerIds: readonly number[]): Map<number, Place[]> {
  const found = new Map<number, Place[]>(bouncerIds.map((id) => [id, []]));
  for (const client of clients.byName.values()) found.get(client.bouncerId)?.push(client);
  return found;
}

/** Forgets the cursors of some views. */
export function forgetViews(clients: Clients, isForgotten: (view: string) => boolean): void {
  for (const client of clients.byName.values()) {
    const views = client.cursors.map(({ view }) => view).filter(isForgotten);
    for (const view of views) setCursor(clients, client, view, undefined);
  }
}

/** Forgets some clients. */
export function forgetClients(clients: Clients, isForgotten: (client: Client) => boolean): void {
  for (const client of clients.byName.values()) if (isForgotten(client)) forget(clients, client);
}

/** The baselines that some cursor refers to, in memory or in storage. */
export function baselinesInUse(clients: Clients): Set<number> {
  const used = new Set<number>();
  for (const row of clients.rows) for (const baseline of row.baselines) used.add(baseline);
  for (const row of clients.dirty) for (const baseline of baselinesOf(row)) used.add(baseline);
  return used;
}

export function baselinesOf(row: ClientRow): number[] {
  const baselines = new Set<number>();
  for (const { cursors } of row.clients) {
    for (const { beforeBaseline, lastBaseline } of cursors) baselines.add(beforeBaseline).add(lastBaseline);
  }
  return [...baselines];
}

function forget(clients: Clients, client: Client): void {
  const { row } = client;
  clients.byName.delete(client.name);
  clients.cursors -= client.cursors.length;
  count(clients, client.bouncerId, -client.bytes);
  const last = row.clients.pop() as Client;
  if (last !== client) row.clients[row.clients.indexOf(client)] = last;
  if (row.clients.length < clientsPerRow / 2) clients.roomy.add(row);
  clients.dirty.add(row);
}

/** Counts the bytes of a client again: itself, its map entries, its texts and its cursors. */
function weigh(clients: Clients, client: Client): void {
  const { name, userAgent, cursors } = client;
  const views = cursors.reduce((sum, { view }) => sum + view.length, 0);
  const bytes = 120 + name.length + userAgent.length + 60 * Math.max(1, cursors.length) + views;
  count(clients, client.bouncerId, bytes - client.bytes);
  client.bytes = bytes;
}

function count(clients: Clients, bouncerId: number, bytes: number): void {
  clients.bytes += bytes;
  const own = (clients.bytesOf.get(bouncerId) ?? 0) + bytes;
  if (own === 0) clients.bytesOf.delete(bouncerId);
  else clients.bytesOf.set(bouncerId, own);
}

/** Forgets other clients if one that came or grew exceeds a limit. */
function makeRoom(clients: Clients, keep: Client): void {
  const { bouncerId } = keep;
  const isOwn = (client: Client): boolean => client !== keep && client.bouncerId === bouncerId;
  const isOther = (client: Client): boolean => client !== keep;
  while ((clients.bytesOf.get(bouncerId) ?? 0) > mostBytesPerBouncer && forgetOne(clients, isOwn));
  while (clients.bytes > mostBytes && forgetOne(clients, isOther));
}

/**
 * Forgets the client of one row that was not seen for longest. The search starts at a random row. To find the oldest of
 * all clients would mean to look at all; and when a few more clients poll in turn than there is room for, the oldest is
 * always the one that polls next.
 */
function forgetOne(clients: Clients, mayGo: (client: Client) => boolean): boolean {
  const { rows } = clients;
  const start = Math.floor(Math.random() * rows.length);
  for (let step = 0; step < rows.length; step++) {
    let oldest: Client | undefined;
    for (const client of (rows[(start + step) % rows.length] as ClientRow).clients) {
      if (mayGo(client) && (!oldest || client.seenMs < oldest.seenMs)) oldest = client;
    }
    if (!oldest) continue;
    forget(clients, oldest);
    return true;
  }
  return false;
}
