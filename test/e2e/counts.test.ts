// docs/deploy.md's tables: what each kind of request asks of D1 and of the feed's object, and the dollars from that.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { communityRowsADay, countTable, dollarTable, freeTable } from '../bench/cost.ts';
import { type Kinds, measureKinds } from '../bench/kinds.ts';
import { describeWith } from '../lab/ability.ts';
import { type Engine, startEngine } from '../lab/engine.ts';

const document = readFileSync(new URL('../../docs/deploy.md', import.meta.url), 'utf8');

/** The rows of the table whose first column has this name. */
function tableOf(column: string): string[][] {
  const [, rows] =
    new RegExp(`^\\| ${column} .*\\n\\|[ :|-]+\\|\\n((?:\\|.*\\n)*)`, 'm').exec(document) ?? [];
  const lines = (rows ?? '').split('\n').filter(Boolean);
  return lines.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describeWith('what is counted', ['lab'], () => {
  let engine: Engine;
  let kinds: Kinds;
  beforeAll(async () => {
    engine = await startEngine();
    kinds = await measureKinds(engine);
  });
  afterAll(() => engine.close());

  test('per kind of request is what the document says', () => {
    expect(tableOf('what')).toEqual(countTable(kinds));
  });

  test('of a rotation of 1,000 is at most ten rows of D1 for each', () => {
    expect(kinds['POST /rotations of 1,000'].rowsRead).toBeLessThanOrEqual(10_000);
  });

  test('costs what it says, on the paid plan and in rows', () => {
    expect(tableOf('bouncers')).toEqual(dollarTable(kinds));
    expect(document).toContain(`writes ${communityRowsADay(kinds).toLocaleString('en-US')} rows a day`);
  });

  test('goes as far as it says on the free one', () => {
    expect(tableOf('poll every')).toEqual(freeTable(kinds));
  });
});
