// Who polls: one client per (bouncer, address), with its cursor for each view and when it was last seen.
// Bouncers that share a key each see every change, and a program with another view beside them does not
// steal theirs. Held in memory, written behind in shards.

import type { Cursor } from './cursor.ts';

export interface Client {
  seenMs: number;
  userAgent: string;
  /** By `viewKey`. */
  readonly cursors: Map<string, Cursor>;
}

/** One poll that was seen, here or in an isolate that answered it alone. */
export interface Sighting {
  readonly bouncerId: number;
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

export function createClients(shards: readonly string[]): Clients {
  const byName = new Map<string, Client>();
  for (const body of shards) {
    const entries = JSON.parse(body) as [string, number, string, [string, number, number][]][];
    for (const [name, seenMs, userAgent, cursors] of entries) {
      const byView = new Map(cursors.map(([view, before, last]) => [view, { before, last }]));
      byName.set(name, { seenMs, userAgent, cursors: byView });
    }
  }
  return { byName, dirty: new Set(), seen: new Set() };
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
    client = { seenMs: 0, userAgent: '', cursors: new Map() };
    clients.byName.set(name, client);
  }
  client.seenMs = Math.max(client.seenMs, sighting.seenMs);
  client.userAgent = sighting.userAgent.slice(0, userAgentLength);
  clients.seen.add(shardOf(name));
  return client;
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
}

/** The clients of each of some bouncers, the one seen last first. */
export function clientsOf(clients: Clients, bouncerIds: readonly number[]): SeenClient[][] {
  const found = new Map<string, SeenClient[]>(bouncerIds.map((id) => [String(id), []]));
  for (const [name, { seenMs, userAgent }] of clients.byName) {
    const space = name.indexOf(' ');
    found.get(name.slice(0, space))?.push({ address: name.slice(space + 1), seenMs, userAgent });
  }
  return [...found.values()].map((seen) => seen.sort((a, b) => b.seenMs - a.seenMs));
}

/** Forgets clients that have not polled since `cutoffMs`: their cursors point at tombstones that are gone. */
export function forgetBefore(clients: Clients, cutoffMs: number): void {
  for (const [name, client] of clients.byName) if (client.seenMs < cutoffMs) forget(clients, name);
}

/** Forgets every client of a bouncer that was deleted. */
export function forgetBouncer(clients: Clients, bouncerId: number): void {
  for (const name of clients.byName.keys()) if (name.startsWith(`${bouncerId} `)) forget(clients, name);
}

/** What has to be written: each dirty shard with its body, and those with mere sightings. Marks them clean. */
export function takeDirtyShards(clients: Clients, withSeen: boolean): { shard: number; body: string }[] {
  if (withSeen) {
    for (const shard of clients.seen) clients.dirty.add(shard);
    clients.seen.clear();
  }
  if (clients.dirty.size === 0) return [];
  const entries = new Map<number, unknown[]>([...clients.dirty].map((shard) => [shard, []]));
  for (const [name, client] of clients.byName) {
    const cursors = [...client.cursors].map(([view, { before, last }]) => [view, before, last]);
    entries.get(shardOf(name))?.push([name, client.seenMs, client.userAgent, cursors]);
  }
  clients.dirty.clear();
  return [...entries].map(([shard, list]) => ({ shard, body: JSON.stringify(list) }));
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
