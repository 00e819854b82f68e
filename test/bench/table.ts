// The rows of the result: how both sides compare, what was to be reached, and their two forms, a table to read
// and JSON to keep.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface Row {
  what: string;
  unit: string;
  lapi?: number;
  lapidary?: number;
  /** How many times better Lapidary does, be more or less the better. */
  ratio?: number;
  target?: { atLeastRatio: number } | { below: number };
  met?: boolean;
}

/** A row in its place: the part of the benchmark, a to m. */
export interface TableRow extends Row {
  part: string;
}

/**
 * `better`: whether more of it is good (a rate) or less (a time). What is to be reached is a ratio, or that Lapidary's
 * figure is `below` one.
 */
export function compared(
  what: string,
  unit: string,
  figures: {
    lapi: number;
    lapidary: number;
    better: 'more' | 'less';
    atLeastRatio?: number;
    below?: number;
  },
): Row {
  const { lapi, lapidary, better, atLeastRatio, below } = figures;
  const ratio = better === 'more' ? lapidary / lapi : lapi / lapidary;
  const row = { what, unit, lapi, lapidary, ratio };
  if (below !== undefined) return { ...row, target: { below }, met: lapidary < below };
  return atLeastRatio === undefined ? row : { ...row, target: { atLeastRatio }, met: ratio >= atLeastRatio };
}

/** A figure of Lapidary's alone. */
export function alone(what: string, unit: string, lapidary: number, below?: number): Row {
  return below === undefined
    ? { what, unit, lapidary }
    : { what, unit, lapidary, target: { below }, met: lapidary < below };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

export function printTable(rows: readonly TableRow[], judged: boolean): void {
  const head = ['', '', 'LAPI', 'Lapidary', 'unit', 'better', 'to reach', ''];
  const cells = rows.map((row, at) => [
    rows[at - 1]?.part === row.part ? '' : row.part,
    row.what,
    row.lapi === undefined ? '' : figure(row.lapi),
    row.lapidary === undefined ? '' : figure(row.lapidary),
    row.unit,
    row.ratio === undefined ? '' : `${figure(row.ratio)}x`,
    targetText(row.target),
    row.met === undefined || !judged ? '' : row.met ? 'reached' : 'MISSED',
  ]);
  const table = [head, ...cells];
  const widths = head.map((_, column) => Math.max(...table.map((line) => line[column].length)));
  for (const line of table) {
    const padded = line.map((text, column) => {
      return [2, 3, 5].includes(column) ? text.padStart(widths[column]) : text.padEnd(widths[column]);
    });
    console.log(padded.join('  ').trimEnd());
  }
}

export async function writeJson(path: string, result: object): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(result, null, 2)}\n`);
}

function targetText(target: Row['target']): string {
  if (!target) return '';
  return 'below' in target ? `< ${figure(target.below)}` : `${target.atLeastRatio}x`;
}

/** Three digits that count. */
function figure(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
