// The allow-list in the feed: a change of it withholds decisions, or has them served again. Both are changes of the log like
// any other: a withheld decision leaves a tombstone and stays as a row that no view has; one that is served again is added
// anew. So every bouncer gets `deleted` or `new` with its next poll, whoever answers it.
//
// D1 has the truth. The feed's storage has a copy, written in one transaction with what follows from it. Entries end by our
// clock, as decisions do. One that has ended stays in the copy until D1 deletes it, since the clock may be set back.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';
import {
  createAllowed,
  isWithheld,
  networksOf,
  notAllowed,
  rangesOf,
  touching,
  type Allowed,
  type AllowedEntry,
} from './allowed.ts';
import { writeAllowed, type StoredEntry } from './allowed.sql.ts';
import { covering } from './covering.ts';
import { createRow } from './decisions.sql.ts';
import { listed, type Listed } from './listing.ts';
import type { Change, Mirror } from './memory.ts';
import { removal, write, writeIfPossible, type Store } from './mirror.ts';

/** Takes all entries as D1 has them. Throws an error that `isUnwritable` recognises. */
export function setAllowList(store: Store, entries: readonly AllowedEntry[], nowMs: number): void {
  const { mirror, allowList } = store;
  const stored = entries.map((entry): StoredEntry => {
    return { ...entry, applied: entry.expiresMs === null || entry.expiresMs > nowMs };
  });
  const live = stored.filter(({ applied }) => applied);
  const after = { entries: stored, atMs: nowMs, nextMs: nextEnd(live) };
  if (isSame(allowList.entries, stored)) {
    store.allowList = after;
    return;
  }
  const allowed = createAllowed(live);
  const changed = [...difference(mirror.allowed, allowed), ...difference(allowed, mirror.allowed)];
  const rows = [...touchedBy(mirror, networksOf(changed))];
  const withheld = rows.filter((row) => !row.withheld && isWithheld(allowed, row));
  const served = rows.filter((row) => row.withheld && !isWithheld(allowed, row));
  const state = { ...store.state };
  const removals = removal(mirror, withheld, state, nowMs);
  const added: Change['added'][number][] = [];
  // The row that was served leaves its tombstone, so the one that goes on is another.
  for (const row of withheld) {
    const rowId = ++state.sequence;
    added.push({ row: { ...createRow({ ...row, rowId }, row, rowId), withheld: true, ...provenBy(row) } });
  }
  for (const row of served) {
    added.push({ row: { ...createRow(row, row, ++state.sequence), ...provenBy(row) }, renewed: row });
  }
  // Where no row changes, look-ups do, and isolates remember them by the sequence.
  state.sequence++;
  write(store, { ...removals, added, sequence: state.sequence }, state, (sql) => {
    writeAllowed(sql, allowList.entries, stored);
  });
  mirror.allowed = allowed;
  store.allowList = after;
}

/** What a row says of its engine's database does not change with the allow-list: the engine added it when it did. */
function provenBy({ provenSeq, addedSeq }: Row): Pick<Row, 'provenSeq'> {
  return { provenSeq: provenSeq ?? addedSeq };
}

/** Ends the entries whose time is over. Called before every answer. */
export function sweepAllowList(store: Store, nowMs: number): void {
  const { entries, atMs, nextMs } = store.allowList;
  // With the clock set back an entry may not have ended yet.
  if (nowMs >= atMs && nowMs < nextMs) return;
  writeIfPossible(store, nowMs, () => setAllowList(store, entries, nowMs));
}

function nextEnd(entries: readonly AllowedEntry[]): number {
  return entries.reduce((next, { expiresMs }) => Math.min(next, expiresMs ?? Infinity), Infinity);
}

function isSame(before: readonly StoredEntry[], after: readonly StoredEntry[]): boolean {
  return (
    before.length === after.length &&
    before.every((entry, at) => {
      const { id, value, expiresMs, applied } = after[at] as StoredEntry;
      return (
        entry.id === id && entry.value === value && entry.expiresMs === expiresMs && entry.applied === applied
      );
    })
  );
}

/** The entries of the one whose value no entry of the other has. */
function difference(of: Allowed, other: Allowed): AllowedEntry[] {
  const values = new Set(other.entries.map(({ value }) => value));
  return of.entries.filter(({ value }) => !values.has(value));
}

/** So many wide networks are looked for by the beginnings of texts. */
const mostStarts = 8;

/** Active rows on addresses that share one with some networks. Where all are single addresses, it does not look at every row. */
function touchedBy(mirror: Mirror, networks: readonly Network[]): Set<Row> {
  const found = new Set(networks.flatMap((network) => covering(mirror, network)));
  const wide = networks.filter(({ bytes, prefixBits }) => prefixBits < bytes.length * 8);
  if (wide.length === 0) return found;
  const inside = rangesOf(wide);
  const starts = wide.map(startOf);
  const isLikely = ({ canonicalValue }: Row): boolean =>
    starts.length > mostStarts ||
    starts.some((start) => (start === ':' ? canonicalValue.includes(':') : canonicalValue.startsWith(start)));
  for (const row of mirror.byId.values()) if (isLikely(row) && isWithheld(inside, row)) found.add(row);
  return found;
}

/** What the texts of all networks inside begin with; `:`: they have one. */
function startOf({ bytes, prefixBits }: Network): string {
  if (bytes.length > 4) return ':';
  const octets = bytes.slice(0, prefixBits >> 3);
  return octets.map((octet) => `${octet}.`).join('');
}

/** What an entry withholds. */
export interface AllowEffect {
  /** The entries that share an address with it. */
  readonly entries: readonly AllowedEntry[];
  /** How many decisions touch it, whether another entry withholds them already or not. */
  readonly decisions: number;
  /** The ranges among them that are wider, and how many of their addresses are let free though nobody allowed them. */
  readonly ranges: readonly {
    readonly decision: Listed;
    readonly prefixBits: number;
    readonly freed: string;
  }[];
  /** Active decisions on countries and the like, from which no entry can except an address. */
  readonly beyond: number;
}

/** What an entry for a value withholds, or would. Nothing unless it is an address or a range. */
export function effectOf(store: Store, scope: string, value: string): AllowEffect {
  const { mirror } = store;
  let beyond = 0;
  for (const row of mirror.byId.values()) if (!isOfAddresses(row.scope)) beyond++;
  const network = isOfAddresses(scope) ? parseNetwork(value) : undefined;
  if (!network) return { entries: [], decisions: 0, ranges: [], beyond };
  const known = mirror.allowed.networks.filter((each) => each !== undefined);
  const allowed = rangesOf([...known, network]);
  const rows = [...touchedBy(mirror, [network])];
  const ranges = rows.flatMap((row) => {
    const own = parseNetwork(row.canonicalValue);
    if (!own || own.prefixBits >= network.prefixBits) return [];
    const [decision] = listed(store, [row]) as [Listed];
    return [{ decision, prefixBits: own.prefixBits, freed: notAllowed(allowed, own).toString() }];
  });
  return { entries: touching(mirror.allowed, network), decisions: rows.length, ranges, beyond };
}
