// How many decisions of each kind are active: one look at all of them, in slices, so that polls are answered meanwhile.

import { engineNamer, type Names } from './engine-names.ts';
import type { Mirror } from './memory.ts';

/** Decisions of one engine (by its last name; empty: decided here) that have the same origin, scenario and type. */
export interface Kind {
  readonly engine: string;
  readonly origin: string;
  readonly scenario: string;
  readonly type: string;
  readonly count: number;
}

const sliceRows = 10_000;
/** Scenarios are free text. Those beyond count without their text. */
const mostKinds = 10_000;

/** The decisions that are active when it begins. `pause` lets others run. */
export async function takeCensus(
  { byId }: Pick<Mirror, 'byId'>,
  names: Names,
  pause: () => Promise<unknown>,
): Promise<Kind[]> {
  // As they are now: a row that is renewed meanwhile would be seen twice.
  const rows = [...byId.values()];
  const nameOf = engineNamer(names);
  const kinds = new Map<string, Kind & { count: number }>();
  for (const [index, row] of rows.entries()) {
    if (index > 0 && index % sliceRows === 0) await pause();
    const { engine, origin, type } = row;
    let scenario = row.scenario;
    let key = `${engine}\n${origin}\n${type}\n${scenario}`;
    if (kinds.size >= mostKinds && !kinds.has(key)) {
      scenario = '';
      key = `${engine}\n${origin}\n${type}\n`;
    }
    const kind = kinds.get(key);
    if (kind) kind.count++;
    else kinds.set(key, { engine: engine === '' ? '' : nameOf(engine), origin, scenario, type, count: 1 });
  }
  return [...kinds.values()];
}
