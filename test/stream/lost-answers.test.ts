// One answer that is lost, at the moments at which it is least known what a bouncer has: it keeps nothing that ended, and
// lacks nothing.
import { runDurableObjectAlarm } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bouncer as model, everything, feed, limitsOf, type BouncerOptions } from '../support/bouncer.ts';
import { letObjectDie } from '../support/death.ts';
import { operator } from '../support/http.ts';
import { startModelEngine, type ModelDecision, type ModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  engine = startModelEngine();
});

/** One that polls every 10 s. */
function bouncer(options: BouncerOptions) {
  const client = model(options);
  const waited = <T>(poll: () => Promise<T>) => {
    vi.setSystemTime(Date.now() + 10_000);
    return poll();
  };
  return {
    ...client,
    pull: (startup = false) => waited(() => client.pull(startup)),
    pullAndLose: (startup = false) => waited(() => client.pullAndLose(startup)),
    async rest(): Promise<string[]> {
      // Its limits are long known everywhere by the second of these.
      await waited(() => client.pull(false));
      await waited(() => client.pullAll());
      return client.banned();
    },
  };
}

const sync = () => feed().sync({ full: true, force: true });
async function ban(value: string, hours: number, more: Partial<ModelDecision> = {}): Promise<void> {
  engine.add({ value, untilMs: Date.now() + hours * hour, ...more });
  await sync();
}
async function unban(value: string): Promise<void> {
  for (const row of engine.active()) if (row.value === value) engine.expire(row.id);
  await sync();
}

const [first, second] = ['192.0.2.1', '192.0.2.2'];
const one = limitsOf({ maxDecisions: 1 });
const ofX = limitsOf({ scenariosContaining: ['x'] });
const ofY = limitsOf({ scenariosContaining: ['y'] });

/** A bouncer whose place is in storage, and that has had one answer since. */
async function aheadOfStorage(): Promise<ReturnType<typeof bouncer>> {
  const client = bouncer({ view: { ...everything, limits: one } });
  await ban(first, 5);
  await client.pull(true);
  await runDurableObjectAlarm(feed());
  await ban(second, 10);
  await client.pull();
  expect(await client.rest()).toEqual([second]);
  return client;
}

describe('under a cap', () => {
  test('the first one after the object died: what ended goes, and what it stood before comes back', async () => {
    const client = await aheadOfStorage();
    await letObjectDie();
    await unban(second);
    await client.pullAndLose();
    expect(await client.rest()).toEqual([first]);
  });

  test('the first one after the object died, of one that may have had any of 51 others: all of its list, twice', async () => {
    const client = bouncer({ view: { ...everything, limits: limitsOf({ maxDecisions: 2 }) } });
    await ban(first, 200);
    await client.pull(true);
    await runDurableObjectAlarm(feed());
    for (let at = 1; at <= 52; at++) {
      await ban(`198.51.100.${at}`, at);
      await client.pull();
    }
    await letObjectDie();
    await unban('198.51.100.52');
    await client.pullAndLose();
    const { added } = await client.pull();
    expect(added.map(({ value }) => value).sort()).toEqual([first, '198.51.100.51']);
    expect(await client.rest()).toEqual([first, '198.51.100.51']);
  });

  test('one for a question that was asked again', async () => {
    let again = false;
    const asks = () => ({ stream: (ask: object) => feed().stream({ ...ask, again } as never) });
    const client = bouncer({ view: { ...everything, limits: one }, asks: asks as BouncerOptions['asks'] });
    await ban(first, 5);
    await client.pull(true);
    await client.rest();
    await unban(first);
    await ban(second, 5);
    await client.pull();
    await unban(second);
    again = true;
    await client.pullAndLose();
    again = false;
    expect(await client.rest()).toEqual([]);
  });

  test('none, but the object died after an entry of the allow-list went, by which another had what it has now', async () => {
    const view = { ...everything, limits: one };
    await ban(second, 5);
    await bouncer({ view: { ...view, bouncer: 'vpn-1' }, bouncerId: 1 }).pull(true);
    const entry = { value: '203.0.113.9', comment: 'x', bouncers: ['web-1'] };
    const { body } = await operator('POST', '/allowlist', entry);
    await ban(first, 10);
    const client = bouncer({ view: { ...view, bouncer: 'web-1' }, bouncerId: 2 });
    await client.pull(true);
    await client.rest();
    await runDurableObjectAlarm(feed());
    await operator('DELETE', `/allowlist/${body.entry.id}`);
    await unban(first);
    expect(await client.rest()).toEqual([second]);
    await letObjectDie();
    await unban(second);
    expect(await client.rest()).toEqual([]);
  });
});

describe('after other limits', () => {
  test.each([
    ['others', ofX, ofY],
    ['others, with a cap', limitsOf({ ...ofX, maxDecisions: 1 }), limitsOf({ ...ofY, maxDecisions: 1 })],
    ['none any more', limitsOf({ ...ofX, maxDecisions: 1 }), null],
    ['a higher cap', one, limitsOf({ maxDecisions: 2 })],
  ])('%s, the second one', async (_, before, after) => {
    const client = bouncer({ view: { ...everything, limits: before } });
    await ban(first, 8, { scenario: 'x' });
    await ban(second, 5, { scenario: 'y' });
    await client.pull(true);
    expect(await client.rest()).toEqual([first]);
    client.limit(after);
    await client.pull();
    expect(client.banned()).toContain(second);
    await unban(second);
    await client.pullAndLose();
    expect(await client.rest()).not.toContain(second);
  });

  test('and the old ones again', async () => {
    const client = bouncer({ view: { ...everything, limits: ofX } });
    await ban(first, 8, { scenario: 'x' });
    await client.pull(true);
    await client.rest();
    client.limit(ofY);
    await client.pull();
    expect(client.banned()).toEqual([]);
    client.limit(ofX);
    await client.pullAndLose();
    expect(await client.rest()).toEqual([first]);
  });

  test('that came after a start-up was cut off, and before the object died', async () => {
    let isCut = false;
    const asks = () => ({
      stream: async (ask: never) => {
        const answer = (await feed().stream(ask)) as { body: ReadableStream | null };
        if (!isCut) return answer;
        await answer.body?.cancel();
        return { body: null, gzip: false };
      },
    });
    const client = bouncer({ view: { ...everything, limits: ofX }, asks: asks as BouncerOptions['asks'] });
    for (let at = 1; at <= 250; at++) {
      engine.add({ value: `198.51.100.${at}`, scenario: 'x', untilMs: Date.now() + 10 * hour });
    }
    await sync();
    await client.pull(true);
    await client.rest();
    await runDurableObjectAlarm(feed());
    isCut = true;
    await client.pullAndLose(true);
    isCut = false;
    client.limit(ofY);
    await ban(second, 8, { scenario: 'y' });
    expect(await client.rest()).toEqual([second]);
    await letObjectDie();
    await unban(second);
    expect(await client.rest()).toEqual([]);
  });
});
