// What an isolate answers without the feed's object, and that what it remembers for it is bounded.
import { describe, expect, test } from 'vitest';
import type { Decision } from '../../src/formats/decision.ts';
import { isUpToDate, learnList, learnStream, recall, takeSightings } from '../../src/feed/fast-path.ts';

describe('the fast path', () => {
  /** Later than in any other test: the newest head that was seen counts. */
  let nowMs = Date.now();
  let sequence = 0;
  const poll = (address: string) => {
    return { bouncerId: 1, versionId: 1, address, seenMs: nowMs, userAgent: 'test/1' };
  };
  const list = (decisions: readonly Decision[]) => ({ kind: 'short', sequence, decisions }) as const;
  const addresses = Array.from({ length: 150_000 }, (_, at) => `2001:db8::${at.toString(16)}`);
  const decisions = Array.from({ length: 200 }, (_, id): Decision => {
    const texts = { origin: 'cscli', scenario: 'test', scope: 'Ip', type: 'ban', value: `2001:db8::${id}` };
    return { id, ...texts, untilMs: 0 };
  });

  test('answers 150,000 clients by itself once each is known to be up to date', () => {
    nowMs += 10_000;
    sequence++;
    for (const address of addresses) learnStream(poll(address), 'a view', { sequence, upToDate: true });
    expect(addresses.filter((address) => !isUpToDate(poll(address), 'a view'))).toEqual([]);
    expect(isUpToDate(poll('2001:db8::1'), 'another view')).toBe(false);
  });

  test('reports more polls than it answers in the second between two reports', () => {
    nowMs += 10_000;
    sequence++;
    takeSightings();
    const some = addresses.slice(0, 10_000);
    for (const address of some) learnStream(poll(address), 'a view', { sequence, upToDate: true });
    for (const address of some) isUpToDate(poll(address), 'a view');
    expect(takeSightings()).toHaveLength(10_000);
    expect(takeSightings()).toEqual([]);
  });

  test('keeps look-ups by their size', () => {
    nowMs += 10_000;
    sequence++;
    const names = Array.from({ length: 4000 }, (_, at) => `look-up ${at}`);
    for (const name of names) learnList(poll('192.0.2.1'), name, list(decisions));
    const kept = names.filter((name) => recall(name, poll('192.0.2.1')));
    expect(kept.length).toBeGreaterThan(10);
    expect(kept.length * decisions.length).toBeLessThan(100_000);
    const huge = `value=${'x'.repeat(12_000)}`;
    learnList(poll('192.0.2.1'), huge, list([]));
    expect(recall(huge, poll('192.0.2.1'))).toBeUndefined();
  });

  test('drops look-ups when the feed has moved', () => {
    nowMs += 10_000;
    sequence++;
    learnList(poll('192.0.2.1'), 'one', list([]));
    expect(recall('one', poll('192.0.2.1'))?.decisions).toEqual([]);
    learnStream(poll('192.0.2.1'), 'a view', { sequence: sequence + 1, upToDate: true });
    learnStream(poll('192.0.2.1'), 'a view', { sequence, upToDate: true });
    expect(recall('one', poll('192.0.2.1'))).toBeUndefined();
  });
});
