// What is kept of views under a cap is bounded, however many there are.
import { expect, test } from 'vitest';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import { createMirror, insert } from '../../src/mirror/memory.ts';
import { createBaselines, resolveView } from '../../src/stream/baselines.ts';
import { everything, limitsOf } from '../support/bouncer.ts';

test('thirty views of 20,000 decisions keep the rows of ten, and each is worked out as often as it is asked for', () => {
  const mirror = createMirror([], { sequence: 1, purgedSequence: 0 }, { values: () => [], of: () => [] });
  for (let at = 1; at <= 20_001; at++) {
    const value = `2001:db8::${at.toString(16)}`;
    const said = { id: at, origin: 'CAPI', scenario: 'x', scope: 'Ip', type: 'ban', value };
    const untilMs = Date.now() + 3_600_000 + at;
    insert(mirror, createRow({ rowId: at, engine: 'default', engineId: at }, { ...said, untilMs }, 1));
  }
  const baselines = createBaselines(new Map(), mirror.sequence, () => true);
  const limits = limitsOf({ maxDecisions: 20_000 });
  const resolve = (at: number) =>
    resolveView(baselines, mirror, { ...everything, limits, patterns: [`web-${at}`] });
  const all = Array.from({ length: 30 }, (_, at) => resolve(at));
  const rows = [...baselines.kept.values()].reduce((sum, each) => sum + each.rows.size, 0);
  expect(rows).toBe(200_000);
  expect(resolve(0).baseline).toBe(all[0]?.baseline);
  expect(baselines.kept.size).toBe(10);
  const { capped } = resolve(0);
  expect([capped?.size, capped?.has('Ip\nban\n2001:db8::1')]).toEqual([20_000, false]);
  expect(baselines.kept.size).toBe(10);
});
