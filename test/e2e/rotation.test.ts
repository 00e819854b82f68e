// A real bouncer through the life of its key: create, rotate, restart with the new key, the old one's grace over. A
// witness between the two notes every answer, and bans and unbans go on all the while.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startCustomBouncer, type CustomBouncer } from '../lab/custom-bouncer.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import { startWitness, type Witness } from '../lab/witness.ts';

describeWith('the custom bouncer', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let witness: Witness;
  let bouncer: CustomBouncer | undefined;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('edge') },
      // An engine's delta may lose a change: then the full list has it soon.
      settings: { RESYNC_INTERVAL_SECONDS: '10' },
    });
    witness = await startWitness(lapidary.url);
  });
  afterAll(async () => {
    await bouncer?.close();
    await witness?.close();
    await lapidary?.close();
    await engine?.close();
  });

  test('is never refused, and misses no decision, through a rotation', async () => {
    const first = await lapidary.addBouncer('web');
    const running = await startCustomBouncer({ url: witness.url, key: first });
    bouncer = running;
    /** Every decision that was made, in order, as the bouncer's script is to be called. */
    const expected: string[] = [];
    const told = () => running.events().map(({ action, value }) => `${action} ${value}`);
    let last = 0;
    const ban = async () => {
      const value = `192.0.2.${++last}`;
      await engine.ban(value);
      expected.push(`add ${value}`);
    };
    const unban = async (value: string) => {
      await engine.unban(value);
      expected.push(`del ${value}`);
    };
    const toldAll = (when: string) =>
      until(`the bouncer was told all, ${when}`, (saw) => {
        saw([told(), running.log().slice(-500)]);
        return expected.every((call) => told().includes(call));
      });
    const state = async (number: number): Promise<string | undefined> => {
      const { key_versions: versions } = (await lapidary.operator('GET', '/bouncers/web')).body;
      return versions.find((version: { number: number }) => version.number === number)?.state;
    };
    /** As a host asks, past the witness; a HEAD moves nothing. */
    const isGood = async (key: string): Promise<boolean> => {
      const init = { method: 'HEAD', headers: { 'x-api-key': key } };
      return (await fetch(`${lapidary.url}/v1/decisions`, init)).ok;
    };
    const answers = (key: string) => witness.seen().filter((each) => each.key === key);

    await ban();
    await toldAll('with its first key');
    const { status, body } = await lapidary.operator('POST', '/bouncers/web/rotate', { grace: '3s' });
    expect(status).toBe(200);
    await ban();
    await unban('192.0.2.1');
    await toldAll('with its first key, rotated');
    expect(await state(1)).toBe('current');

    // What is decided while it is down, and what Lapidary has before it comes back.
    await running.stop();
    await ban();
    await unban('192.0.2.2');
    await lapidary.sync();
    await running.restart(body.key);
    await toldAll('after its restart with the new key');
    expect([await state(1), await state(2)]).toEqual(['previous', 'current']);

    // Decisions go on within the grace, over its end, and after it.
    await until('the grace of the old key is over', async () => {
      await ban();
      return (await isGood(first)) === false;
    });
    expect(await isGood(body.key)).toBe(true);
    await ban();
    await unban('192.0.2.3');
    await toldAll('with the grace over');

    // Nothing else was told (a restart may repeat a call), and what it enforces is what is banned.
    expect(new Set(told())).toEqual(new Set(expected));
    const left = expected.filter((call) => call.startsWith('add ')).map((call) => call.slice(4));
    const free = ['192.0.2.1', '192.0.2.2', '192.0.2.3'];
    expect(running.active()).toEqual(new Set(left.filter((value) => !free.includes(value))));

    await running.stop();
    for (const key of [first, body.key]) {
      expect(new Set(answers(key).map((each) => each.status))).toEqual(new Set([200]));
    }
    expect(witness.seen().every(({ key }) => [first, body.key].includes(key))).toBe(true);
    // The old key is refused now, and the witness does see a refusal.
    await fetch(`${witness.url}/v1/decisions/stream`, { headers: { 'x-api-key': first } });
    expect(answers(first).at(-1)?.status).toBe(403);
    expect((await lapidary.operator('GET', '/audit/verify')).body.ok).toBe(true);
    expect(await lapidary.leaks()).toEqual([]);
  });
});
