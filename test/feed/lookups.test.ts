// Look-ups that an isolate remembers, and that what it remembers is bounded.
import { describe, expect, test } from 'vitest';
import { createLookups } from '../../src/feed/lookups.ts';
import type { Decision } from '../../src/formats/decision.ts';

describe('an isolate that was asked to look something up', () => {
  const nowMs = 1_000_000;
  const list = (sequence: number, decisions: readonly Decision[] = []) => {
    return { kind: 'short', sequence, decisions } as const;
  };
  const decisions = Array.from({ length: 200 }, (_, id): Decision => {
    const texts = { origin: 'cscli', scenario: 'test', scope: 'Ip', type: 'ban', value: `2001:db8::${id}` };
    return { id, ...texts, untilMs: 0 };
  });

  test('keeps what it found by its size', () => {
    const lookups = createLookups();
    const names = Array.from({ length: 4000 }, (_, at) => `look-up ${at}`);
    for (const name of names) lookups.learn(name, list(1, decisions), nowMs);
    const kept = names.filter((name) => lookups.recall(name, nowMs));
    expect(kept.length).toBeGreaterThan(10);
    expect(kept.length * decisions.length).toBeLessThan(100_000);
    const huge = `value=${'x'.repeat(12_000)}`;
    lookups.learn(huge, list(1), nowMs);
    expect(lookups.recall(huge, nowMs)).toBeUndefined();
  });

  test('drops it when the feed has moved, and when it was not asked for a second', () => {
    const lookups = createLookups();
    lookups.learn('one', list(1), nowMs);
    expect(lookups.recall('one', nowMs + 1_000)?.decisions).toEqual([]);
    expect(lookups.recall('one', nowMs + 1_001)).toBeUndefined();
    lookups.learnLatest(2, nowMs);
    lookups.learnLatest(1, nowMs);
    expect(lookups.recall('one', nowMs)).toBeUndefined();
  });

  test('learns nothing from a question of before a change that was made through it', () => {
    const lookups = createLookups();
    lookups.forget(nowMs);
    lookups.learn('one', list(1), nowMs - 1);
    expect(lookups.recall('one', nowMs)).toBeUndefined();
  });
});
