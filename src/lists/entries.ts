// Which networks a list has, in which order: those of a view, merged if that is asked for, then cut. What was chosen stays as
// it is while it is sent, whatever changes meanwhile: rows do not change but in what no list says.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { parseNetwork } from '../formats/ip.ts';
import { endOf, type Mirror } from '../mirror/memory.ts';
import { matcher, type View } from '../mirror/view.ts';
import { isOwn, outlives } from '../stream/selection.ts';
import { forms, type Entry } from './formats.ts';
import { createNetworks, inOrder, merge, setNetwork, type Networks } from './merge.ts';
import type { ListOptions } from './options.ts';

/** The networks of a list, in their order. 13 bytes for each besides its row, which the mirror has. */
export interface Chosen {
  /** The decision on each that lasts longest; of a merged one that of its first part. */
  readonly rows: readonly Row[];
  readonly prefixes: Uint8Array;
  readonly untilMs: Float64Array;
  /** How many there is no line for: the list was cut, or its form can not have them. */
  readonly omitted: number;
}

/** The bans on addresses of a view. */
export function listView(origins: View['origins']): View {
  return {
    scopes: ['Ip', 'Range'],
    origins,
    scenariosContaining: null,
    scenariosNotContaining: null,
    value: null,
    type: 'ban',
    within: null,
    dedup: true,
    limits: null,
  };
}

/** What a view bans, of one family: the decision on each network that lasts longest, and whether any on it is our own. */
interface Banned {
  readonly rows: Row[];
  readonly own: boolean[];
}

/** Networks of one family, and what is known of each by its number. */
interface Part {
  readonly networks: Networks;
  readonly rows: readonly Row[];
  readonly own: Uint8Array;
  readonly untilMs: Float64Array;
  /** The numbers of those that stay, in their order. */
  kept: Uint32Array;
}

/** `pause`: lets others go on. Nothing of the mirror is read after it, but rows, which do not change. */
export async function choose(
  mirror: Mirror,
  view: View,
  { format, family, limit, aggregate, hostsOnly }: ListOptions,
  pause: () => Promise<void>,
): Promise<Chosen> {
  const banned = bannedBy(mirror, view, family);
  const ends = banned.map(({ rows }) => Float64Array.from(rows, (row) => endOf(mirror, row)));
  const parts: Part[] = [];
  for (const [at, words] of ([1, 4] as const).entries()) {
    await pause();
    const part = await partOf(words, banned[at] as Banned, ends[at] as Float64Array, pause);
    await pause();
    part.kept = inOrder(part.networks);
    if (aggregate) joinAll(part);
    parts.push(part);
  }
  await pause();
  const all = countOf(parts);
  for (const part of parts) {
    const { words, prefixes } = part.networks;
    const isWritten = forms[format].families.includes(words === 1 ? 4 : 6);
    part.kept = part.kept.filter((at) => isWritten && (!hostsOnly || prefixes[at] === 32 * words));
  }
  cut(parts, Math.min(limit ?? Infinity, view.limits?.maxDecisions ?? Infinity));
  const lines = countOf(parts);
  return { ...joined(parts, lines), omitted: all - lines };
}

/** The networks of IPv4, and those of IPv6. One that is spelled in several ways is one. */
function bannedBy(mirror: Mirror, view: View, family: 4 | 6 | null): [v4: Banned, v6: Banned] {
  const matches = matcher(view);
  const v4: Banned = { rows: [], own: [] };
  const v6: Banned = { rows: [], own: [] };
  for (const siblings of mirror.byCanonicalValue.values()) {
    let longest: Row | undefined;
    let own = false;
    for (const row of siblings) {
      if (!isOfAddresses(row.scope) || !matches(row)) continue;
      own ||= isOwn(row);
      if (!longest || outlives(row, longest)) longest = row;
    }
    if (!longest) continue;
    const its = familyOf(longest);
    if ((family ?? its) !== its) continue;
    const banned = its === 4 ? v4 : v6;
    banned.rows.push(longest);
    banned.own.push(own);
  }
  return [v4, v6];
}

function familyOf({ canonicalValue }: Row): 4 | 6 {
  return canonicalValue.includes(':') ? 6 : 4;
}

/** So many texts of networks are read in some milliseconds. */
const readAtOnce = 5_000;

/** What is no network is left out: no bouncer can ban it. */
async function partOf(
  words: 1 | 4,
  banned: Banned,
  ends: Float64Array,
  pause: () => Promise<void>,
): Promise<Part> {
  const count = banned.rows.length;
  const { addresses, prefixes } = createNetworks(words, count);
  const rows: Row[] = [];
  const own = new Uint8Array(count);
  const untilMs = new Float64Array(count);
  for (const [from, row] of banned.rows.entries()) {
    if (from % readAtOnce === readAtOnce - 1) await pause();
    const network = parseNetwork(row.canonicalValue);
    if (network?.bytes.length !== 4 * words) continue;
    const at = rows.push(row) - 1;
    setNetwork({ words, addresses, prefixes }, at, network.bytes, network.prefixBits);
    own[at] = Number(banned.own[from]);
    untilMs[at] = ends[from] as number;
  }
  const networks = { words, addresses, prefixes: prefixes.subarray(0, rows.length) };
  return { networks, rows, own, untilMs, kept: new Uint32Array() };
}

/** A ban is as much our own as a part of it, and two halves stand together until the first of them ends. */
function joinAll(part: Part): void {
  const { networks, own, untilMs } = part;
  part.kept = merge(networks, part.kept, (into, other, how) => {
    if (own[other] === 1) own[into] = 1;
    if (how === 'half') untilMs[into] = Math.min(untilMs[into] as number, untilMs[other] as number);
  });
}

/** Keeps the `most` that count most: own ones first, then those that last longest. Their order stays. */
function cut(parts: readonly Part[], most: number): void {
  if (countOf(parts) <= most) return;
  const own = taking(parts, 1, most);
  const others = taking(parts, 0, most - own.count);
  for (const part of parts) {
    // One after the other: of equal ends the first ones are taken.
    part.kept = part.kept.filter((at) => own.takes(part, at) || others.takes(part, at));
  }
}

/** Which of those that are our own, or are not, are among the `most` of them that last longest. */
function taking(parts: readonly Part[], wanted: 0 | 1, most: number) {
  const ends = new Float64Array(countOf(parts));
  let length = 0;
  for (const { kept, own, untilMs } of parts) {
    for (const at of kept) if (own[at] === wanted) ends[length++] = untilMs[at] as number;
  }
  const sorted = ends.subarray(0, length).sort();
  const count = Math.min(most, length);
  const leastMs = count === 0 ? Infinity : (sorted[length - count] as number);
  /** How many of those that end just then. */
  let room = count - sorted.subarray(length - count).filter((end) => end > leastMs).length;
  return {
    count,
    takes({ own, untilMs }: Part, at: number): boolean {
      const endMs = untilMs[at] as number;
      if (own[at] !== wanted || endMs < leastMs) return false;
      return endMs > leastMs || room-- > 0;
    },
  };
}

function countOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { kept }) => sum + kept.length, 0);
}

function joined(parts: readonly Part[], lines: number): Omit<Chosen, 'omitted'> {
  const rows: Row[] = [];
  const prefixes = new Uint8Array(lines);
  const untilMs = new Float64Array(lines);
  for (const part of parts) {
    for (const at of part.kept) {
      const to = rows.push(part.rows[at] as Row) - 1;
      prefixes[to] = part.networks.prefixes[at] as number;
      untilMs[to] = part.untilMs[at] as number;
    }
  }
  return { rows, prefixes, untilMs };
}

/** What is written of each, as of a time. */
export function* entriesOf({ rows, prefixes, untilMs }: Chosen, asOfMs: number): Generator<Entry> {
  for (const [at, row] of rows.entries()) {
    const { canonicalValue, id, scenario } = row;
    const slash = canonicalValue.indexOf('/');
    yield {
      address: slash < 0 ? canonicalValue : canonicalValue.slice(0, slash),
      prefixBits: prefixes[at] as number,
      family: familyOf(row),
      id,
      scenario,
      leftMs: (untilMs[at] as number) - asOfMs,
    };
  }
}
