// What a receiver is told of an audit log that is not whole.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test, vi } from 'vitest';
import { addBouncer, operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { startReceiver, type Receiver } from '../support/receiver.ts';
import { delivery, makeWebhook, quiet, round } from '../support/webhooks.ts';

let ops: Receiver;

beforeEach(async () => {
  startModelEngine();
  ops = startReceiver('ops.example');
  vi.useFakeTimers({ toFake: ['Date'] });
  await makeWebhook('ops');
  for (const name of ['a', 'b', 'c']) await addBouncer(name);
  await round();
});

const types = (): string[] => ops.tries.map(({ type }) => type);

test('one that is whole is nothing to speak of, however it grows', async () => {
  for (let at = 0; at < 8; at++) {
    await addBouncer(`more-${at}`);
    await quiet(1);
  }
  await delivery();
  expect(types()).toEqual([]);
});

test('a row that was changed is told of once, with its number, and again once it was mended and changed', async () => {
  const change = (text: string) =>
    env.DB.prepare(`UPDATE audit SET target = ? WHERE seq = 3`).bind(text).run();
  const { target } = (await env.DB.prepare('SELECT target FROM audit WHERE seq = 3').first()) as any;
  await change('somebody else');
  await quiet(5);
  await ops.reaches(1);
  expect(types()).toEqual(['audit.broken']);
  expect(ops.tries[0]!.data).toEqual({ count: 1, faults: [{ seq: 3, problem: 'a row was changed' }] });
  expect((await operator('GET', '/audit/verify')).status).toBe(409);
  await quiet(10);
  await change(target);
  await quiet(5);
  expect(types()).toEqual(['audit.broken']);
  await change('somebody else');
  await quiet(5);
  await ops.reaches(2);
});

test('an end that was cut off is told of', async () => {
  await quiet(2);
  await env.DB.prepare('DELETE FROM audit WHERE seq > 2').run();
  await quiet(5);
  await ops.reaches(1);
  expect(ops.tries[0]!.type).toBe('audit.broken');
});
