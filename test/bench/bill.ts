// Part k: what a request costs on Cloudflare: counts per kind, and dollars from them.
import type { Counts } from '../lab/counted.ts';
import { startEngine } from '../lab/engine.ts';
import { community, communityRowsADay, dollarsAMonth, freeBouncers } from './cost.ts';
import { kindNames, measureKinds } from './kinds.ts';
import { alone, type Row } from './table.ts';

const units: Readonly<Record<keyof Counts, string>> = {
  trips: 'trips to D1',
  rowsRead: 'D1 rows read',
  rowsWritten: 'D1 rows written',
  calls: 'calls of the object',
  objectRows: 'object rows written',
};

export async function measureBill(): Promise<Row[]> {
  const engine = await startEngine();
  try {
    const kinds = await measureKinds(engine);
    const counts = kindNames.flatMap((name) => {
      const counted = Object.entries(units).filter(([what]) => kinds[name][what as keyof Counts] > 0);
      if (counted.length === 0) return [alone(name, 'of all', 0)];
      return counted.map(([what, unit]) => alone(name, unit, kinds[name][what as keyof Counts]));
    });
    const list = `${community.decisions / 1_000},000 decisions of a community, renewed every 2 h`;
    const dollars = [10, 60].flatMap((pollSeconds) =>
      [10, 100, 1_000, 10_000].map((bouncers) => {
        const what = `${bouncers} bouncers that poll every ${pollSeconds} s, and that list`;
        return alone(what, '$ a month', dollarsAMonth({ bouncers, pollSeconds }, kinds).total);
      }),
    );
    const free = [10, 60].map((pollSeconds) =>
      alone(
        `free plan, a poll every ${pollSeconds} s, no list`,
        'bouncers',
        freeBouncers(pollSeconds, kinds),
      ),
    );
    return [...counts, alone(list, 'object rows a day', communityRowsADay(kinds)), ...dollars, ...free];
  } finally {
    await engine.close();
  }
}
