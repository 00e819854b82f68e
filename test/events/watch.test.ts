// What a receiver is told, and when, by the feed's object with a clock that the test moves.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bouncer, everything, feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { isSigned, startReceiver, type Receiver } from '../support/receiver.ts';
import { delivery, makeWebhook, namesIn, quiet, round } from '../support/webhooks.ts';

const minute = 60_000;
let engine: ModelEngine;
let ops: Receiver;
let secret: string;

beforeEach(async () => {
  engine = startModelEngine();
  ops = startReceiver('ops.example');
  vi.useFakeTimers({ toFake: ['Date'] });
  secret = await makeWebhook('ops');
  await round();
});

interface Polling {
  pull(startup: boolean): Promise<unknown>;
}

/** Polls and looks every minute. */
async function polled(minutes: number, polling: readonly Polling[]): Promise<void> {
  for (let at = 0; at < minutes; at++) {
    for (const each of polling) await each.pull(false);
    await round(minute);
  }
}

/** So many bouncers with keys, that have begun. */
async function bouncers(count: number): Promise<Polling[]> {
  const all = [];
  for (let id = 1; id <= count; id++) {
    await addBouncer(`fw-${id}`);
    all.push(bouncer({ bouncerId: id, view: everything }));
  }
  for (const each of all) await each.pull(true);
  await round();
  return all;
}

describe('a bouncer', () => {
  test('that polled every minute and stops is silent; its return is told once it is steady', async () => {
    const [fw] = await bouncers(1);
    await polled(5, [fw!]);
    const seenAt = new Date(Date.now() - minute).toISOString();
    await quiet(5);
    await ops.reaches(1);
    const [told] = ops.tries;
    expect(told!.type).toBe('bouncer.silent');
    expect(told!.data).toEqual({
      count: 1,
      bouncers: [{ name: 'fw-1', last_seen_at: seenAt, expected_seconds: 60 }],
    });
    expect(isSigned(told!, secret)).toBe(true);
    expect(JSON.parse(told!.text).timestamp).toMatch(/^\d{4}-.*Z$/);
    // It comes and goes.
    for (let flap = 0; flap < 5; flap++) {
      await polled(1, [fw!]);
      await quiet(3);
    }
    await polled(7, [fw!]);
    await ops.reaches(2);
    expect(ops.taken()).toEqual(['bouncer.silent', 'bouncer.recovered']);
    expect(namesIn(ops, 1)).toEqual(['fw-1']);
  });

  test('that only looks up is never silent', async () => {
    const key = await addBouncer('live');
    for (let at = 0; at < 6; at++) {
      await asBouncer(key, '/v1/decisions?ip=192.0.2.1');
      await round(minute);
    }
    await quiet(60);
    expect(ops.tries).toEqual([]);
  });

  test('is silent after the time that an operator has set, also one that only looks up', async () => {
    const key = await addBouncer('live');
    await patch('live', { silent_after: '10m' });
    for (let at = 0; at < 4; at++) {
      await asBouncer(key, `/v1/decisions?ip=192.0.2.${at + 1}`);
      await round(minute);
    }
    await quiet(7);
    expect(ops.tries).toEqual([]);
    await quiet(6);
    await ops.reaches(1);
    expect(ops.tries[0]!.data.bouncers).toEqual([
      { name: 'live', last_seen_at: expect.any(String), expected_seconds: null },
    ]);
    const { body } = await operator('GET', '/bouncers/live');
    expect(body.silent_after).toBe('10m0s');
  });

  // Whenever it is resumed, and though nobody asks D1 at each look.
  test.each([30, 31, 32, 33, 34])(
    'that is paused for %i minutes is no news, nor is its late return',
    async (minutes) => {
      const [fw, other] = await bouncers(2);
      await polled(5, [fw!, other!]);
      await patch('fw-1', { paused: true });
      await polled(minutes, [other!]);
      await patch('fw-1', { paused: false });
      await polled(2, [other!]);
      await polled(5, [fw!, other!]);
      await delivery();
      expect(ops.tries).toEqual([]);
      await polled(5, [other!]);
      await ops.reaches(1);
      expect(namesIn(ops, 0)).toEqual(['fw-1']);
    },
  );

  test('that does not come back after a pause is silent', async () => {
    const [fw, other] = await bouncers(2);
    await polled(5, [fw!, other!]);
    await patch('fw-1', { paused: true });
    await polled(30, [other!]);
    await patch('fw-1', { paused: false });
    await polled(9, [other!]);
    await ops.reaches(1);
    expect(namesIn(ops, 0)).toEqual(['fw-1']);
  });

  test.each([30, 31, 32, 33, 34])(
    'that is paused for %i minutes holds up no news of another',
    async (minutes) => {
      const [fw, other] = await bouncers(2);
      await polled(5, [fw!, other!]);
      await patch('fw-1', { paused: true });
      await polled(minutes, [other!]);
      // Three of its intervals, and the look after that.
      await quiet(4);
      await ops.reaches(1);
      expect(namesIn(ops, 0)).toEqual(['fw-2']);
    },
  );

  test('that was deleted, or has no key that opens anything, is not told of', async () => {
    const all = await bouncers(3);
    await polled(5, all);
    await operator('DELETE', '/bouncers/fw-1');
    await operator('POST', '/bouncers/fw-2/versions/1/revoke');
    await quiet(5);
    await ops.reaches(1);
    expect(namesIn(ops, 0)).toEqual(['fw-3']);
  });
});

test('a hundred and ten that stop at once are one message, and so is their return', async () => {
  const all = await bouncers(110);
  await polled(4, all);
  await quiet(6);
  await ops.reaches(1);
  await polled(7, all);
  await ops.reaches(2);
  expect(ops.taken()).toEqual(['bouncer.silent', 'bouncer.recovered']);
  for (const { data } of ops.tries) expect([data.count, data.bouncers.length]).toEqual([110, 100]);
});

describe('nobody is silent', () => {
  test('because the feed was away itself', async () => {
    const all = await bouncers(3);
    await polled(5, all);
    await round(24 * 60 * minute);
    await polled(5, all);
    expect(ops.tries).toEqual([]);
  });

  test('because the clock was set back, or ahead', async () => {
    const all = await bouncers(3);
    await polled(5, all);
    await round(-300 * minute);
    await polled(5, all);
    await quiet(60);
    expect(ops.tries).toEqual([]);
    await round(24 * 60 * minute);
    await polled(5, all);
    expect(ops.tries).toEqual([]);
  });
});

test('what was learnt and said outlives the object', async () => {
  const all = await bouncers(2);
  await polled(5, all);
  await evictDurableObject(feed());
  await polled(5, all.slice(1));
  await ops.reaches(1);
  expect(namesIn(ops, 0)).toEqual(['fw-1']);
  await evictDurableObject(feed());
  await polled(8, all.slice(1));
  expect(ops.tries).toHaveLength(1);
  await polled(8, all);
  await ops.reaches(2);
  expect(ops.tries[1]!.type).toBe('bouncer.recovered');
});

test('a restart makes nobody silent whose newest poll was not written before it', async () => {
  const all = await bouncers(2);
  await polled(5, all);
  // Rows are written once a minute.
  for (let at = 0; at < 5; at++) {
    for (const each of all) await each.pull(false);
    await round(10_000);
  }
  await evictDurableObject(feed());
  await round(100_000);
  await polled(3, all);
  await delivery();
  expect(ops.tries).toEqual([]);
  await polled(5, all.slice(1));
  await ops.reaches(1);
  expect(namesIn(ops, 0)).toEqual(['fw-1']);
});

describe('an engine', () => {
  const steps = async (count: number, stepMs = 10_000) => {
    for (let at = 0; at < count; at++) await round(stepMs);
  };

  test('that refuses the key is told of once, and that it recovered when it did so for five minutes', async () => {
    engine.keys = [];
    await steps(10);
    await ops.reaches(1);
    engine.keys = null;
    await steps(6);
    engine.keys = [];
    await steps(6);
    engine.keys = null;
    await steps(40);
    await ops.reaches(2);
    expect(ops.taken()).toEqual(['engine.refused', 'engine.recovered']);
    expect(ops.tries[0]!.data.engines).toEqual([
      expect.objectContaining({ name: 'default', error: expect.stringContaining('UPSTREAM_API_KEY') }),
    ]);
    expect(ops.tries[0]!.text).not.toContain('feed-key-of-the-tests');
  });

  test('is not stale because the feed was away itself', async () => {
    await round(48 * 60 * minute);
    await steps(6);
    expect(ops.tries).toEqual([]);
  });

  test('that does not answer is stale', async () => {
    engine.fault = () => new Response('no', { status: 500 });
    // The suites' interval is an hour, and three rounds may fail.
    await steps(10, 30 * minute);
    await ops.reaches(1);
    expect([ops.tries[0]!.type, namesIn(ops, 0, 'engines')]).toEqual(['engine.stale', ['default']]);
  });
});

describe('a receiver', () => {
  const refuse = () => void (engine.keys = []);
  /** Makes an event. */
  async function event(): Promise<void> {
    refuse();
    for (let at = 0; at < 5; at++) await round(10_000);
  }

  test('that fails is tried again, later and later, with the same id, and loses nothing', async () => {
    ops.answer = () => new Response(null, { status: 500 });
    refuse();
    while (ops.tries.length === 0) {
      await round(10_000);
      await delivery();
    }
    const waits: number[] = [];
    let lastMs = Date.now();
    while (waits.length < 5) {
      const tries = ops.tries.length;
      await round(10_000);
      await delivery();
      if (ops.tries.length === tries) continue;
      waits.push(Math.round((Date.now() - lastMs) / 1000));
      lastMs = Date.now();
    }
    expect(waits).toEqual([10, 20, 40, 80, 160]);
    expect(await delivery()).toMatchObject({
      waiting: 1,
      failures: 6,
      last_try: { status: 500, problem: 'it answered 500' },
    });
    ops.answer = undefined;
    await round(400_000);
    await ops.reaches(7);
    expect(new Set(ops.tries.map(({ id }) => id)).size).toBe(1);
    const seconds = ops.tries.map(({ headers }) => Number(headers.get('webhook-timestamp')));
    expect(seconds).toEqual(seconds.toSorted((a, b) => a - b));
    expect(new Set(seconds).size).toBe(7);
    expect(await delivery()).toMatchObject({ waiting: 0, failures: 0, lost: 0, last_try: { status: 204 } });
  });

  test('that is silent holds up no round, and another receiver for one try only', async () => {
    const other = startReceiver('other.example');
    await makeWebhook('other');
    let giveUp: ((error: Error) => void) | undefined;
    ops.answer = () => new Promise((_, reject) => (giveUp = reject));
    await event();
    await ops.reaches(1);
    giveUp?.(new Error('no answer'));
    await other.reaches(1);
    expect(other.taken()).toEqual(['engine.refused']);
  });

  test('gets the events that it asked for, and those since it was made', async () => {
    const other = startReceiver('other.example');
    await event();
    await ops.reaches(1);
    await makeWebhook('other', ['engine.recovered']);
    engine.keys = null;
    for (let at = 0; at < 40; at++) await round(10_000);
    await other.reaches(1);
    expect(other.taken()).toEqual(['engine.recovered']);
    expect(ops.taken()).toEqual(['engine.refused', 'engine.recovered']);
  });

  test('that is given another address is tried there at once', async () => {
    ops.answer = () => new Response(null, { status: 404 });
    await event();
    await ops.reaches(1);
    for (let at = 0; at < 20; at++) await round(60_000);
    const other = startReceiver('other.example');
    const { headers } = await operator('GET', '/webhooks/ops');
    expect(headers.get('etag')).toBe('"1"');
    await change({ url: 'https://other.example/' });
    await round(10_000);
    await other.reaches(1);
    expect(other.tries[0]!.id).toBe(ops.tries[0]!.id);
  });

  test('gets a message once while its progress can not be stored, and that is stored later', async () => {
    const full = (statement: string) =>
      runInDurableObject(feed(), (_, { storage }) => void storage.sql.exec(statement));
    await full(
      `CREATE TRIGGER full BEFORE INSERT ON event_targets BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`,
    );
    await event();
    await ops.reaches(1);
    for (let at = 0; at < 6; at++) await round(10_000);
    expect(ops.tries).toHaveLength(1);
    await full('DROP TRIGGER full');
    await round(10_000);
    await evictDurableObject(feed());
    for (let at = 0; at < 6; at++) await round(10_000);
    expect(ops.tries).toHaveLength(1);
    expect(await delivery()).toMatchObject({ waiting: 0, failures: 0 });
  });

  test('that is far behind loses the oldest messages, and that is shown', async () => {
    ops.answer = () => new Response(null, { status: 500 });
    await event();
    await ops.reaches(1);
    await runInDurableObject(feed(), (_, { storage }) => {
      const insert = `INSERT INTO event_messages (message, type, at_ms, body)
        SELECT 'msg_' || value, 'engine.stale', 1, '{"type":"engine.stale"}' FROM json_each(?)`;
      storage.sql.exec(insert, JSON.stringify(Array.from({ length: 1005 }, (_, at) => at)));
    });
    engine.keys = null;
    for (let at = 0; at < 40; at++) await round(10_000);
    expect(await delivery()).toMatchObject({ waiting: 1000, lost: 7 });
  });
});

async function change(body: object): Promise<void> {
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
  const { status } = await call('/api/v1/webhooks/ops', {
    method: 'PATCH',
    headers,
    body: JSON.stringify(body),
  });
  expect(status).toBe(200);
}

async function patch(name: string, body: object): Promise<void> {
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
  const init = { method: 'PATCH', headers, body: JSON.stringify(body) };
  expect((await call(`/api/v1/bouncers/${name}`, init)).status).toBe(200);
}
