// Who polls: one client per (bouncer, address), with its cursor for each view and when it was last seen.
// Bouncers that share a key each see every change, and a program with another view beside them does not
// steal theirs. Held in memory, written behind in shards.

import type { Cursor } from './cursor.ts';

export interface Client {
  seenMs: number;
  userAgent: string;
  /** By `requestKey`. */
  readonly cursors: Map<string, Cursor>;
  /** When which version of the bouncer's key was last used from here. */
  readonly versions: Record<number, number>;
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
  /** Shards with a cursor that moved: written every 10 s. */
  readonly dirty: Set<number>;
  /** Shards in which somebody was merely seen: written every minute. */
  readonly seen: Set<number>;
}

/** A row holds 2 MB at most: with all clients at their limits a shard stays below it. */
const shardCount = 64;

/** A client may vary its view at will; it pays with full states beyond these, not with our memory. */
const viewsPerClient = 6;
const viewKeyLength = 300;
const userAgentLength = 120;
const mostClients = 50_000;

/** A cursor as it is stored: view, the two sequences and, where there are limits, the two bases. */
type CursorEntry = [view: string, before: number, last: number, beforeBasis?: number, lastBasis?: number];

/** A client as it is stored; the versions came later. */
type Entry = [string, number, string, CursorEntry[], Record<number, number>?];

export function createClients(shards: readonly string[]): Clients {
  const byName = new Map<string, Client>();
  for (const body of shards) {
    const entries = JSON.parse(body) as Entry[];
    for (const [name, seenMs, userAgent, cursors, versions = {}] of entries) {
      const byView = new Map(cursors.map((entry) => [entry[0], readCursor(entry)]));
      byName.set(name, { seenMs, userAgent, cursors: byView, versions });
    }
  }
  return { byName, dirty: new Set(), seen: new Set() };
}

function readCursor([, before, last, beforeBasis = 0, lastBasis = 0]: CursorEntry): Cursor {
  return {
    before: { sequence: before, basis: beforeBasis },
    last: { sequence: last, basis: lastBasis },
  };
}

function cursorEntry([view, { before, last }]: [string, Cursor]): CursorEntry {
  const bases: [number?, number?] = before.basis === 0 && last.basis === 0 ? [] : [before.basis, last.basis];
  return [view, before.sequence, last.sequence, ...bases];
}

export function clientName(bouncerId: number, address: string): string {
  return `${bouncerId} ${address}`;
}

/** Notes a poll and returns its client. */
export function noteSighting(clients: Clients, sighting: Sighting): Client {
  const name = clientName(sighting.bouncerId, sighting.address);
  let client = clients.byName.get(name);
  if (!client) {
    if (clients.byName.size >= mostClients) forgetOldest(clients);
    client = { seenMs: 0, userAgent: '', cursors: new Map(), versions: {} };
    clients.byName.set(name, client);
  }
  client.seenMs = Math.max(client.seenMs, sighting.seenMs);
  noteVersion(client, sighting);
  client.userAgent = sighting.userAgent.slice(0, userAgentLength);
  clients.seen.add(shardOf(name));
  return client;
}

/** A bouncer has two live versions at most: with a fourth the oldest use is history. */
function noteVersion(client: Client, { versionId, seenMs }: Sighting): void {
  client.versions[versionId] = seenMs;
  const [oldest, ...rest] = Object.keys(client.versions).map(Number);
  if (rest.length >= 3 && oldest !== undefined) delete client.versions[oldest];
}

/** Moves a client's cursor; `undefined` forgets it, and the next answer is the full state. */
export function setCursor(clients: Clients, name: string, view: string, cursor: Cursor | undefined): void {
  const client = clients.byName.get(name);
  if (!client) return;
  client.cursors.delete(view);
  if (cursor && view.length <= viewKeyLength) client.cursors.set(view, cursor);
  const oldest = client.cursors.keys().next().value;
  if (client.cursors.size > viewsPerClient && oldest !== undefined) client.cursors.delete(oldest);
  clients.dirty.add(shardOf(name));
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
  const found = new Map<string, SeenClient[]>(bouncerIds.map((id) => [String(id), []]));
  for (const [name, { seenMs, userAgent, versions }] of clients.byName) {
    const space = name.indexOf(' ');
    found.get(name.slice(0, space))?.push({ address: name.slice(space + 1), seenMs, userAgent, versions });
  }
  return [...found.values()].map((seen) => seen.sort((a, b) => b.seenMs - a.seenMs));
}

/** Forgets the cursors of some views. */
export function forgetViews(clients: Clients, isForgotten: (view: string) => boolean): void {
  for (const [name, { cursors }] of clients.byName) {
    for (const view of [...cursors.keys()].filter(isForgotten)) setCursor(clients, name, view, undefined);
  }
}

/** Forgets clients that have not polled since `cutoffMs`: their cursors point at tombstones that are gone. */
export function forgetBefore(clients: Clients, cutoffMs: number): void {
  for (const [name, client] of clients.byName) if (client.seenMs < cutoffMs) forget(clients, name);
}

/** Forgets every client of a bouncer that was deleted. */
export function forgetBouncer(clients: Clients, bouncerId: number): void {
  for (const name of clients.byName.keys()) if (name.startsWith(`${bouncerId} `)) forget(clients, name);
}

export function forgetBouncersAfter(clients: Clients, bouncerId: number): void {
  for (const name of clients.byName.keys()) {
    if (Number(name.slice(0, name.indexOf(' '))) > bouncerId) forget(clients, name);
  }
}

/** What has to be written: each dirty shard with its body, and those with mere sightings. Marks them clean. */
export function takeDirtyShards(clients: Clients, withSeen: boolean): { shard: number; body: string }[] {
  if (withSeen) {
    for (const shard of clients.seen) clients.dirty.add(shard);
    clients.seen.clear();
  }
  const shards = bodiesOf(clients, clients.dirty);
  clients.dirty.clear();
  return shards;
}

/** The shard of a client whose cursor must not wait. */
export function shardWith(clients: Clients, name: string): { shard: number; body: string } {
  const [shard] = bodiesOf(clients, new Set([shardOf(name)]));
  return shard as { shard: number; body: string };
}

function bodiesOf(clients: Clients, shards: ReadonlySet<number>): { shard: number; body: string }[] {
  if (shards.size === 0) return [];
  const entries = new Map<number, unknown[]>([...shards].map((shard) => [shard, []]));
  for (const [name, client] of clients.byName) {
    const cursors = [...client.cursors].map(cursorEntry);
    entries.get(shardOf(name))?.push([name, client.seenMs, client.userAgent, cursors, client.versions]);
  }
  return [...entries].map(([shard, list]) => ({ shard, body: JSON.stringify(list) }));
}

/** The bases that some cursor stands on. */
export function basesInUse(clients: Clients): Set<number> {
  const used = new Set<number>();
  for (const { cursors } of clients.byName.values()) {
    for (const { before, last } of cursors.values()) used.add(before.basis).add(last.basis);
  }
  return used;
}

function forget(clients: Clients, name: string): void {
  clients.byName.delete(name);
  clients.dirty.add(shardOf(name));
}

function forgetOldest(clients: Clients): void {
  let oldest: string | undefined;
  let oldestMs = Infinity;
  for (const [name, { seenMs }] of clients.byName) {
    if (seenMs < oldestMs) [oldest, oldestMs] = [name, seenMs];
  }
  if (oldest !== undefined) forget(clients, oldest);
}

function shardOf(name: string): number {
  let hash = 0;
  for (let at = 0; at < name.length; at++) hash = (hash * 31 + name.charCodeAt(at)) | 0;
  return Math.abs(hash) % shardCount;
}
