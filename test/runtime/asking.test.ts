// Questions that many wait for: asked together, bounded, and never left to a request that is gone.
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createAsking } from '../../src/runtime/asking.ts';
import { createConfirmation } from '../../src/store/confirmation.ts';
import { waitFor } from '../support/patience.ts';

const gone = new Promise<never>(() => undefined);
afterEach(() => vi.restoreAllMocks());

/** A store that answers each question when it is told to; its answer to a subject is the question's number. */
function createStore() {
  const asked: { subjects: readonly string[]; answer: () => void; fail: () => void }[] = [];
  const failures: unknown[] = [];
  const ask = createAsking<null, number>(
    (_, subjects) =>
      new Promise((resolve, reject) => {
        const number = asked.length;
        asked.push({
          subjects,
          answer: () => resolve(new Map(subjects.map((subject) => [subject, number]))),
          fail: () => reject(new Error('down')),
        });
      }),
    (error) => failures.push(error),
  );
  return { asked, failures, ask };
}

describe('questions', () => {
  test('one is under way, and who comes meanwhile asks together in the next', async () => {
    const { asked, ask } = createStore();
    const first = ask(null, 'a');
    const others = ['a', 'b', 'c'].map((subject) => ask(null, subject));
    expect(asked.map(({ subjects }) => subjects)).toEqual([['a']]);
    asked[0]!.answer();
    expect(await first).toBe(0);
    await waitFor(() => expect(asked).toHaveLength(2));
    expect(asked[1]!.subjects).toEqual(['a', 'b', 'c']);
    asked[1]!.answer();
    // None of them was answered by a question that was put before it came.
    expect(await Promise.all(others)).toEqual([1, 1, 1]);
  });

  test('who learns enough by another’s question puts none', async () => {
    const { asked, ask } = createStore();
    const first = ask(null, 'a');
    const second = ask(null, 'a', () => 7);
    asked[0]!.answer();
    expect(await Promise.all([first, second])).toEqual([0, 7]);
    const third = ask(null, 'b');
    expect(asked[1]!.subjects).toEqual(['b']);
    asked[1]!.answer();
    expect(await third).toBe(1);
  });

  test('one without an answer fails for all that wait for it, and is told of once', async () => {
    const { asked, failures, ask } = createStore();
    const first = ask(null, 'a');
    const others = [ask(null, 'b'), ask(null, 'c')];
    asked[0]!.fail();
    await expect(first).rejects.toThrow('down');
    await waitFor(() => expect(asked).toHaveLength(2));
    // Nobody answers this one.
    for (const other of others) await expect(other).rejects.toThrow('no answer in 1000 ms');
    expect(failures).toHaveLength(2);
  });

  test('who waits for a request that is gone asks itself', async () => {
    const { asked, ask } = createStore();
    // The timers of a request that ended never fire, nor is it told of any answer.
    vi.spyOn(scheduler, 'wait').mockReturnValueOnce(gone);
    void ask(null, 'a');
    const others = [ask(null, 'a'), ask(null, 'b')];
    await waitFor(() => expect(asked).toHaveLength(2));
    asked[1]!.answer();
    expect(await Promise.all(others)).toEqual([1, 1]);
  });

  test('a thousand subjects at most are in one', async () => {
    const { asked, ask } = createStore();
    const first = ask(null, 'first');
    const others = Array.from({ length: 2_500 }, (_, index) => ask(null, `${index}`));
    asked[0]!.answer();
    await first;
    await waitFor(() => expect(asked).toHaveLength(4));
    expect(asked.map(({ subjects }) => subjects.length)).toEqual([1, 1_000, 1_000, 500]);
    for (const { answer } of asked) answer();
    await Promise.all(others);
  });
});

describe('what an isolate remembers', () => {
  const start = 1_000_000;
  const minute = 60_000;

  test('is used for 5 s after it was confirmed, and for 15 minutes while it can’t be', () => {
    const confirmation = createConfirmation();
    expect([confirmation.isTrusted(start), confirmation.isGraced(start)]).toEqual([false, false]);
    confirmation.ask(start).confirm();
    expect(confirmation.isTrusted(start + 4_999)).toBe(true);
    expect(confirmation.isTrusted(start + 5_000)).toBe(false);
    for (let nowMs = start + 5_000; nowMs < start + 15 * minute; nowMs += 5_000) {
      confirmation.fail(nowMs);
      expect(confirmation.isTrusted(nowMs + 4_000)).toBe(nowMs + 4_000 < start + 15 * minute);
    }
    expect(confirmation.isGraced(start + 15 * minute - 1)).toBe(true);
    expect(confirmation.isGraced(start + 15 * minute)).toBe(false);
  });

  test('D1 that failed is asked again once a second', () => {
    const confirmation = createConfirmation();
    confirmation.ask(start).confirm();
    expect(confirmation.takeRetry(start + 4_000)).toBe(false);
    confirmation.fail(start + 6_000);
    const asks = [6_500, 7_000, 7_001, 7_999, 8_000].map((ms) => confirmation.takeRetry(start + ms));
    expect(asks).toEqual([false, true, false, false, true]);
    confirmation.ask(start + 8_000).confirm();
    expect([confirmation.isFailing(), confirmation.takeRetry(start + 10_000)]).toEqual([false, false]);
  });

  test('a change of its own has it ask anew, also when the answer was on its way, and ends no grace', () => {
    const confirmation = createConfirmation();
    const asked = confirmation.ask(start);
    confirmation.forget();
    expect([asked.isOvertaken(), confirmation.ask(start).isOvertaken()]).toEqual([true, false]);
    asked.confirm();
    expect(confirmation.isTrusted(start)).toBe(false);
    expect(confirmation.isGraced(start + 14 * minute)).toBe(true);
    confirmation.ask(start + 1).confirm();
    expect(confirmation.isTrusted(start + 1)).toBe(true);
  });

  test('an answer that was overtaken is late', () => {
    const confirmation = createConfirmation();
    const [slow, fast] = [confirmation.ask(start), confirmation.ask(start + 1)];
    fast.confirm();
    expect([slow.isLate(), fast.isLate()]).toEqual([true, false]);
  });

  test('nothing counts that lies ahead of a clock that was set back', () => {
    const confirmation = createConfirmation();
    confirmation.ask(start).confirm();
    const nowMs = start - 10 * minute;
    expect([confirmation.isTrusted(nowMs), confirmation.isGraced(nowMs)]).toEqual([false, false]);
  });
});
