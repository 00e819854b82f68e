// A real engine's own allow-lists. Engines before 1.6.6 have none, and say so; with CROWDSEC_BIN of a newer one they hold for
// what is banned elsewhere.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

describeWith('the allow-lists of an engine', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let hasLists: boolean;

  beforeAll(async () => {
    engine = await startEngine();
    const [major = 0, minor = 0, patch = 0] = engine.version.split(/[.-]/).map(Number);
    hasLists = major > 1 || minor > 6 || (minor === 6 && patch >= 6);
    if (hasLists) {
      await engine.cscli('allowlists', 'create', 'office', '-d', 'office');
      await engine.cscli('allowlists', 'add', 'office', '192.0.2.1');
      await engine.cscli('allowlists', 'add', 'office', '198.51.100.0/24', '-e', '1d');
    }
    const { login: machine, password } = engine.machine;
    const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    const settings = { UPSTREAM_ALLOWLISTS: JSON.stringify({ machine, password }) };
    lapidary = await startLapidary({ upstream, settings });
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  it('are read with its machine’s account, and withhold what operators ban', async () => {
    const status = async () => (await lapidary.feed()).engines[0].allowlists;
    await until('the allow-lists are read', async () => (await status()).state !== 'unread');
    const told = { state: hasLists ? 'ok' : 'none', entries: hasLists ? 2 : 0, skipped: 0, error: null };
    expect(await status()).toMatchObject(told);
    const ban = { value: '192.0.2.1', duration: '1h' };
    const { status: code, body } = await lapidary.operator('POST', '/decisions', ban);
    expect(code).toBe(hasLists ? 409 : 201);
    if (hasLists) expect(body.detail).toContain('office of the engine default');
    expect(lapidary.log()).not.toContain(engine.machine.password);
  });

  it('are listed', async () => {
    const { status, body } = await lapidary.operator('GET', '/allowlist/engines?engine=default&list=office');
    expect([status, body.next]).toEqual([200, null]);
    const shown = body.entries.map(({ value, expires_at: ends, ...rest }: any) => [
      value,
      ends !== null,
      rest,
    ]);
    const rest = { engine: 'default', list: 'office', holds: true };
    const office = [
      ['192.0.2.1', false, rest],
      ['198.51.100.0/24', true, rest],
    ];
    expect(shown).toEqual(hasLists ? expect.arrayContaining(office) : []);
    expect(shown).toHaveLength(hasLists ? 2 : 0);
  });
});
