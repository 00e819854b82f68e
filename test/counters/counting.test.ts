// What an isolate counts reaches the object once, whatever becomes of the questions that carry it.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { beforeEach, expect, test, vi } from 'vitest';
import { counted, createCounting, type Batch } from '../../src/counters/counting.ts';
import { feed } from '../support/bouncer.ts';
import { refuseWrites } from '../support/storage.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
});

const arrives = async (batch: Batch | undefined, isolate = 'a'): Promise<void> => {
  await feed().note([], null, { isolate, counts: batch });
};
/** The object did as it was asked, and the answer was lost. */
const answerIsLost = async (batch: Batch | undefined): Promise<void> => {
  await arrives(batch);
  throw new Error('reset');
};
const isLost = () => Promise.reject(new Error('reset'));

/** A round, and then the object ends without notice. */
async function restart(): Promise<void> {
  await runInDurableObject(feed(), (object) => object.alarm());
  await evictDurableObject(feed());
}

const counts = async () => (await feed().counts()).requests;

test('counts of several isolates are added up by bouncer', async () => {
  const [a, b] = [createCounting(), createCounting()];
  a.count(1, counted.polls);
  a.count(1, counted.polls);
  a.count(2, counted.lookUps);
  b.count(1, counted.polls);
  await a.send(Date.now(), (batch) => arrives(batch, 'a'));
  await b.send(Date.now(), (batch) => arrives(batch, 'b'));
  expect(await counts()).toEqual([1, counted.polls, 3, 2, counted.lookUps, 1]);
});

test.each([
  ['was not asked', isLost],
  ['answered in vain', answerIsLost],
])('what went with a question that %s counts once, with the next one', async (_, fails) => {
  const isolate = createCounting();
  isolate.count(1, counted.polls);
  await isolate.send(Date.now(), fails).catch(() => undefined);
  isolate.count(1, counted.polls);
  for (let questions = 0; questions < 3; questions++) await isolate.send(Date.now(), arrives);
  expect(await counts()).toEqual([1, counted.polls, 2]);
  expect(isolate.isWaiting()).toBe(false);
});

test('of questions that are asked at once one has the counts', async () => {
  const isolate = createCounting();
  isolate.count(1, counted.polls);
  const sent: (Batch | undefined)[] = [];
  const ask = async (batch: Batch | undefined) => void sent.push(batch);
  await Promise.all([isolate.send(Date.now(), ask), isolate.send(Date.now(), ask)]);
  expect(sent.map((batch) => batch?.number)).toEqual([1, undefined]);
});

test('a question that never ends holds them up for ten seconds', async () => {
  const isolate = createCounting();
  isolate.count(1, counted.polls);
  void isolate.send(Date.now(), () => new Promise(() => undefined));
  await isolate.send(Date.now() + 9_999, arrives);
  expect(await counts()).toEqual([]);
  await isolate.send(Date.now() + 10_000, arrives);
  expect(await counts()).toEqual([1, counted.polls, 1]);
});

test('an object that wakes anew goes on from where it was, and adds no batch of before twice', async () => {
  const isolate = createCounting();
  isolate.count(1, counted.polls);
  await isolate.send(Date.now(), answerIsLost).catch(() => undefined);
  await restart();
  await isolate.send(Date.now(), arrives);
  expect(await counts()).toEqual([1, counted.polls, 1]);
});

test('what a reader has seen outlives a crash: a counter never goes back', async () => {
  const isolate = createCounting();
  for (let polls = 1; polls < 4; polls++) {
    isolate.count(1, counted.polls);
    await isolate.send(Date.now(), arrives);
    expect(await counts()).toEqual([1, counted.polls, polls]);
    await evictDurableObject(feed());
    expect(await counts()).toEqual([1, counted.polls, polls]);
  }
});

const countOne = async (number: number): Promise<void> => {
  await arrives({ number, requests: [1, counted.polls, 1], refused: { 'bouncer no-key': 1 } });
};

test('a disk that is full keeps no question from its answer, and no count from the next write', async () => {
  vi.spyOn(console, 'error').mockReturnValue(undefined);
  await countOne(1);
  expect(await counts()).toEqual([1, counted.polls, 1]);
  const makeRoom = await refuseWrites();
  await countOne(2);
  // A crash would lose it, and a counter that goes back is added again.
  const { requests, refused } = await feed().counts();
  expect([requests, refused]).toEqual([[1, counted.polls, 1], { 'bouncer no-key': 1 }]);
  makeRoom();
  vi.setSystemTime(Date.now() + 10_000);
  await restart();
  expect(await counts()).toEqual([1, counted.polls, 2]);
});

test('the object starts on a disk that has been full since before there were counters', async () => {
  vi.spyOn(console, 'error').mockReturnValue(undefined);
  await runInDurableObject(feed(), (_, { storage }) => {
    for (const table of ['counters', 'usage']) storage.sql.exec(`DROP TABLE IF EXISTS ${table}`);
  });
  const makeRoom = await refuseWrites();
  await evictDurableObject(feed());
  const usage = [
    { item: 'dropped', unit: 'packet', origin: 'CAPI', remediation: '', ipType: '', value: 1 },
  ] as const;
  await countOne(1);
  expect(await counts()).toEqual([]);
  expect(await feed().usagePage(0)).toEqual({ bouncers: [], next: null });
  makeRoom();
  await feed().takeReport(null, null, { bouncerId: 1, windows: [{ id: 'a', usage }] });
  expect((await feed().usagePage(0)).bouncers).toHaveLength(1);
  expect(await counts()).toEqual([1, counted.polls, 1]);
  await evictDurableObject(feed());
  expect(await counts()).toEqual([1, counted.polls, 1]);
});

test('the object starts with counters that can not be read, and counts anew', async () => {
  const log = vi.spyOn(console, 'error').mockReturnValue(undefined);
  await countOne(1);
  await counts();
  await runInDurableObject(feed(), (_, { storage }) => {
    storage.sql.exec(`UPDATE counters SET body = '{'`);
  });
  await evictDurableObject(feed());
  await countOne(2);
  expect(await counts()).toEqual([1, counted.polls, 1]);
  expect(log).toHaveBeenCalledOnce();
});

test('no more than 20,000 bouncers and 1,000 isolates are remembered', async () => {
  for (let isolate = 0; isolate < 1_001; isolate++) {
    const first = isolate * 20;
    const requests = Array.from({ length: 20 }, (_, at) => [first + at, counted.polls, 1]).flat();
    await arrives({ number: 1, requests }, String(isolate));
  }
  expect((await counts()).length).toBe(3 * 20_000);
  await arrives({ number: 1, requests: [5, counted.polls, 1] }, '1000');
  expect((await counts()).slice(15, 18)).toEqual([5, counted.polls, 1]);
  await runInDurableObject(feed(), (_, { storage }) => {
    const { body } = storage.sql.exec<{ body: string }>(`SELECT body FROM counters`).one();
    expect(body.length).toBeLessThan(1_000_000);
    expect(JSON.parse(body).batches).toHaveLength(1_000);
  });
});
