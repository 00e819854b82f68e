// Every list that is answered, read as its vendor's devices read it (lab/grammars.ts): no line is refused, and what is read
// is what is banned, to the address.
import fc from 'fast-check';
import { beforeEach, expect, test } from 'vitest';
import { listNames } from '../../src/lists/names.ts';
import { grammars } from '../lab/grammars.ts';
import { readTable } from '../lab/pf.ts';
import { isHost, nameOf, readHost, readNetwork, sorted, union, without, type Span } from '../lab/spans.ts';
import { startEdge } from '../support/edge.ts';
import { asBouncer, operator } from '../support/http.ts';
import type { ModelEngine } from '../support/model-engine.ts';
import { eachPrefix, spelled } from '../support/networks.ts';
import { patienceMs, runsOf } from '../support/runs.ts';

let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  ({ engine, key } = await startEdge());
});

/** What an engine may send as a value and a scenario, and no list may have. */
const hostile = [
  'example.org',
  'self',
  'em0',
  '!192.0.2.1',
  '192.0.2.9\n192.0.2.66',
  '192.0.2.9,32,wl',
  '',
  '-',
  '192.0.2.0/33',
];
const scenarios = [
  'crowdsecurity/ssh-bf',
  '',
  'a,b',
  '"quoted"',
  '=1+1',
  'a\n192.0.2.66\n',
  'é\\$x?',
  '# } on-error={}; /x',
];

async function ban(values: readonly string[]): Promise<void> {
  engine.rows.clear();
  for (const [at, value] of values.entries()) {
    const scope = value.includes('/') ? 'Range' : 'Ip';
    const scenario = scenarios[at % scenarios.length];
    engine.add({ value, scope, scenario, untilMs: Date.now() + (1 + (at % 5)) * 3_600_000 });
  }
  const { body } = await operator('POST', '/feed/sync?full=true&force=true');
  expect(body.ok).toBe(true);
}

const ofPf = ['plain', 'pfsense', 'opnsense'];

async function readList(name: string, search = '') {
  const response = await asBouncer(key, `/lists/${name}${search}`);
  const text = await response.text();
  expect([name, response.status]).toEqual([name, 200]);
  const { entries, refused } = grammars[name](text);
  expect([name, refused]).toEqual([name, []]);
  // pfctl loads what these have as it comes, too.
  if (ofPf.includes(name)) expect(readTable(text)).toEqual({ entries, refused });
  return { entries, omitted: Number(response.headers.get('x-lapidary-omitted') ?? 0) };
}

const names = (spans: readonly Span[]): string[] => spans.map(nameOf);
const distinct = (spans: readonly Span[]): Span[] => [
  ...new Map(sorted(spans).map((span) => [nameOf(span), span])).values(),
];

const ofIpv4 = ['checkpoint', 'sophos'];
const isRead = (name: string, span: Span): boolean =>
  (span.family === 4 || !ofIpv4.includes(name)) && (name !== 'sophos' || isHost(span));

/** Every list, narrowed in each way. `banned`: each network once. */
async function expectEach(banned: readonly Span[]): Promise<void> {
  for (const name of listNames) {
    const fitting = banned.filter((span) => isRead(name, span));
    const placeholder = ['cisco', 'pfsense'].includes(name) ? [readHost('192.0.2.1') as Span] : [];
    const orPlaceholder = (spans: readonly Span[]) => (spans.length > 0 ? spans : placeholder);
    const whole = await readList(name);
    expect([name, names(whole.entries)]).toEqual([name, names(orPlaceholder(fitting))]);
    // Sophos is served IPv4, as if it had asked for no more.
    const asked = banned.filter(({ family }) => family === 4 || name !== 'sophos');
    expect([name, whole.omitted]).toEqual([name, asked.length - fitting.length]);
    for (const family of ofIpv4.includes(name) ? [4] : [4, 6]) {
      const { entries } = await readList(
        name,
        `?family=${family}&placeholder=${family === 4 ? '203.0.113.77' : '2001:db8::77'}`,
      );
      const own = fitting.filter((span) => span.family === family);
      expect([name, names(entries)]).toEqual([
        name,
        names(own.length > 0 ? own : [readHost(family === 4 ? '203.0.113.77' : '2001:db8::77') as Span]),
      ]);
    }
    const merged = await readList(name, '?aggregate=1');
    expect([name, names(union(merged.entries))]).toEqual([name, names(union(orPlaceholder(fitting)))]);
    expect(merged.entries.length).toBeLessThanOrEqual(whole.entries.length);
    const most = 2;
    const cut = await readList(name, `?limit=${most}`);
    expect([name, cut.entries.length]).toEqual([name, Math.min(most, whole.entries.length)]);
    expect([name, names(without(cut.entries, orPlaceholder(fitting)))]).toEqual([name, []]);
  }
}

test('nothing: an empty list, or the placeholder', async () => {
  await ban(hostile);
  await expectEach([]);
});

test('what is no network is in no list, and takes nothing else with it', async () => {
  await ban([
    '192.0.2.1',
    ...hostile,
    '2001:db8::1',
    '::ffff:198.51.100.1',
    '203.0.113.7/24',
    '::ffff:198.51.100.2/128',
  ]);
  const banned = ['192.0.2.1', '198.51.100.1', '198.51.100.2', '203.0.113.0/24', '2001:db8::1'];
  await expectEach(banned.map((text) => readNetwork(text) as Span));
});

test('each length of a prefix', async () => {
  const values = [...eachPrefix('192.0.2.77'), ...eachPrefix('2001:db8:1:2:3:4:5:6')];
  await ban(values);
  const spans = values.map((value) => {
    const [address = '', length] = value.split('/');
    const { family, first } = readHost(address) as Span;
    const size = 1n << BigInt((family === 4 ? 32 : 128) - Number(length));
    return { family, first: first - (first % size), last: first - (first % size) + size - 1n };
  });
  await expectEach(distinct(spans));
});

/** A small space, so that networks meet. */
const network = fc.tuple(fc.boolean(), fc.nat(31), fc.nat(5)).map(([isV6, last, hostBits]) => {
  const start = last - (last % 2 ** hostBits);
  const [address, bits] = isV6 ? [`2001:db8::${start.toString(16)}`, 128] : [`192.0.2.${start}`, 32];
  return hostBits === 0 ? address : `${address}/${bits - hostBits}`;
});
const values = fc.array(fc.oneof({ weight: 9, arbitrary: network }, fc.constantFrom(...hostile)), {
  maxLength: 25,
});
const seed = 20_261_130;

test(
  'any bans on networks of a small space',
  async () => {
    await fc.assert(
      fc.asyncProperty(values, async (values) => {
        await ban(values);
        await expectEach(distinct(values.flatMap((value) => readNetwork(value) ?? [])));
      }),
      { numRuns: runsOf(6), seed },
    );
  },
  patienceMs,
);

test(
  'any bans in any spelling: no line is refused',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(spelled, { maxLength: 40 }), async (values) => {
        await ban(values);
        for (const name of listNames) {
          await readList(name);
          await readList(name, '?aggregate=1');
        }
      }),
      { numRuns: runsOf(6), seed },
    );
  },
  patienceMs,
);

test(
  'ranges with allowed addresses in them: what is allowed is in no list, the rest in each that takes networks',
  async () => {
    await fc.assert(
      fc.asyncProperty(values, fc.array(network, { minLength: 1, maxLength: 4 }), async (values, allowed) => {
        const ids: number[] = [];
        for (const value of new Set(allowed)) {
          const { status, body } = await operator('POST', '/allowlist', {
            value,
            comment: 'office',
            force: true,
          });
          expect(status).toBe(201);
          ids.push(body.entry.id);
        }
        await ban(values);
        const open = allowed.map((value) => readNetwork(value) as Span);
        const banned = without(
          values.flatMap((value) => readNetwork(value) ?? []),
          open,
        );
        for (const name of listNames) {
          const fitting = banned.filter(({ family }) => family === 4 || !ofIpv4.includes(name));
          for (const search of ['', '?aggregate=1']) {
            const { entries } = await readList(name, search);
            const isPlaceholder = banned.length === 0 && ['cisco', 'pfsense'].includes(name);
            expect([name, names(without(entries, isPlaceholder ? entries : fitting))]).toEqual([name, []]);
            if (name !== 'sophos') expect([name, names(without(fitting, entries))]).toEqual([name, []]);
          }
        }
        for (const id of ids) await operator('DELETE', `/allowlist/${id}`);
      }),
      { numRuns: runsOf(6), seed },
    );
  },
  patienceMs,
);
