// Who has been sent a decision, as an operator reads it: by the polls that bouncers really made.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

const untilMs = Date.now() + 3_600_000;
const nobody = { twice: 0, once: 0, not_yet: 0, never: 0 };
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

const sync = () => operator('POST', '/feed/sync?full=true');
const start = (key: string, init = {}) => asBouncer(key, '/v1/decisions/stream?startup=true', init);
const poll = (key: string, init = {}) => asBouncer(key, '/v1/decisions/stream', init);
const ban = (value: string) => operator('POST', '/decisions', { value, duration: '1h' });
const patch = (name: string, body: object) =>
  call(`/api/v1/bouncers/${name}`, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify(body),
  });

async function sent(query: string): Promise<any> {
  const { status, body } = await operator('GET', `/decisions/sent${query}`);
  expect([query, status]).toEqual([query, 200]);
  return body;
}

/** Name → what it was sent of the first decision. */
async function sentOf(value: string): Promise<Record<string, any>> {
  const { bouncers } = await sent(`?value=${value}`);
  return Object.fromEntries(bouncers.map(({ name, decisions }: any) => [name, decisions[0]]));
}

describe('a bouncer that follows the stream', () => {
  test('has been sent a ban not yet, once, twice; what was there at its start-up counts at once', async () => {
    const key = await addBouncer('fw');
    engine.add({ value: '192.0.2.1', untilMs });
    await sync();
    await start(key);
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({ sent: 'twice', why: [] });
    await ban('192.0.2.2');
    const steps = [];
    for (let polls = 0; polls < 3; polls++) {
      const { fw } = await sentOf('192.0.2.2');
      steps.push([fw.sent, fw.clients]);
      await poll(key);
    }
    expect(steps).toEqual([
      ['not-yet', { ...nobody, not_yet: 1 }],
      ['once', { ...nobody, once: 1 }],
      ['twice', { ...nobody, twice: 1 }],
    ]);
    expect((await sent('?value=192.0.2.2')).bouncers).toMatchObject([
      { name: 'fw', refused: null, clients: 1, last_pull: expect.any(String) },
    ]);
  });

  test('is never sent what the allow-list withholds, and the entry is named', async () => {
    const key = await addBouncer('fw');
    await addBouncer('new');
    await ban('192.0.2.1');
    await start(key);
    const allowed = await operator('POST', '/allowlist', { value: '192.0.2.0/30', comment: 'office' });
    const { decisions } = await sent('?value=192.0.2.1');
    expect(decisions[0].withheld_by).toMatchObject({ id: allowed.body.entry.id, value: '192.0.2.0/30' });
    expect(await sentOf('192.0.2.1')).toMatchObject({
      fw: { sent: 'never', why: ['allow-list'] },
      new: { sent: 'never', why: ['allow-list'] },
    });
    await operator('DELETE', `/allowlist/${allowed.body.entry.id}`);
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({ sent: 'not-yet', why: [] });
  });

  test('is told of by each decision that covers the address, from which engine, until when', async () => {
    const key = await addBouncer('fw');
    engine.add({ value: '192.0.2.0/24', scenario: 'a range', untilMs });
    await sync();
    await start(key);
    await ban('192.0.2.1');
    const { decisions, more_decisions, bouncers } = await sent('?value=192.0.2.1');
    expect(more_decisions).toBe(false);
    expect(decisions).toMatchObject([
      { value: '192.0.2.0/24', scenario: 'a range', engine: 'default', until: expect.any(String) },
      { value: '192.0.2.1', engine: null },
    ]);
    expect(bouncers[0].decisions.map((each: any) => [each.id, each.sent])).toEqual([
      [decisions[0].id, 'twice'],
      [decisions[1].id, 'not-yet'],
    ]);
    expect((await sent('?value=192.0.2.1&scope=range')).decisions).toHaveLength(1);
  });

  test('gets the longest of several decisions on one text: that one counts', async () => {
    const key = await addBouncer('fw');
    engine.add({ value: '192.0.2.1', untilMs });
    engine.add({ value: '192.0.2.1', scenario: 'longer', untilMs: untilMs + 1_000 });
    await sync();
    await start(key);
    const { decisions, bouncers } = await sent('?value=192.0.2.1');
    expect(bouncers[0].decisions).toMatchObject([
      { sent: 'twice', instead: decisions[1].id },
      { sent: 'twice', instead: null },
    ]);
  });

  test('with several clients is as far as the one that is furthest behind', async () => {
    const key = await addBouncer('fw');
    await sync();
    const [one, other] = ['192.0.2.101', '192.0.2.102'].map((address) => ({
      headers: { 'cf-connecting-ip': address },
    }));
    await start(key, one);
    await start(key, other);
    await ban('192.0.2.1');
    for (let polls = 0; polls < 2; polls++) await poll(key, one);
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({
      sent: 'not-yet',
      clients: { ...nobody, twice: 1, not_yet: 1 },
    });
  });
});

describe('what is never sent', () => {
  test('is left out by what a bouncer asks for, or by its limits, and it is said which', async () => {
    const asks = await addBouncer('asks');
    const limited = await addBouncer('limited');
    await patch('limited', {
      view: { origins: ['crowdsec'], scenarios_not_containing: ['manual'], engines: ['default'] },
    });
    await sync();
    await asBouncer(asks, '/v1/decisions/stream?startup=true&origins=CAPI&scopes=range');
    await start(limited);
    await ban('192.0.2.1');
    expect(await sentOf('192.0.2.1')).toMatchObject({
      asks: { sent: 'never', why: ['request.scopes', 'request.origins'], clients: { never: 1 } },
      limited: { sent: 'never', why: ['view.origins', 'view.scenarios_not_containing'] },
    });
    engine.add({ value: 'FR', scope: 'Country', origin: 'crowdsec', untilMs });
    await sync();
    expect((await sentOf('fr'))['limited']).toMatchObject({ sent: 'never', why: ['request.scopes'] });
  });

  test('does not fit beside what a device with a small table has', async () => {
    const key = await addBouncer('small');
    await patch('small', { view: { max_decisions: 1 } });
    engine.add({ value: '192.0.2.1', origin: 'CAPI', untilMs });
    engine.add({ value: '192.0.2.2', origin: 'CAPI', untilMs: untilMs + 60_000 });
    await sync();
    await start(key);
    expect((await sentOf('192.0.2.2'))['small']).toMatchObject({ sent: 'twice', why: [] });
    expect((await sentOf('192.0.2.1'))['small']).toMatchObject({
      sent: 'never',
      why: ['view.max_decisions'],
    });
  });

  test('was sent all the same before the limits changed: then both are said', async () => {
    const key = await addBouncer('fw');
    engine.add({ value: '192.0.2.1', origin: 'CAPI', untilMs });
    await sync();
    await start(key);
    await patch('fw', { view: { origins: ['crowdsec'] } });
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({ sent: 'twice', why: ['view.origins'] });
    await poll(key);
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({ sent: 'never', why: ['view.origins'] });
    await patch('fw', { view: null });
    expect((await sentOf('192.0.2.1'))['fw']).toMatchObject({ sent: 'not-yet', why: [] });
  });

  test('is kept from a bouncer that is paused, or without a valid key; what it had before stays said', async () => {
    const [paused, revoked, expired] = [
      await addBouncer('paused'),
      await addBouncer('revoked'),
      (await operator('POST', '/bouncers', { name: 'expired', expires_in: '1h' })).body.key,
    ];
    engine.add({ value: '192.0.2.1', untilMs: untilMs + 24 * 3_600_000 });
    await sync();
    for (const key of [paused, revoked, expired]) await start(key);
    await patch('paused', { paused: true });
    await operator('POST', '/bouncers/revoked/versions/1/revoke');
    await operator('POST', '/decisions', { value: '192.0.2.2', duration: '1d' });
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_001 });
    expect(await sentOf('192.0.2.2')).toMatchObject({
      paused: { sent: 'never', why: ['paused'] },
      revoked: { sent: 'never', why: ['no-valid-key'] },
      expired: { sent: 'never', why: ['no-valid-key'] },
    });
    const { bouncers } = await sent('?value=192.0.2.1');
    expect(bouncers.map(({ refused, decisions }: any) => [refused, decisions[0].sent])).toEqual([
      ['paused', 'twice'],
      ['no-valid-key', 'twice'],
      ['no-valid-key', 'twice'],
    ]);
  });
});

test('a bouncer that looks up asks for itself, and of one that was never seen nothing is known', async () => {
  const key = await addBouncer('looks-up');
  await addBouncer('away');
  await addBouncer('blind');
  await patch('blind', { view: { origins: ['CAPI'] } });
  engine.add({ value: '192.0.2.1', untilMs });
  await sync();
  await asBouncer(key, '/v1/decisions?ip=192.0.2.1');
  expect(await sentOf('192.0.2.1')).toMatchObject({
    'looks-up': { sent: 'asks', why: [], clients: nobody },
    away: { sent: 'unknown', why: [], clients: nobody },
    blind: { sent: 'never', why: ['view.origins'], clients: nobody },
  });
});

test('bouncers come in pages; without a decision there is nobody to name', async () => {
  for (const name of ['a', 'b', 'c']) await addBouncer(name);
  expect(await sent('?value=192.0.2.1')).toEqual({
    decisions: [],
    more_decisions: false,
    bouncers: [],
    next: null,
  });
  await ban('192.0.2.1');
  const names: string[] = [];
  for (let next: number | null = 0; next !== null;) {
    const page: any = await sent(`?value=192.0.2.1&limit=2&after=${next}`);
    names.push(...page.bouncers.map(({ name }: { name: string }) => name));
    next = page.next;
  }
  expect(names).toEqual(['a', 'b', 'c']);
});

test('bouncers are narrowed to those with a part of a name, page by page', async () => {
  for (const name of ['web-1', 'db-1', 'WEB-2', 'old-web']) await addBouncer(name);
  await ban('192.0.2.1');
  const named = async (query: string) => {
    const { bouncers, next } = await sent(`?value=192.0.2.1&${query}`);
    return [bouncers.map(({ name }: { name: string }) => name), next === null];
  };
  expect(await named('bouncer=web')).toEqual([['web-1', 'WEB-2', 'old-web'], true]);
  expect(await named('bouncer=Web-1')).toEqual([['web-1'], true]);
  const { bouncers, next } = await sent('?value=192.0.2.1&bouncer=web&limit=2');
  expect(bouncers).toHaveLength(2);
  expect(await named(`bouncer=web&limit=2&after=${next}`)).toEqual([['old-web'], true]);
  // No character of it stands for others.
  for (const text of ['%25', '*', 'web_1', 'w.b']) {
    expect([text, ...(await named(`bouncer=${text}`))]).toEqual([text, [], true]);
  }
});

test.each([
  ['value', ''],
  ['value', '?value='],
  ['value', '?value=192.0.2.300'],
  ['scope', '?value=x&scope='],
  ['type', '?value=192.0.2.1&type=ban'],
  ['limit', '?value=192.0.2.1&limit=0'],
  ['bouncer', '?value=192.0.2.1&bouncer='],
  ['bouncer', `?value=192.0.2.1&bouncer=${'x'.repeat(257)}`],
])('refuses %s (%s)', async (field, query) => {
  const { status, body } = await operator('GET', `/decisions/sent${query}`);
  expect([status, body.errors[0].field]).toEqual([400, field]);
});
