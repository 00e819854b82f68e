// The feed's object goes away under a question, before it has done what it was asked or after: who asked is answered all
// the same, and nothing is done twice. The real object answers; what is broken is the way between.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { checkMachine } from '../../src/machines/blocklist.ts';
import type { StreamAsk } from '../../src/feed/questions.ts';
import { bouncer, feed, type WireDecision } from '../support/bouncer.ts';
import { addBouncer, operator, operatorToken } from '../support/http.ts';
import { type ModelEngine } from '../support/model-engine.ts';
import { serveWith, startEdge } from '../support/edge.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;
beforeEach(async () => {
  ({ engine, key } = await startEdge());
  engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  await operator('POST', '/feed/sync?full=true');
});

type Fault = 'before' | 'after';
type Method = 'commit' | 'stream' | 'list' | 'addLocal' | 'removeLocal' | 'status';
const marks = { durableObjectReset: true } as const;

let calls: Method[] = [];

/** Bindings whose calls of `method` fail as these say, one after the other, and then no more. */
function failing(method: Method, faults: Fault[], marked: object = marks): Env {
  calls = [];
  const left = [...faults];
  const failed = (): Error => Object.assign(new Error('Durable Object reset'), marked);
  const get = (stub: Record<Method, (...given: unknown[]) => Promise<unknown>>, asked: Method) => {
    return async (...given: unknown[]) => {
      calls.push(asked);
      const fault = asked === method ? left.shift() : undefined;
      if (fault === 'before') throw failed();
      const answer = await stub[asked](...given);
      if (fault === 'after') throw failed();
      return answer;
    };
  };
  const namespace = { getByName: () => new Proxy(feed(), { get: get as never }) };
  return { ...env, DECISION_FEED: namespace } as unknown as Env;
}

/** Bindings with D1 out of reach. */
const without = { ...env, DB: { prepare: outOfReach, batch: outOfReach } } as unknown as Env;

function outOfReach(): never {
  throw new Error('D1_ERROR: Network connection lost.');
}

async function ask(through: Env, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { 'x-api-key': key, authorization: `Bearer ${operatorToken}`, ...init.headers };
  return serveWith(through, path, { ...init, headers });
}

const post = (through: Env, path: string, body: object) =>
  ask(through, `/api/v1${path}`, { method: 'POST', body: JSON.stringify(body) });

async function auditOf(action: string): Promise<number> {
  return (await operator('GET', `/audit?action=${action}`)).body.audit.length;
}

const ways: [string, Fault[]][] = [
  ['once before', ['before']],
  ['once after', ['after']],
  ['twice', ['after', 'before']],
];

describe.each(ways)('%s it did what it was asked', (_, faults) => {
  test('a poll is answered', async () => {
    const response = await ask(failing('stream', faults), '/v1/decisions/stream?startup=true');
    const { new: added } = await response.json<{ new: WireDecision[] }>();
    expect(added.map(({ value }) => value)).toEqual(['192.0.2.1']);
    expect(calls.filter((method) => method === 'stream')).toHaveLength(faults.length + 1);
  });

  test('a bouncer is made once, and its key opens', async () => {
    const response = await post(failing('commit', faults), '/bouncers', { name: 'new' });
    expect([response.status, response.headers.get('etag')]).toEqual([201, '"1"']);
    const { key: made, ...described } = await response.json<{ key: string }>();
    expect(described).toMatchObject({ bouncer: { name: 'new', clients: [] } });
    key = made;
    expect((await ask(env, '/v1/decisions')).status).toBe(200);
    expect(await auditOf('bouncer.create')).toBe(2);
    expect((await operator('GET', '/audit/verify')).status).toBe(200);
  });

  test('a bouncer is deleted once', async () => {
    const response = await ask(failing('commit', faults), '/api/v1/bouncers/fw', { method: 'DELETE' });
    expect(response.status).toBe(204);
    expect(await auditOf('bouncer.delete')).toBe(1);
    expect((await ask(env, '/v1/decisions')).status).toBe(403);
  });

  test('a ban is recorded once, made once, and taken back with its number', async () => {
    const body = { value: '192.0.2.9', duration: '1h' };
    expect((await post(failing('commit', faults), '/decisions', body)).status).toBe(201);
    expect(await auditOf('decision.ban')).toBe(1);
    expect((await post(failing('addLocal', faults), '/decisions', body)).status).toBe(201);
    const { sequence } = await feed().status();
    const gone = await ask(failing('removeLocal', faults), '/api/v1/decisions?value=192.0.2.9', {
      method: 'DELETE',
    });
    expect(await gone.json()).toEqual({ removed: 2, still_banned_by: [] });
    expect((await feed().status()).sequence).toBe(sequence + 2);
  });
});

describe('what was done by a try that nobody heard holds at once where its repetition is acknowledged', () => {
  test('a revoked key, with D1 out of reach from then on', async () => {
    // One that no other test here has taken away.
    key = await addBouncer('other');
    expect((await ask(env, '/v1/decisions')).status).toBe(200);
    const response = await ask(failing('commit', ['after']), '/api/v1/bouncers/other', { method: 'DELETE' });
    expect(response.status).toBe(204);
    expect((await ask(without, '/v1/decisions')).status).toBe(503);
  });

  test('a blocked machine, with D1 out of reach from then on', async () => {
    expect(await checkMachine(env.DB, 'lab', Date.now())).toMatchObject({ ok: true });
    const response = await ask(failing('commit', ['after']), '/api/v1/blocked-machines/lab', {
      method: 'PUT',
      body: '{}',
    });
    expect(await response.json()).toMatchObject({ blocked_machine: { machine: 'lab' } });
    const checked = await checkMachine(without.DB, 'lab', Date.now());
    expect(checked).toMatchObject({ failure: { kind: 'forbidden' } });
  });
});

test('an object that is overloaded is left alone', async () => {
  const through = failing('stream', ['before'], { overloaded: true, retryable: true });
  const response = await ask(through, '/v1/decisions/stream');
  expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
  expect(calls.filter((call) => call === 'stream')).toHaveLength(1);
});

test('one that stays away is a 503 that says when to come again', async () => {
  const away: Fault[] = ['before', 'before', 'before'];
  const poll = await ask(failing('stream', away), '/v1/decisions/stream');
  expect([poll.status, poll.headers.get('retry-after')]).toEqual([503, '1']);
  expect(await poll.json()).toEqual({ message: expect.stringContaining('out of reach') });
  const change = await post(failing('commit', ['after', 'before', 'before']), '/bouncers', { name: 'new' });
  expect(change.status).toBe(503);
  expect(await change.json()).toMatchObject({ detail: expect.stringContaining('is not known') });
});

test('a fault of the code is asked for once', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const response = await ask(failing('stream', ['before'], {}), '/v1/decisions/stream');
  expect([response.status, calls]).toEqual([500, ['stream']]);
});

test('a method that an object of the release before does not have is a 503', async () => {
  const older = new Proxy(feed(), { get: (stub) => (stub as unknown as { later: () => void }).later });
  const through = { ...env, DECISION_FEED: { getByName: () => older } } as unknown as Env;
  const response = await ask(through, '/v1/decisions/stream');
  expect([response.status, response.headers.get('retry-after')]).toEqual([503, '5']);
});

test('answers that were lost on their way take no change with them', async () => {
  let again = false;
  const asks = () => ({ stream: (poll: StreamAsk) => feed().stream({ ...poll, again }) });
  const client = bouncer({ asks });
  await client.pull(true);
  engine.add({ value: '192.0.2.2', untilMs: Date.now() + hour });
  await operator('POST', '/feed/sync?full=true');
  await client.pullAndLose();
  again = true;
  await client.pullAndLose();
  const values = ({ added }: { added: WireDecision[] }) => added.map(({ value }) => value);
  expect(values(await client.pull(false))).toEqual(['192.0.2.2']);
  again = false;
  expect(values(await client.pull(false))).toEqual(['192.0.2.2']);
  expect(values(await client.pull(false))).toEqual([]);
});
