// docs/figures.md's table of both sides, made from one run of the benchmark and, where there is one, from another with a
// newer LAPI:
//
//   npm run bench
//   CROWDSEC_BIN=… BENCH_JSON=.cache/newer.json npm run bench -- --parts=abcd
//   npx node test/bench/figures.ts .cache/bench.json .cache/newer.json
import { readFileSync } from 'node:fs';
import type { TableRow } from './table.ts';

/** What the benchmark writes. */
interface Run {
  versions: { engine: string };
  machine: { fsyncMs: number };
  rows: TableRow[];
}

type Side = 'lapi' | 'lapidary';

/** A line of the table. A row that the run does not have leaves it out. */
interface Line {
  name: string;
  part: string;
  row: string;
  /** The row that counts is this one of those that belong to it. */
  of?: string;
  /** Rows that belong to it and stand beside it. */
  beside?: string[];
  /** Lapidary's figure, and how it stands to the empty Worker. */
  ratioOnly?: boolean;
}

const lines: Line[] = [
  {
    name: 'an empty Worker in turn with Lapidary: requests a second',
    part: 'a',
    row: 'an empty Worker beside it, 16 at once',
    beside: ['CPU of one'],
  },
  {
    name: 'empty polls a second, 16 connections (p99)',
    part: 'a',
    row: 'empty polls, 16 at once',
    beside: ['p99'],
  },
  { name: '… CPU of one', part: 'a', row: 'empty polls, 16 at once', of: 'CPU of one' },
  { name: '… rate, of the empty Worker’s', part: 'a', row: 'empty polls in turn with it', ratioOnly: true },
  {
    name: '… CPU, the empty Worker’s of it',
    part: 'a',
    row: 'empty polls in turn with it',
    of: 'CPU of one',
    ratioOnly: true,
  },
  {
    name: '… p99 at 500 a second',
    part: 'a',
    row: 'empty polls, 500 a second: p50',
    of: 'p99, from when each was due',
  },
  { name: 'polls a second after a change', part: 'a', row: 'polls after a change, 16 at once' },
  { name: 'polls that reach the object: 8 isolates, a change every 4 s', part: 'l', row: '8 isolates' },
  { name: 'empty polls a second, 15,000 clients in turn', part: 'm', row: 'empty polls, 15,000' },
  { name: '… 200,000 clients', part: 'm', row: 'empty polls, 200,000' },
  { name: 'start-up, last byte', part: 'b', row: 'start-up: first byte', of: 'last byte', beside: ['bytes'] },
  {
    name: '… with gzip, made for this one',
    part: 'b',
    row: 'start-up with gzip, just made',
    of: 'last byte',
    beside: ['bytes'],
  },
  {
    name: '… with gzip, made for another in the last 5 s',
    part: 'b',
    row: 'start-up with gzip, kept',
    of: 'last byte',
  },
  {
    name: 'live look-ups a second, 16 connections, 2,000 addresses again and again',
    part: 'c',
    row: 'live lookups, 16 at once',
  },
  { name: '… CPU of one', part: 'c', row: 'live lookups, 16 at once', of: 'CPU of one' },
  {
    name: 'look-ups of what nothing bans, of the empty Worker’s rate',
    part: 'c',
    row: 'look-ups of what nothing bans',
    ratioOnly: true,
  },
  {
    name: 'requests a minute at the engine, 100 bouncers polling every 10 s',
    part: 'd',
    row: 'engine requests, 100 bouncers',
  },
  {
    name: 'engine’s CPU for them, a full list every 5 min included',
    part: 'd',
    row: 'engine CPU, 100 bouncers',
    of: 'with a full list every 5 min',
  },
  {
    name: 'the object’s memory with 100,000 decisions, at rest; most while ten start-ups run',
    part: 'e',
    row: '100k decisions: at rest',
    beside: ['most in 10 start-ups at once'],
  },
];

export function figuresTable(run: Run, newer: Run | null): string {
  const lapis = newer ? [run, newer] : [run];
  const head = [
    '',
    ...lapis.map(({ versions }) => `LAPI ${/^[\d.]+/.exec(versions.engine)?.[0]}`),
    'Lapidary',
    '',
  ];
  const fsync = [
    'the disk’s fsync, median of 50',
    ...lapis.map(({ machine }) => text(machine.fsyncMs, 'ms')),
    '',
    '',
  ];
  const rest = lines.flatMap((line) => {
    const mine = find(run, line);
    if (!mine) return [];
    const ratio = mine.ratio === undefined ? '' : line.ratioOnly ? '' : `${digits(mine.ratio)} times`;
    const own = line.ratioOnly ? digits(mine.ratio ?? NaN) : cell(run, line, 'lapidary');
    return [[line.name, ...lapis.map((each) => cell(each, line, 'lapi')), own, ratio]];
  });
  const rows = [head, head.map(() => '-'), fsync, ...rest];
  return rows.map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

function cell(run: Run, line: Line, side: Side): string {
  const shown = [find(run, line), ...(line.beside ?? []).map((of) => find(run, { ...line, of }))];
  const figures = shown.filter((row) => row?.[side] !== undefined) as TableRow[];
  return figures.map((row) => text(row[side] as number, row.unit)).join(', ');
}

function find({ rows }: Run, { part, row, of }: Line): TableRow | undefined {
  const first = rows.findIndex((each) => each.part === part && each.what.startsWith(row));
  if (first < 0 || of === undefined) return rows[first];
  const after = rows.slice(first + 1);
  const end = after.findIndex(({ what }) => !what.startsWith(' '));
  return after.slice(0, end < 0 ? undefined : end).find(({ what }) => what.trim() === of);
}

function text(value: number, unit: string): string {
  if (unit === '/s' || unit === '/min') return digits(value);
  if (unit === 'us' && value >= 1000) return text(value / 1000, 'ms');
  return `${digits(value)} ${unit === 'us' ? 'µs' : unit}`;
}

/** Two that count, or all before the point. */
function digits(value: number): string {
  const after = value >= 10 ? 0 : value >= 1 ? 1 : 2;
  return value.toLocaleString('en-US', { minimumFractionDigits: after, maximumFractionDigits: after });
}

const [, script, ...files] = process.argv;
if (script === import.meta.filename) {
  const [run, newer] = files.map((file) => JSON.parse(readFileSync(file, 'utf8')) as Run);
  if (!run) throw new Error('which run? .cache/bench.json');
  console.log(figuresTable(run, newer ?? null));
}
