// Which networks a list has, in which order: those that a view bans, merged if that is asked for, then cut. What was chosen
// stays as it is while it is sent, whatever changes meanwhile: rows do not change but in what no list says.

import type { Row } from '../formats/decision.ts';
import { formatNetwork } from '../formats/ip.ts';
import type { Mirror } from '../mirror/memory.ts';
import { withheldFrom, type View } from '../mirror/view.ts';
import { bannedBy, familyOf, type Part } from './banned.ts';
import { forms, type Entry } from './formats.ts';
import { addressAt, distinct, inOrder, merge, type Joined } from './merge.ts';
import type { ListOptions } from './options.ts';

/** The networks of a list, in their order. 13 bytes for each besides its row, which the mirror has. */
export interface Chosen {
  /** The decision on each that lasts longest; of a merged one that of its first part. */
  readonly rows: readonly Row[];
  /** The first addresses of those that are left of a range, whose row is withheld: one word for each, of IPv6 four. */
  readonly left: Uint32Array;
  /** Whether a line of a row is what is left of a range that is withheld. */
  readonly isLeft: (row: Row) => boolean;
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

/** Networks in their order. */
interface Sorted extends Part {
  /** The numbers of those that stay. */
  kept: Uint32Array;
}

/** `pause`: lets others go on. */
export async function choose(
  mirror: Mirror,
  view: View,
  { format, family, limit, aggregate, hostsOnly }: ListOptions,
  pause: () => Promise<void>,
): Promise<Chosen> {
  const parts: Sorted[] = [];
  for (const part of await bannedBy(mirror, view, family, pause)) {
    const { networks, rows } = part;
    const sorted = { ...part, kept: await inOrder(networks, rows.length, pause) };
    const join = (into: number, other: number): void => keepLonger(sorted, into, other);
    sorted.kept = await distinct(networks, sorted.kept, join, pause);
    if (aggregate) await joinAll(sorted, pause);
    parts.push(sorted);
    await pause();
  }
  const all = countOf(parts);
  for (const part of parts) {
    const { words, prefixes } = part.networks;
    const isWritten = forms[format].families.includes(words === 1 ? 4 : 6);
    part.kept = part.kept.filter((at) => isWritten && (!hostsOnly || prefixes[at] === 32 * words));
  }
  await cut(parts, Math.min(limit ?? Infinity, view.limits?.maxDecisions ?? Infinity), pause);
  await pause();
  const lines = countOf(parts);
  return { ...(await linesOf(parts, lines, withheldFrom(view), pause)), omitted: all - lines };
}

/** Of two equal networks, what is known of the one that lasts longer. */
function keepLonger({ rows, own, untilMs }: Part, into: number, other: number): void {
  if (own[other] === 1) own[into] = 1;
  if ((untilMs[other] as number) <= (untilMs[into] as number)) return;
  rows[into] = rows[other] as Row;
  untilMs[into] = untilMs[other] as number;
}

/** A ban is as much our own as a part of it, and two halves stand together until the first of them ends. */
async function joinAll(part: Sorted, pause: () => Promise<void>): Promise<void> {
  const { networks, own, untilMs } = part;
  const join = (into: number, other: number, how: Joined): void => {
    if (own[other] === 1) own[into] = 1;
    if (how === 'half') untilMs[into] = Math.min(untilMs[into] as number, untilMs[other] as number);
  };
  part.kept = await merge(networks, part.kept, join, pause);
}

/** Keeps the `most` that count most: own ones first, then those that last longest. Their order stays. */
async function cut(parts: readonly Sorted[], most: number, pause: () => Promise<void>): Promise<void> {
  if (countOf(parts) <= most) return;
  await pause();
  const own = taking(parts, 1, most);
  await pause();
  const others = taking(parts, 0, most - own.count);
  await pause();
  for (const part of parts) {
    // One after the other: of equal ends the first ones are taken.
    part.kept = part.kept.filter((at) => own.takes(part, at) || others.takes(part, at));
  }
}

/** Which of those that are our own, or are not, are among the `most` of them that last longest. */
function taking(parts: readonly Sorted[], wanted: 0 | 1, most: number) {
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

function countOf(parts: readonly Sorted[]): number {
  return parts.reduce((sum, { kept }) => sum + kept.length, 0);
}

/** Lines that are put together in one turn. */
const sliceLines = 20_000;

async function linesOf(
  parts: readonly Sorted[],
  lines: number,
  isLeft: Chosen['isLeft'],
  pause: () => Promise<void>,
): Promise<Omit<Chosen, 'omitted'>> {
  const rows: Row[] = [];
  const left: number[] = [];
  const prefixes = new Uint8Array(lines);
  const untilMs = new Float64Array(lines);
  for (const { kept, networks, ...part } of parts) {
    for (const at of kept) {
      const row = part.rows[at] as Row;
      const to = rows.push(row) - 1;
      prefixes[to] = networks.prefixes[at] as number;
      untilMs[to] = part.untilMs[at] as number;
      if (isLeft(row)) left.push(...addressAt(networks, at));
      if (to % sliceLines === sliceLines - 1) await pause();
    }
  }
  return { rows, left: Uint32Array.from(left), isLeft, prefixes, untilMs };
}

/** What is written of each, as of a time. */
export function* entriesOf(chosen: Chosen, asOfMs: number): Generator<Entry> {
  const { rows, left, prefixes, untilMs } = chosen;
  let place = 0;
  for (const [at, row] of rows.entries()) {
    const { canonicalValue, id, scenario } = row;
    const family = familyOf(row);
    const isLeft = chosen.isLeft(row);
    const slash = canonicalValue.indexOf('/');
    const words = left.subarray(place, place + (isLeft ? (family === 4 ? 1 : 4) : 0));
    place += words.length;
    yield {
      address: isLeft ? addressOf(words) : canonicalValue.slice(0, slash < 0 ? undefined : slash),
      prefixBits: prefixes[at] as number,
      family,
      id,
      isLeft,
      scenario,
      leftMs: (untilMs[at] as number) - asOfMs,
    };
  }
}

function addressOf(words: Uint32Array): string {
  const bytes = [...words].flatMap((word) => [
    word >>> 24,
    (word >>> 16) & 255,
    (word >>> 8) & 255,
    word & 255,
  ]);
  return formatNetwork({ bytes, prefixBits: 8 * bytes.length });
}
