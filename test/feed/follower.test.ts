// What an isolate answers without the feed's object, and that what it remembers for it is bounded.
import { describe, expect, test } from 'vitest';
import { createFollower, type Follower } from '../../src/feed/follower.ts';
import type { Followed } from '../../src/feed/questions.ts';
import type { Row } from '../../src/formats/decision.ts';
import type { StreamAnswer } from '../../src/stream/poll.ts';
import { everything, limitsOf } from '../support/bouncer.ts';

const nowMs = 1_000_000;
const hour = 3_600_000;

function poll(address: string) {
  return { bouncerId: 1, versionId: 1, address, seenMs: nowMs, userAgent: 'test/1' };
}

function row(sequence: number, some: Partial<Row> = {}): Row {
  const value = `192.0.2.${sequence}`;
  return {
    id: sequence,
    rowId: sequence,
    engine: 'default',
    engineId: sequence,
    origin: 'cscli',
    scenario: 'test',
    scope: 'Ip',
    type: 'ban',
    value,
    canonicalValue: value,
    untilMs: nowMs + hour,
    addedSeq: sequence,
    removedSeq: 0,
    removedMs: 0,
    ...some,
  };
}

const mark = (count = 0, instance = 'one') => ({ instance, count });

/** The object's answer to a poll that has everything up to a sequence. */
function upToDate(sequence: number, { count = 0, instance = 'one', baseline = 0 } = {}): StreamAnswer {
  const cursor = { baseline, beforeSequence: sequence, lastSequence: sequence };
  return { kind: 'stream', sequence, mark: mark(count, instance), cursor, body: null, gzip: false };
}

function follow(follower: Follower, sequence: number, rows: readonly Row[], some: Partial<Followed> = {}) {
  const touched = { sequence, rows, respelled: [] };
  const followed: Followed = {
    mark: mark(),
    forget: [],
    sequence,
    settled: sequence,
    touched,
    holds: new Map(),
    names: new Map(),
    ...some,
  };
  follower.take(follower.ask(nowMs), followed, true);
}

const view = 'a view';
const one = poll('192.0.2.200');
const answer = (follower: Follower, of = one, asked = everything) =>
  follower.answer(of, view, asked, nowMs, () => false);

/** An isolate whose client has everything up to a sequence, and which has followed the feed. */
function following({ sequence = 10 } = {}): Follower {
  const follower = createFollower();
  follower.learn(one, view, upToDate(sequence));
  follow(follower, sequence, []);
  return follower;
}

const values = (body: unknown): { added: string[]; removed: string[] } => {
  const json = JSON.parse((body as { body: string }).body) as Record<'new' | 'deleted', { value: string }[]>;
  return { added: json.new.map(({ value }) => value), removed: json.deleted.map(({ value }) => value) };
};

describe('an isolate that follows the feed', () => {
  test('gives each change to its client twice, and then nothing', () => {
    const follower = following();
    expect(answer(follower)).toBeNull();
    follow(follower, 11, [row(11)]);
    expect(values(answer(follower))).toEqual({ added: ['192.0.2.11'], removed: [] });
    const removed = row(11, { removedSeq: 12, removedMs: nowMs });
    follow(follower, 12, [removed]);
    expect(values(answer(follower))).toEqual({ added: [], removed: ['192.0.2.11'] });
    expect(values(answer(follower))).toEqual({ added: [], removed: ['192.0.2.11'] });
    expect(answer(follower)).toBeNull();
  });

  test('announces a decision that stays when the longer one on its value is removed', () => {
    const follower = following();
    const longer = row(11, { value: '192.0.2.1', canonicalValue: '192.0.2.1', untilMs: nowMs + 2 * hour });
    const stays = row(5, { value: '192.0.2.1', canonicalValue: '192.0.2.1' });
    follow(follower, 11, [stays, longer]);
    follow(follower, 12, [stays, { ...longer, removedSeq: 12, removedMs: nowMs }]);
    expect(values(answer(follower))).toEqual({ added: ['192.0.2.1'], removed: [] });
  });

  test('asks the object where it does not know enough', () => {
    const follower = following();
    expect(answer(follower, poll('192.0.2.201'))).toBe('ask');
    follow(follower, 11, [row(11)]);
    expect(answer(follower, one, { ...everything, limits: limitsOf({ maxDecisions: 5 }) })).toBe('ask');
    expect(answer(follower, one, { ...everything, dedup: false })).toBe('ask');
    const spelled = row(12, { value: '2001:DB8::1', canonicalValue: '2001:db8::1', removedSeq: 13 });
    follow(follower, 13, [spelled], {
      touched: { sequence: 13, rows: [spelled], respelled: ['2001:db8::1'] },
    });
    expect(answer(follower)).toBe('ask');
  });

  test('asks the object for clients that are behind when too much has changed', () => {
    const follower = following();
    follow(follower, 9_000, [], { touched: null });
    expect(answer(follower)).toBe('ask');
    follower.learn(one, view, upToDate(9_000));
    expect(answer(follower)).toBeNull();
  });

  test('follows again after a second, and after a change that was made through it', () => {
    const follower = following();
    expect(follower.answer(one, view, everything, nowMs + 1_000, () => false)).toBeNull();
    const later = { ...one, seenMs: nowMs + 1_001 };
    expect(follower.answer(later, view, everything, nowMs + 1_001, () => false)).toBe('follow');
    follower.forgetLatest();
    expect(answer(follower)).toBe('follow');
  });

  test('forgets the cursors that the object calls wrong, also those that come late', () => {
    const follower = following();
    const other = poll('192.0.2.201');
    follower.learn(other, view, upToDate(10));
    follow(follower, 10, [], { mark: mark(1), forget: ['1 192.0.2.200'] });
    expect(answer(follower)).toBe('ask');
    expect(answer(follower, other)).toBeNull();
    follower.learn(one, view, upToDate(10));
    expect(answer(follower)).toBe('ask');
    follower.learn(one, view, upToDate(10, { count: 1 }));
    expect(answer(follower)).toBeNull();
  });

  test('knows nothing any more once the object woke anew', () => {
    const follower = following();
    follow(follower, 4, [], { mark: mark(0, 'two'), touched: null, forget: 'all' });
    expect(answer(follower)).toBe('ask');
    follower.learn(one, view, upToDate(4, { instance: 'two' }));
    follow(follower, 5, [row(5)], { mark: mark(0, 'two') });
    expect(values(answer(follower)).added).toEqual(['192.0.2.5']);
  });

  test('a client that the object has brought further is not taken back', () => {
    const follower = following();
    follow(follower, 11, [row(11)]);
    const cursor = { baseline: 0, beforeSequence: 10, lastSequence: 20 };
    follower.learn(one, view, { ...upToDate(20), cursor });
    expect(values(answer(follower)).added).toEqual(['192.0.2.11']);
    const [{ moved }] = follower.takeSightings();
    expect(moved?.cursor).toEqual({ baseline: 0, beforeSequence: 11, lastSequence: 20 });
  });

  test('keeps the changes of the last while only', () => {
    const follower = following();
    for (let sequence = 11; sequence <= 40_000; sequence += 1_000) {
      const rows = Array.from({ length: 1_000 }, (_, at) => row(sequence + at));
      follow(follower, sequence + 999, rows);
    }
    expect(answer(follower)).toBe('ask');
    const late = poll('192.0.2.201');
    follower.learn(late, view, upToDate(35_000));
    expect(answer(follower, late)).toBeInstanceOf(Promise);
  });

  test('answers 150,000 clients by itself', () => {
    const follower = following();
    const addresses = Array.from({ length: 150_000 }, (_, at) => `2001:db8::${at.toString(16)}`);
    for (const address of addresses) follower.learn(poll(address), view, upToDate(10));
    expect(addresses.filter((address) => answer(follower, poll(address)) !== null)).toEqual([]);
  });

  test('reports more polls than it answers in the second between two reports', () => {
    const follower = following();
    const addresses = Array.from({ length: 10_000 }, (_, at) => `2001:db8::${at.toString(16)}`);
    for (const address of addresses) {
      follower.learn(poll(address), view, upToDate(10));
      void answer(follower, poll(address));
    }
    expect(follower.takeSightings()).toHaveLength(10_000);
    expect(follower.takeSightings()).toEqual([]);
  });
});

describe('what has changed for a client that waits', () => {
  const changes = (follower: Follower, told = follower.told(one, view)!, asked = everything) =>
    follower.changesSince(one, view, asked, told, nowMs, () => false);

  test('is told, and moves no cursor', async () => {
    const follower = following();
    const told = follower.told(one, view)!;
    expect(changes(follower)).toEqual({ kind: 'nothing', told });
    follow(follower, 11, [row(11)]);
    for (let times = 0; times < 3; times++) {
      const found = changes(follower, told);
      expect(found.kind).toBe('changed');
      if (found.kind === 'changed') expect(values(await found.body).added).toEqual(['192.0.2.11']);
    }
    for (let times = 0; times < 2; times++) expect(values(answer(follower)).added).toEqual(['192.0.2.11']);
    expect(answer(follower)).toBeNull();
  });

  test('is nothing outside of its view, and that is remembered', () => {
    const follower = following();
    const countries = { ...everything, scopes: ['Country'] };
    follow(follower, 11, [row(11)]);
    const found = changes(follower, { instance: 'one', sequence: 10 }, countries);
    expect(found).toEqual({ kind: 'nothing', told: { instance: 'one', sequence: 11 } });
  });

  test('is not known where the feed was not followed', () => {
    const follower = following();
    follower.forgetLatest();
    expect(changes(follower)).toEqual({ kind: 'unknown' });
  });

  test('only the object can say under a cap, without a cursor, and where it was missed', () => {
    const told = { instance: 'one', sequence: 10 };
    const capped = { ...everything, limits: limitsOf({ maxDecisions: 1 }) };
    const follower = following();
    follow(follower, 11, [row(11)]);
    expect(changes(follower, told, capped)).toEqual({ kind: 'elsewhere' });
    follow(follower, 12, [], { forget: 'all' });
    expect(changes(follower, told)).toEqual({ kind: 'elsewhere' });
    follow(follower, 20, [], { touched: null });
    expect(changes(follower, told)).toEqual({ kind: 'elsewhere' });
  });

  test('after a restart of the object is nothing if it has no change that was missed', () => {
    const follower = following();
    const told = follower.told(one, view)!;
    follow(follower, 10, [], { mark: mark(0, 'two') });
    expect(changes(follower, told)).toEqual({ kind: 'nothing', told: { instance: 'two', sequence: 10 } });
    follow(follower, 12, [], { mark: mark(0, 'three') });
    expect(changes(follower, told)).toEqual({ kind: 'elsewhere' });
    follow(follower, 3, [], { mark: mark(0, 'four') });
    expect(changes(follower, told)).toEqual({ kind: 'elsewhere' });
  });
});
