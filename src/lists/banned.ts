// Which networks a view bans, as columns. All are those of one moment, though others go on meanwhile: what was banned then is
// found from rows, which do not change. A range with an allowed address in it is what the allow-list leaves of it.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';
import { rangesFor, withoutAllowed, withoutGaps } from '../mirror/allowed.ts';
import { countPrefix, covering } from '../mirror/covering.ts';
import { endOf, type Mirror } from '../mirror/memory.ts';
import { passing, withheldFrom, type View } from '../mirror/view.ts';
import { isOwn, outlives } from '../stream/selection.ts';
import { createNetworks, setNetwork, type Networks } from './merge.ts';

/** Networks of one family, and what is known of each by its number. */
export interface Part {
  /** With room for more than there are. */
  networks: Networks;
  /** The decision on each that lasts longest. One that is withheld: it is on a range that this network is left of. */
  readonly rows: Row[];
  /** Whether any decision on it is our own. */
  own: Uint8Array;
  untilMs: Float64Array;
}

/** Values that are looked at in one turn: some milliseconds. */
const sliceValues = 2_000;
/** Look-ups of the ranges that hold what is left of one. */
const sliceLookups = 2_000;

/** The networks of IPv4, and those of IPv6. One that is spelled in several ways is one. `pause`: lets others go on. */
export async function bannedBy(
  mirror: Mirror,
  view: View,
  family: 4 | 6 | null,
  pause: () => Promise<void>,
): Promise<[v4: Part, v6: Part]> {
  const { sequence } = mirror;
  const allowed = withoutGaps(rangesFor(mirror.allowed, view.patterns));
  const atThen = { holds: new Map(mirror.holds) };
  const all = [...mirror.byCanonicalValue.values()];
  const passes = passing(view);
  const isWithheld = withheldFrom(view);
  const parts: [Part, Part] = [createPart(1), createPart(4)];
  const withheld = { byCanonicalValue: new Map<string, Row[]>(), prefixes: { v4: new Map(), v6: new Map() } };

  for (const [at, siblings] of all.entries()) {
    if (at % sliceValues === sliceValues - 1) await pause();
    const rows = siblings.filter((row) => {
      return row.addedSeq <= sequence && isOfAddresses(row.scope) && passes(row);
    });
    const [row] = rows;
    if (!row || (family ?? familyOf(row)) !== familyOf(row)) continue;
    if (!isWithheld(row)) {
      // What is no network is left out: no bouncer can ban it.
      const network = parseNetwork(row.canonicalValue);
      if (network) add(parts, network, rows, atThen);
    } else if (row.canonicalValue.includes('/')) {
      withheld.byCanonicalValue.set(row.canonicalValue, rows);
      countPrefix(withheld.prefixes, row, 1);
    }
  }

  const lengths = withheld.prefixes.v4.size + withheld.prefixes.v6.size;
  const slice = Math.ceil(sliceLookups / (lengths + 1));
  let lookups = 0;
  for (const [value, rows] of withheld.byCanonicalValue) {
    if (++lookups % slice === 0) await pause();
    const range = parseNetwork(value) as Network;
    // What is left of a range inside of another one is left of that one, too.
    if (covering(withheld, range).length > rows.length) continue;
    for (const left of withoutAllowed(allowed, range)) {
      if (++lookups % slice === 0) await pause();
      add(parts, left, covering(withheld, left), atThen);
    }
  }
  return parts;
}

export function familyOf({ canonicalValue }: Row): 4 | 6 {
  return canonicalValue.includes(':') ? 6 : 4;
}

function createPart(words: 1 | 4): Part {
  const room = 64;
  const networks = createNetworks(words, room);
  return { networks, rows: [], own: new Uint8Array(room), untilMs: new Float64Array(room) };
}

/** `rows`: the decisions on a network, one at least. */
function add(
  [v4, v6]: readonly [Part, Part],
  { bytes, prefixBits }: Network,
  rows: readonly Row[],
  atThen: Pick<Mirror, 'holds'>,
): void {
  const part = bytes.length === 4 ? v4 : v6;
  let longest = rows[0] as Row;
  for (const row of rows) if (outlives(row, longest)) longest = row;
  const at = part.rows.push(longest) - 1;
  if (at === part.own.length) grow(part);
  setNetwork(part.networks, at, bytes, prefixBits);
  part.own[at] = Number(rows.some(isOwn));
  part.untilMs[at] = endOf(atThen, longest);
}

function grow(part: Part): void {
  const { words, addresses, prefixes } = part.networks;
  part.networks = { words, addresses: twice(addresses, Uint32Array), prefixes: twice(prefixes, Uint8Array) };
  part.own = twice(part.own, Uint8Array);
  part.untilMs = twice(part.untilMs, Float64Array);
}

function twice<Column extends Uint8Array | Uint32Array | Float64Array>(
  column: Column,
  create: new (length: number) => Column,
): Column {
  const larger = new create(2 * column.length);
  larger.set(column);
  return larger;
}
