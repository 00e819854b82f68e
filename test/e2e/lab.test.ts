// The lab proves itself: four real bouncers against a real engine, with nothing of ours between them.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { insertDecisions, lockDatabase } from '../lab/database.ts';
import { checkOutage, enforcerNames, needsOf } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { until } from '../lab/wait.ts';

describeWith('a real engine and a bouncer', ['lab'], () => {
  let engine: Engine;
  let key: string;
  beforeEach(async () => {
    engine = await startEngine();
    key = await engine.addBouncer('reader');
  });
  // The engine is undefined after a start that failed.
  afterEach(() => (engine as Engine | undefined)?.close());

  interface Item {
    value: string;
    origin: string;
    scenario: string;
    id: number;
  }
  // The same User-Agent each time: the engine writes a changed one to its database.
  const ask = (query: string) =>
    fetch(`${engine.url}/v1/decisions${query}`, { headers: { 'X-Api-Key': key, 'User-Agent': 'lab/v1' } });
  const pull = async (query = 'startup=true') => {
    const response = await ask(`/stream?${query}`);
    expect(response.status).toBe(200);
    return (await response.json()) as { new: Item[] | null; deleted: Item[] | null };
  };
  const values = (items: Item[] | null) => items?.map((item) => item.value).sort() ?? [];

  for (const name of enforcerNames) {
    describeWith(`the ${name}`, needsOf(name), () => {
      it('lives through a crash of the engine', async () => {
        const outage = { begin: engine.kill, end: engine.start };
        const addresses = { before: '192.0.2.1', after: '192.0.2.2' };
        await checkOutage(name, { url: engine.url, key }, engine, outage, addresses);
      });
    });
  }

  it('takes decisions of any origin over its machine API', async () => {
    const origins = ['crowdsec', 'CAPI', 'lists', 'cscli'];
    for (const [index, origin] of origins.entries()) {
      const value = `198.51.100.${index}`;
      await postAlert(engine, { decisions: [{ value, origin, scenario: `of ${origin}` }] });
      const shown = (await pull(`startup=true&origins=${origin}`)).new;
      expect(shown).toMatchObject([{ value, origin, scenario: `of ${origin}` }]);
    }
  });

  it('keeps simulated decisions from bouncers', async () => {
    await postAlert(engine, { simulated: true, decisions: [{ value: '198.51.100.8' }] });
    insertDecisions(engine, [{ value: '198.51.100.9', simulated: true }, { value: '198.51.100.10' }]);
    expect(values((await pull()).new)).toEqual(['198.51.100.10']);
  });

  it('finds rows written into its database by any address they cover', async () => {
    insertDecisions(engine, [{ value: '203.0.113.128/25', scope: 'Range' }, { value: '2001:db8:1::7' }]);
    const found = async (ip: string) => values((await (await ask(`?ip=${ip}`)).json()) as Item[] | null);
    expect(await found('203.0.113.200')).toEqual(['203.0.113.128/25']);
    expect(await found('203.0.113.1')).toEqual([]);
    expect(await found('2001:db8:1::7')).toEqual(['2001:db8:1::7']);
    await engine.unban('203.0.113.128/25');
    await engine.unban('2001:db8:1::7');
    expect(values((await pull()).new)).toEqual([]);
  });

  it('answers a pull only when the lock of its database is free', async () => {
    await pull();
    const lock = await lockDatabase(engine);
    let answered = false;
    const waiting = pull('startup=false').finally(() => (answered = true));
    try {
      // A look-up writes nothing, so its answer shows that the engine is well while the pull waits.
      expect((await ask('?ip=192.0.2.1')).status).toBe(200);
      expect(answered).toBe(false);
    } finally {
      await lock.release();
      await waiting;
    }
  });

  it('takes all of many bans at once, those too that its database refuses at first', async () => {
    const addresses = Array.from({ length: 40 }, (_, index) => `198.51.100.${index}`);
    let banned = false;
    const bans = Promise.all(addresses.map((value) => engine.ban(value))).finally(() => (banned = true));
    while (!banned) await pull('startup=false');
    await bans;
    expect(new Set(values((await pull()).new))).toEqual(new Set(addresses));
  });

  it('imports many decisions at once', async () => {
    const addresses = Array.from({ length: 250 }, (_, index) => `203.0.113.${index}`);
    const shared = { duration: '24h', scope: 'ip', type: 'ban', reason: 'lab' };
    await engine.importDecisions(addresses.map((value) => ({ ...shared, value })));
    expect(values((await pull()).new)).toEqual(addresses.sort());
  });

  it('comes back with an empty database that knows the same keys', async () => {
    await engine.ban('192.0.2.1');
    await engine.stop();
    await engine.emptyDatabase();
    await engine.start();
    const { new: added, deleted } = await pull();
    expect([values(added), values(deleted)]).toEqual([[], []]);
    await engine.ban('192.0.2.20');
    expect((await pull()).new).toMatchObject([{ id: 1, value: '192.0.2.20' }]);
    expect(engine.version).toMatch(/^\d+\.\d+\.\d+/);
  });
});

describeWith('an engine on a database server', ['databases'], () =>
  describe.each(['postgresql', 'mariadb'] as const)('an engine on %s', (database) => {
    let engine: Engine;
    beforeEach(async () => {
      engine = await startEngine({ database });
    });
    afterEach(() => (engine as Engine | undefined)?.close());

    it('keeps its bans there, and lets nobody in while that is down', async () => {
      const key = await engine.addBouncer('reader');
      await engine.ban('192.0.2.1');
      await postAlert(engine, { decisions: [{ value: '192.0.2.2' }] });
      const ask = () => fetch(`${engine.url}/v1/decisions`, { headers: { 'X-Api-Key': key } });
      const listed = async () =>
        ((await (await ask()).json()) as { value: string }[]).map(({ value }) => value);
      expect((await listed()).sort()).toEqual(['192.0.2.1', '192.0.2.2']);

      await engine.databaseServer!.stop();
      expect((await ask()).status).toBe(403);
      expect((await fetch(`${engine.url}/health`)).status).toBe(200);

      await engine.databaseServer!.start();
      await until('the engine has its database again', async () => (await ask()).status === 200);
      expect((await listed()).sort()).toEqual(['192.0.2.1', '192.0.2.2']);
    });
  }),
);
