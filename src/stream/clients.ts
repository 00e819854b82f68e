// Who polls: one client per (bouncer, address), with its cursor for each view and when it was last seen.
// Bouncers that share a key each see every change, and a program with another view beside them does not
// steal theirs. Held in memory, written behind in rows of many clients (clients-log.ts).

import { cut } from '../formats/cut.ts';
import type { Cursor } from './cursor.ts';
import { intern } from '../formats/decision.ts';
import type { Owed } from './owed.ts';

/** Flat, without objects that could be shared: there may be 200,000, and memory is what bounds them. */
export interface Client {
  /** `clientName`. */
  readonly name: string;
  readonly bouncerId: number;
  seenMs: number;
  userAgent: string;
  /** The version of the bouncer's key that was used at `seenMs`. */
  versionId: number;
  /** When others were last used from here, the latest last. */
  earlierUses: readonly (readonly [versionId: number, usedMs: number])[];
  /** The one that moved last is the last. */
  cursors: readonly ViewCursor[];
  row: ClientRow;
  /** What it counts for. */
  bytes: number;
}

/** A cursor with the key of its view (`requestKey`). */
interface ViewCursor {
  readonly view: string;
  readonly beforeSequence: number;
  readonly beforeBasis: number;
  readonly lastSequence: number;
  readonly lastBasis: number;
  readonly owed: readonly Owed[];
}

/** Clients that are written together. */
export interface ClientRow {
  readonly id: number;
  readonly clients: Client[];
  /** The bases that its cursors stand on, as it was last written. */
  bases: readonly number[];
}

/** One poll that was seen, here or in an isolate that answered it alone. */
export interface Sighting {
  readonly bouncerId: number;
  readonly versionId: number;
  readonly address: string;
  readonly seenMs: number;
  readonly userAgent: string;
}

export interface Clients {
  readonly byName: Map<string, Client>;
  readonly rows: ClientRow[];
  /** Rows that take new clients. */
  readonly roomy: Set<ClientRow>;
  /** Rows with a cursor that moved, those that wait longest first. */
  readonly dirty: Set<ClientRow>;
  /** Rows in which somebody was merely seen. */
  readonly seen: Set<ClientRow>;
  /** What the clients of each bouncer count for. */
  readonly bytesOf: Map<number, number>;
  bytes: number;
  cursors: number;
  nextRowId: number;
}

/** A client may vary its view at will; it pays with full states beyond these, not with our memory. */
const viewsPerClient = 6;
const viewKeyLength = 300;
export const userAgentLength = 120;

/**
 * All clients together: some 200,000 with one view each. They count as if they shared no text, while most share
 * user agent and view; so 200,000 take some 40 MB, and whoever varies what he sends takes no more than this.
 */
const mostBytes = 64 * 1024 * 1024;
/** The share of one bouncer, some 50,000: a key in wrong hands costs the others nothing. */
const mostBytesPerBouncer = mostBytes / 4;

/** Some 50 KB as JSON. Larger rows would make fewer billed writes, smaller ones a cheaper write of one cursor. */
const clientsPerRow = 500;

export function createClients(): Clients {
  return {
    byName: new Map(),
    rows: [],
    roomy: new Set(),
    dirty: new Set(),
    seen: new Set(),
    bytesOf: new Map(),
    bytes: 0,
    cursors: 0,
    nextRowId: 1,
  };
}

export function clientName(bouncerId: number, address: string): string {
  return `${bouncerId} ${address}`;
}

/** A client as it is kept: without its row, and without what follows from the rest. */
export type KeptClient = Omit<Client, 'bouncerId' | 'row' | 'bytes'>;

/** Takes in a client; one of the same name gives way. */
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

/** A row for new clients, or that with an id. */
export function addRow(clients: Clients, id = clients.nextRowId): ClientRow {
  const row: ClientRow = { id, clients: [], bases: [] };
  clients.rows.push(row);
  clients.roomy.add(row);
  clients.nextRowId = Math.max(clients.nextRowId, id + 1);
  return row;
}

/** Half of a row's clients go into another one. */
export function splitRow(clients: Clients, row: ClientRow): ClientRow {
  const other = addRow(clients);
  for (const client of row.clients.splice(Math.ceil(row.clients.length / 2))) {
    client.row = other;
    other.clients.push(client);
  }
  clients.dirty.add(other);
  return other;
}

/** Takes away a row without clients. */
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
  const known = clients.byName.get(name);
  const client = known ?? addClient(clients, { name, seenMs, userAgent, versionId });
  noteUse(client, versionId, seenMs);
  if (client.userAgent !== userAgent) {
    client.userAgent = intern(userAgent);
    weigh(clients, client);
  }
  clients.seen.add(client.row);
  return client;
}

type Newcomer = Pick<Client, 'name' | 'seenMs' | 'userAgent' | 'versionId'>;

const none: readonly never[] = [];

function addClient(clients: Clients, newcomer: Newcomer): Client {
  const userAgent = intern(newcomer.userAgent);
  const client = insertClient(clients, { ...newcomer, userAgent, earlierUses: none, cursors: none });
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

/** A bouncer has two live versions at most: with a fourth the earliest use is history. */
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
  const found = client.cursors.find((cursor) => cursor.view === view);
  return (
    found && {
      before: { sequence: found.beforeSequence, basis: found.beforeBasis },
      last: { sequence: found.lastSequence, basis: found.lastBasis },
      owed: found.owed,
    }
  );
}

/** Moves a client's cursor; `undefined` forgets it, and the next answer is the full state. */
export function setCursor(clients: Clients, client: Client, view: string, cursor: Cursor | undefined): void {
  const known = client.cursors.find((each) => each.view === view);
  const cursors = client.cursors.filter((each) => each !== known);
  if (cursor && view.length <= viewKeyLength) {
    cursors.push({
      view: known?.view ?? intern(view),
      beforeSequence: cursor.before.sequence,
      beforeBasis: cursor.before.basis,
      lastSequence: cursor.last.sequence,
      lastBasis: cursor.last.basis,
      owed: cursor.owed,
    });
  }
  // One that was forgotten meanwhile counts no more.
  if (clients.byName.get(client.name) !== client) return;
  const kept = cursors.slice(-viewsPerClient);
  clients.cursors += kept.length - client.cursors.length;
  client.cursors = kept;
  weigh(clients, client);
  makeRoom(clients, client);
  clients.dirty.add(client.row);
}

/** One client as operators see it: an address that polls with a bouncer's key. */
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

/** Forgets the cursors of some views. */
export function forgetViews(clients: Clients, isForgotten: (view: string) => boolean): void {
  for (const client of clients.byName.values()) {
    const views = client.cursors.map(({ view }) => view).filter(isForgotten);
    for (const view of views) setCursor(clients, client, view, undefined);
  }
}

/** Forgets clients that have not polled since `cutoffMs`: their cursors point at tombstones that are gone. */
export function forgetBefore(clients: Clients, cutoffMs: number): void {
  for (const client of clients.byName.values()) if (client.seenMs < cutoffMs) forget(clients, client);
}

/** Forgets every client of a bouncer that was deleted. */
export function forgetBouncer(clients: Clients, bouncerId: number): void {
  for (const client of clients.byName.values()) {
    if (client.bouncerId === bouncerId) forget(clients, client);
  }
}

export function forgetBouncersAfter(clients: Clients, bouncerId: number): void {
  for (const client of clients.byName.values()) if (client.bouncerId > bouncerId) forget(clients, client);
}

/** The bases that some cursor stands on, in memory or as its row was last written. */
export function basesInUse(clients: Clients): Set<number> {
  const used = new Set<number>();
  for (const row of clients.rows) for (const basis of row.bases) used.add(basis);
  for (const row of clients.dirty) for (const basis of basesOf(row)) used.add(basis);
  return used;
}

export function basesOf(row: ClientRow): number[] {
  const bases = new Set<number>();
  for (const { cursors } of row.clients) {
    for (const { beforeBasis, lastBasis } of cursors) bases.add(beforeBasis).add(lastBasis);
  }
  return [...bases];
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

/** Counts a client anew: itself, its places in the maps, its texts and its cursors. */
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

/** Forgets others for a client that came or grew. */
function makeRoom(clients: Clients, keep: Client): void {
  const { bouncerId } = keep;
  const isOwn = (client: Client): boolean => client !== keep && client.bouncerId === bouncerId;
  const isOther = (client: Client): boolean => client !== keep;
  while ((clients.bytesOf.get(bouncerId) ?? 0) > mostBytesPerBouncer && forgetOne(clients, isOwn));
  while (clients.bytes > mostBytes && forgetOne(clients, isOther));
}

/**
 * Forgets the one that was not seen for longest, of those in one row: with any row first, whoever has clients to lose
 * has them in many. The oldest of all would cost a look at all; and where a few more poll in turn than there is room
 * for, it would always be the one that polls next.
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
