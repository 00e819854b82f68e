// How long the first poll of an isolate takes, and the first one after a change: trips to D1 and calls of the feed's object
// that wait for each other, the object's own question to D1 included.
import { env } from 'cloudflare:workers';
import { evictDurableObject } from 'cloudflare:test';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { backUp, putBack } from '../support/backup.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { type Isolate, makeIsolates } from '../support/isolate.ts';
import { startModelEngine } from '../support/model-engine.ts';

let isolates: Isolate[];
beforeAll(async () => {
  isolates = await makeIsolates(6);
}, 60_000);
beforeEach(() => void startModelEngine());

/** Bindings that know how many of their answers came one after the other until now. */
function inSequence() {
  let answered = 0;
  const trip = async <T>(work: PromiseLike<T>, length = 1): Promise<T> => {
    const depth = answered + length;
    const answer = await work;
    answered = Math.max(answered, depth);
    return answer;
  };
  const counted = (bare: D1PreparedStatement): object => ({
    bare,
    bind: (...params: unknown[]) => counted(bare.bind(...params)),
    all: () => trip(bare.all()),
    run: () => trip(bare.run()),
    raw: () => trip(bare.raw()),
  });
  return {
    longest: () => answered,
    bindings: {
      DB: {
        prepare: (query: string) => counted(env.DB.prepare(query)),
        batch: (statements: { bare: D1PreparedStatement }[]) =>
          trip(env.DB.batch(statements.map(({ bare }) => bare))),
      },
      DECISION_FEED: {
        getByName: (name: string) =>
          new Proxy(env.DECISION_FEED.getByName(name), {
            get: (stub: any, method: string) => (ask: unknown) =>
              // A store that is settled, and a mutation, are questions of the object's own.
              trip(stub[method](ask), ['settleStore', 'commit'].includes(method) ? 2 : 1),
          }),
      },
    },
  };
}

async function poll(isolate: Isolate, key: string): Promise<[number, number]> {
  const { bindings, longest } = inSequence();
  const init = { headers: { 'x-api-key': key } };
  const { status } = await isolate('/v1/decisions/stream', init, bindings);
  return [status, longest()];
}

describe('an isolate that knows nothing yet answers a poll after two trips', () => {
  test('with a key that is in use', async () => {
    const key = await addBouncer('fw');
    await asBouncer(key, '/v1/decisions/stream');
    expect(await poll(isolates[0]!, key)).toEqual([200, 2]);
  });

  test('with one that was never used', async () => {
    expect(await poll(isolates[1]!, await addBouncer('fw'))).toEqual([200, 2]);
  });

  test('after the object was restarted', async () => {
    const key = await addBouncer('fw');
    await feed().sealAudit();
    await evictDurableObject(feed());
    expect(await poll(isolates[2]!, key)).toEqual([200, 2]);
  });

  test('and refuses a key that opens nothing after one', async () => {
    await addBouncer('fw');
    expect(await poll(isolates[3]!, 'opens-nothing')).toEqual([403, 1]);
  });
});

test('an isolate that knows nothing yet trusts no D1 that was restored', async () => {
  const [kept, revoked] = [await addBouncer('kept'), await addBouncer('revoked')];
  const backup = await backUp();
  await operator('POST', '/bouncers/revoked/versions/1/revoke');
  await putBack(backup);
  expect((await poll(isolates[5]!, revoked))[0]).toBe(403);
  expect((await poll(isolates[5]!, kept))[0]).toBe(200);
});

test('after a change elsewhere it is three, one of them to ask the object whether D1 is what it was', async () => {
  const key = await addBouncer('fw');
  const isolate = isolates[4]!;
  await poll(isolate, key);
  const other = await addBouncer('other');
  expect(await poll(isolate, other)).toEqual([200, 3]);
});
