// Two engines behind one Lapidary: what either decides reaches every bouncer, a value is free when neither bans it, and
// one that is gone takes nothing along.
import { get } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { remoteCscli, startAgent } from '../lab/agent.ts';
import { login } from '../lab/alert.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { pullStream, startPoller, valuesOf, type Poller } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

describeWith('two engines', ['lab'], () => {
  let first: Engine;
  let second: Engine;
  let lapidary: Lapidary;
  let poller: Poller;

  beforeAll(async () => {
    [first, second] = await Promise.all([startEngine(), startEngine()]);
    const key = await second.addBouncer('lapidary');
    const paris = { name: 'paris', url: second.url, key, hosts: ['paris.lapi.example'] };
    lapidary = await startLapidary({
      upstream: { url: first.url, key: await first.addBouncer('lapidary') },
      settings: { UPSTREAMS: JSON.stringify([paris]), UPSTREAM_TIMEOUT_SECONDS: '2' },
    });
    poller = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('poller') });
  });
  afterAll(async () => {
    await poller?.stop();
    await lapidary?.close();
    await Promise.all([first?.close(), second?.close()]);
  });

  const engineNamed = async (name: string) =>
    (await lapidary.feed()).engines.find((engine: { name: string }) => engine.name === name);
  const all = async (url: string, key: string) =>
    (await pullStream({ url, key }, 'startup=true&scopes=ip,range,country,as')).new ?? [];

  it('reach a bouncer as one list, under ids that no two decisions share', async () => {
    await Promise.all([first.ban('192.0.2.1'), second.ban('198.51.100.1'), second.ban('2001:db8::/48')]);
    await poller.untilHas({ banned: ['192.0.2.1', '198.51.100.1', '2001:db8::/48'] });
    const list = await all(lapidary.url, await lapidary.addBouncer('ids'));
    const ids = list.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.every((id) => Number.isInteger(id) && id > 0 && id < 2 ** 31)).toBe(true);
    const listed = (await lapidary.operator('GET', '/decisions')).body.decisions;
    const engines = listed.map(({ value, engine }: Record<string, string>) => [value, engine]);
    expect(Object.fromEntries(engines)).toEqual({
      '192.0.2.1': 'default',
      '198.51.100.1': 'paris',
      '2001:db8::/48': 'paris',
    });
  });

  it('free a value when neither bans it any more', async () => {
    await first.ban('192.0.2.2', { duration: '4h' });
    await second.ban('192.0.2.2', { duration: '2h' });
    await until('both are mirrored', async () => {
      const { decisions } = (await lapidary.operator('GET', '/decisions')).body;
      return decisions.filter(({ value }: { value: string }) => value === '192.0.2.2').length === 2;
    });
    await poller.untilHas({ banned: ['192.0.2.2'] });
    const since = poller.answers();
    await first.unban('192.0.2.2');
    await first.ban('192.0.2.3');
    // Later at the same engine, and seen: then so was the unban.
    await poller.untilHas({ banned: ['192.0.2.3'] });
    await poller.untilAnswered(2);
    expect(poller.lacked(['192.0.2.2'], since)).toEqual([]);
    expect(poller.ended()).not.toContain('192.0.2.2');
    await second.unban('192.0.2.2');
    await poller.untilHas({ free: ['192.0.2.2'] });
  });

  it('are chosen by a bouncer’s view, or by the address that it asks at', async () => {
    await lapidary.ban('203.0.113.9');
    const key = await lapidary.addBouncer('parisian');
    expect(valuesOf(await all(`${lapidary.url}/engines/paris`, key)).sort()).toEqual(
      ['198.51.100.1', '2001:db8::/48', '203.0.113.9'].sort(),
    );
    expect(valuesOf(await all(lapidary.url, key))).toContain('192.0.2.1');
    const limit = (engines: string[]) =>
      lapidary.operator('PATCH', '/bouncers/parisian', { view: { engines } }, { 'if-match': '*' });
    expect(await limit(['nowhere'])).toMatchObject({
      status: 400,
      body: { errors: [{ field: 'view.engines' }] },
    });
    expect((await limit(['default'])).status).toBe(200);
    await until('the view holds', async () => {
      const values = valuesOf(await all(lapidary.url, key));
      return values.sort().join() === '192.0.2.1,192.0.2.3,203.0.113.9';
    });
    // Where it asks and what it may have.
    expect(valuesOf(await all(`${lapidary.url}/engines/paris`, key))).toEqual(['203.0.113.9']);
    await lapidary.unban('203.0.113.9');
  });

  it('have machines of their own, by host name', async () => {
    const token = await login(second);
    // Not fetch: it has a Host of its own.
    const beat = (host: string) =>
      new Promise((resolve, reject) => {
        const headers = { host, authorization: `Bearer ${token}`, 'user-agent': 'crowdsec/v1' };
        const asked = get(`${lapidary.url}/v1/heartbeat`, { headers }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        });
        asked.on('error', reject);
      });
    expect(await beat('paris.lapi.example')).toBe(200);
    expect(await beat('Paris.LAPI.example:443')).toBe(200);
    // The other engine has not signed this token.
    expect(await beat('lapi.example')).toBe(401);
  });

  it('have machines of their own, by path; who names none is at the first', async () => {
    const paris = await remoteCscli(second, { url: `${lapidary.url}/engines/paris/`, ...second.machine });
    await paris('decisions', 'add', '-i', '198.51.100.7', '-d', '4h');
    await poller.untilHas({ banned: ['198.51.100.7'] });
    expect(await second.cscli('decisions', 'list')).toContain('198.51.100.7');
    expect(await first.cscli('decisions', 'list')).not.toContain('198.51.100.7');
    const plain = await remoteCscli(first, { url: lapidary.url, ...first.machine });
    await plain('decisions', 'add', '-i', '192.0.2.7', '-d', '4h');
    expect(await first.cscli('decisions', 'list')).toContain('192.0.2.7');
    // Each engine knows its own only.
    const astray = await remoteCscli(second, { url: lapidary.url, ...second.machine });
    await expect(astray('decisions', 'add', '-i', '198.51.100.8', '-d', '4h')).rejects.toThrow();
    const nowhere = await fetch(`${lapidary.url}/engines/nowhere/v1/heartbeat`);
    expect([nowhere.status, await nowhere.json()]).toEqual([404, { message: 'engine nowhere not found' }]);
  });

  it('one killed: its bans stay, the other’s go on coming, and its own when it is back', async () => {
    const agent = await startAgent({ url: `${lapidary.url}/engines/paris/`, ...second.machine });
    try {
      await first.kill();
      await until('its loss is seen', async (saw) => {
        const engine = await engineNamed('default');
        saw(engine);
        return engine.state === 'failing' && engine.freshness === 'stale';
      });
      await agent.attackFrom('203.0.113.70');
      await second.unban('198.51.100.1');
      await poller.untilHas({
        banned: ['192.0.2.1', '192.0.2.7', '203.0.113.70'],
        free: ['198.51.100.1'],
      });
      expect(await engineNamed('paris')).toMatchObject({ state: 'ok', freshness: 'fresh' });
      expect(await lapidary.health()).toMatchObject({
        feed: 'stale',
        engines: { fresh: 1, stale: 1, cold: 0 },
      });
      expect(poller.ended()).not.toContain('192.0.2.1');
      await first.start();
      await first.unban('192.0.2.1');
      await poller.untilHas({ free: ['192.0.2.1'] });
      expect(poller.failures()).toEqual([]);
      // Back from an old copy it is doubted alone.
      await second.stop();
      const copy = await second.copyDatabase();
      await second.start();
      await second.ban('198.51.100.20');
      await poller.untilHas({ banned: ['198.51.100.20'] });
      await second.stop();
      await copy.restore();
      await second.start();
      await first.unban('192.0.2.7');
      await poller.untilHas({ free: ['192.0.2.7'], banned: ['203.0.113.70'] });
    } finally {
      await agent.close();
    }
  });
});
