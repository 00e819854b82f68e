// What a list has, against each address of a small space: every one that is banned and not allowed, and no other, whatever
// changes while it is chosen.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Row } from '../../src/formats/decision.ts';
import { covers, formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import { choose, entriesOf, listView } from '../../src/lists/entries.ts';
import { forms, textOf, type Format } from '../../src/lists/formats.ts';
import { readListName } from '../../src/lists/names.ts';
import { readListOptions, type ListOptions } from '../../src/lists/options.ts';
import { createAllowed, fromWhom, noneAllowed, type Allowed } from '../../src/mirror/allowed.ts';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import { applyChange, createMirror, type Mirror } from '../../src/mirror/memory.ts';
import { asWithheld } from '../../src/mirror/mirror.ts';

const read = (text: string): Network => parseNetwork(text)!;
const inPlace = async () => {};

/** Bits of host in the space of a property: 64 addresses of each family. */
const spaceBits = 6;
const network = fc.tuple(fc.boolean(), fc.nat(63), fc.nat(spaceBits)).map(([isV6, last, hostBits]) => {
  const address = isV6
    ? `2001:db8::${last.toString(16)}/${128 - hostBits}`
    : `192.0.2.${last}/${32 - hostBits}`;
  return formatNetwork(read(address));
});
const addresses = Array.from({ length: 64 }, (_, last) => [
  read(`192.0.2.${last}`),
  read(`2001:db8::${last.toString(16)}`),
]).flat();

const allowedOf = (values: readonly string[]): Allowed =>
  createAllowed(values.map((value, id) => ({ id, value, expiresMs: null })));

interface Ban {
  value: string;
  origin: string;
  untilMs: number;
}

const ban = fc.record({
  value: network,
  origin: fc.constantFrom('crowdsec', 'CAPI'),
  untilMs: fc.integer({ min: 1, max: 5 }),
});

function rowOf(id: number, { value, origin, untilMs }: Ban): Row {
  const said = {
    id,
    origin,
    scenario: 'ssh-bf',
    scope: value.includes('/') ? 'Range' : 'Ip',
    type: 'ban',
    value,
  };
  return createRow({ rowId: id, engine: 'default', engineId: id }, { ...said, untilMs }, id);
}

function mirrorOf(bans: readonly Ban[], allowed: Allowed): Mirror {
  const rows = bans
    .map((each, at) => rowOf(at + 1, each))
    .map((row) => asWithheld(row, fromWhom(allowed, row)));
  const keptBack = { values: () => [], of: () => [] };
  const mirror = createMirror(rows, { sequence: rows.length, purgedSequence: 0 }, keptBack);
  mirror.allowed = allowed;
  return mirror;
}

function optionsOf(name: string, search: string): ListOptions {
  const options = readListOptions(readListName(name)!, search, null);
  if (!options.ok) throw new Error('these options can not be read');
  return options.value;
}

async function linesOf(
  mirror: Mirror,
  {
    name = 'plain',
    search = '',
    pause = inPlace,
  }: { name?: string; search?: string; pause?: () => Promise<void> } = {},
) {
  const options = optionsOf(name, search);
  const chosen = await choose(mirror, listView(null), options, pause);
  const text = [...textOf(forms[options.format as Format], entriesOf(chosen, 0), 'crowdsec', 50)].join('');
  return { lines: text.split('\n').slice(0, -1), omitted: chosen.omitted, chosen };
}

const covered = (lines: readonly string[]) => {
  const networks = lines.map(read);
  return addresses.filter((address) => networks.some((each) => covers(each, address))).map(formatNetwork);
};

/** Every address that some ban covers and no entry. */
function due(bans: readonly Ban[], entries: readonly string[]): string[] {
  const [banned, allowed] = [bans.map(({ value }) => read(value)), entries.map(read)];
  return addresses
    .filter((address) => banned.some((each) => covers(each, address)))
    .filter((address) => !allowed.some((each) => covers(each, address)))
    .map(formatNetwork);
}

/** Anything that changes a mirror: an unban, a ban, other entries. */
function change(mirror: Mirror, at: number): void {
  const sequence = mirror.sequence + 1;
  const [row] = mirror.byId.values();
  if (row && at % 3 === 0) {
    return applyChange(mirror, {
      again: [],
      added: [],
      removed: [{ row, seq: sequence, atMs: 1 }],
      sequence,
    });
  }
  if (at % 3 === 1) mirror.allowed = noneAllowed;
  const added = { value: `192.0.2.${at % 64}`, origin: 'crowdsec', untilMs: 99 };
  applyChange(mirror, { again: [], removed: [], added: [{ row: rowOf(sequence, added) }], sequence });
}

const bans = fc.array(ban, { maxLength: 20 });
const entries = fc.array(network, { maxLength: 8 });
const search = fc.constantFrom('', 'aggregate=1');

test('every banned address that is not allowed, and no other', async () => {
  await fc.assert(
    fc.asyncProperty(bans, entries, search, async (bans, entries, search) => {
      const { lines, omitted } = await linesOf(mirrorOf(bans, allowedOf(entries)), { search });
      expect(covered(lines)).toEqual(due(bans, entries));
      expect([new Set(lines).size, omitted]).toEqual([lines.length, 0]);
    }),
    { numRuns: 400 },
  );
});

test('as it was when it began, whatever changes meanwhile', async () => {
  await fc.assert(
    fc.asyncProperty(bans, entries, search, async (bans, entries, search) => {
      const still = await linesOf(mirrorOf(bans, allowedOf(entries)), { search });
      const mirror = mirrorOf(bans, allowedOf(entries));
      let at = 0;
      const pause = async () => change(mirror, at++);
      const moving = await linesOf(mirror, { search, pause });
      expect(at).toBeGreaterThan(0);
      expect(moving.lines).toEqual(still.lines);
    }),
  );
});

test('in order, and without merging each range is left as few networks', async () => {
  await fc.assert(
    fc.asyncProperty(bans, entries, async (bans, entries) => {
      const { lines } = await linesOf(mirrorOf(bans, allowedOf(entries)));
      const wide = (text: string) => read(text).prefixBits;
      const order = (text: string) =>
        read(text)
          .bytes.map((byte) => byte.toString(16).padStart(2, '0'))
          .join('');
      const sorted = lines.toSorted((a, b) => {
        const lengths = read(a).bytes.length - read(b).bytes.length;
        return lengths || order(a).localeCompare(order(b)) || wide(a) - wide(b);
      });
      expect(lines).toEqual(sorted);
      // A network that is not banned as such is left of a range that has the other half, or a part of it, as well.
      const allowed = entries.map(read);
      for (const line of lines.filter((each) => bans.every(({ value }) => value !== each))) {
        const { bytes, prefixBits } = read(line);
        const wider = read(`${formatNetwork({ bytes, prefixBits: 8 * bytes.length })}/${prefixBits - 1}`);
        expect(allowed.some((entry) => covers(wider, entry))).toBe(true);
      }
    }),
  );
});

test('a limit takes lines away, and lets nothing in', async () => {
  await fc.assert(
    fc.asyncProperty(
      bans,
      entries,
      search,
      fc.integer({ min: 1, max: 9 }),
      async (bans, entries, search, limit) => {
        const mirror = mirrorOf(bans, allowedOf(entries));
        const whole = await linesOf(mirror, { search });
        const cut = await linesOf(mirror, { search: `${search}&limit=${limit}` });
        expect(cut.lines).toEqual(whole.lines.filter((line) => cut.lines.includes(line)));
        expect([cut.lines.length, cut.omitted]).toEqual([
          Math.min(limit, whole.lines.length),
          Math.max(0, whole.lines.length - limit),
        ]);
      },
    ),
  );
});

test('a format of addresses alone has those that are left of a range, unmerged, and counts the rest', async () => {
  await fc.assert(
    fc.asyncProperty(bans, entries, search, async (bans, entries, search) => {
      const mirror = mirrorOf(bans, allowedOf(entries));
      const { lines } = await linesOf(mirror, { search: 'family=4' });
      const sophos = await linesOf(mirror, { name: 'sophos', search });
      expect(sophos.lines).toEqual(lines.filter((line) => !line.includes('/')));
      expect(sophos.omitted).toBe(lines.length - sophos.lines.length);
    }),
  );
});

test('no two lines of Check Point have one name', async () => {
  await fc.assert(
    fc.asyncProperty(bans, entries, search, async (bans, entries, search) => {
      const { lines } = await linesOf(mirrorOf(bans, allowedOf(entries)), { name: 'checkpoint', search });
      const names = lines.map((line) => line.split(',')[0]);
      expect(new Set(names).size).toBe(names.length);
    }),
  );
});

test('what is left lasts as long as the ban on it that lasts longest, and is our own if one is', async () => {
  const bans = [
    { value: '192.0.2.0/26', origin: 'CAPI', untilMs: 1 },
    { value: '192.0.2.0/29', origin: 'crowdsec', untilMs: 2 },
    { value: '192.0.2.6/31', origin: 'CAPI', untilMs: 5 },
    { value: '198.51.100.1', origin: 'CAPI', untilMs: 9 },
  ];
  const mirror = mirrorOf(bans, allowedOf(['192.0.2.1', '2001:db8::/32']));
  const { lines, chosen } = await linesOf(mirror);
  expect(lines.map((line, at) => [line, chosen.untilMs[at]])).toEqual([
    ['192.0.2.0', 2],
    ['192.0.2.2/31', 2],
    ['192.0.2.4/30', 2],
    ['192.0.2.6/31', 5],
    ['192.0.2.8/29', 1],
    ['192.0.2.16/28', 1],
    ['192.0.2.32/27', 1],
    ['198.51.100.1', 9],
  ]);
  expect((await linesOf(mirror, { search: 'limit=3' })).lines).toEqual([
    '192.0.2.0',
    '192.0.2.2/31',
    '192.0.2.4/30',
  ]);
});

test('many entries in many ranges that hold one another: as many looks as there are lines', async () => {
  const bans = Array.from({ length: 20 }, (_, at) => ({
    value: `10.0.0.0/${8 + at}`,
    origin: 'CAPI',
    untilMs: 1,
  }));
  const values = Array.from({ length: 1_000 }, (_, at) => `10.0.${at >> 6}.${(4 * at) % 256}`);
  let pauses = 0;
  const pause = async () => void pauses++;
  const { lines } = await linesOf(mirrorOf(bans, allowedOf(values)), { pause });
  expect(new Set(lines).size).toBe(lines.length);
  expect(lines.length).toBeLessThan(32 * values.length);
  // So many looks a turn, each a ban of its length.
  expect(pauses).toBeGreaterThan((lines.length * bans.length) / 2_100);
  expect(pauses).toBeLessThan((lines.length * bans.length) / 1_900 + 20);
});
