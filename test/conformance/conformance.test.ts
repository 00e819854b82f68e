// The same requests to a real engine and to a Lapidary that mirrors it. They run in order, against one pair:
// a case may leave decisions behind, but none that a later case looks at.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Case, type EngineVersion, type Shows, versionOf } from './case.ts';
import { cases } from './cases.ts';
import { differences, layoutDifferences } from './compare.ts';
import { type DeviationId, deviations, isAgainst, markdownRows } from './deviations.ts';
import { type Pair, startPair } from './pair.ts';
import { endSome, seedWorld } from './world.ts';

const mostAttempts = 100;

describeWith('a LAPI and Lapidary', ['lab'], () => {
  let pair: Pair;
  let engine: EngineVersion;
  const shown = new Set<string>();
  beforeAll(async () => {
    pair = await startPair(seedWorld);
    engine = versionOf(pair.engine.version);
    console.log(`the engine is crowdsec ${engine.text}`);
    await pair.sync();
    await endSome(pair);
  });
  // The pair is undefined after a start that failed.
  afterAll(() => (pair as Pair | undefined)?.close());

  it.each(cases)('$name', async (one) => {
    await one.before?.(pair);
    const lines = await compare(one);
    const expected = expectedOf(one);
    for (const { id, line } of expected) if (lines.some((each) => isLike(each, line))) shown.add(id);
    const unexplained = lines.filter((line) => !expected.some((each) => isLike(line, each.line)));
    const missing = expected.filter((each) => !lines.some((line) => isLike(line, each.line)));
    expect({ unexplained, missing: missing.map(({ id, line }) => `${id}: ${line}`) }).toEqual({
      unexplained: [],
      missing: [],
    });
  });

  it('differ in every way that the table says, and each row is shown by a case', () => {
    const against = Object.entries(deviations).filter(([, deviation]) => isAgainst(deviation, engine));
    expect([...shown].sort()).toEqual(against.map(([id]) => id).sort());
  });

  async function compare(one: Case): Promise<string[]> {
    for (let attempt = 1; ; attempt++) {
      const { engine: lapi, lapidary } = await pair.ask(one);
      const layout = one.layout ? layoutDifferences(lapi, lapidary) : [];
      const lines = [...differences(lapi, lapidary), ...layout];
      if (!one.byChance || lines.length > 0 || attempt === mostAttempts) return lines;
    }
  }

  function expectedOf(one: Case): { id: DeviationId; line: string }[] {
    const shows: Shows = typeof one.shows === 'function' ? one.shows(engine) : (one.shows ?? {});
    const entries = Object.entries(shows) as [DeviationId, string[]][];
    return entries
      .filter(([id]) => isAgainst(deviations[id], engine))
      .flatMap(([id, lines]) => lines.map((line) => ({ id, line })));
  }
});

it('has enough cases, each with a name of its own', () => {
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
  expect(cases.length).toBeGreaterThanOrEqual(80);
});

it('docs/deviations.md has the table of deviations', () => {
  const text = readFileSync(new URL('../../docs/deviations.md', import.meta.url), 'utf8')
    .replaceAll(/ +\| +/g, ' | ')
    .replaceAll(/ +\|$/gm, ' |');
  expect(markdownRows().filter((row) => !text.includes(row))).toEqual([]);
});

function isLike(line: string, pattern: string): boolean {
  return new RegExp(`^${pattern.split('*').map(RegExp.escape).join('.*')}$`, 's').test(line);
}
