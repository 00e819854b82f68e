// Everything at once, at random: an engine whose bans come and go in every way, a proxy before it that fails, stalls and
// lies, and bouncers of every kind. At rest each bouncer has what the engine has; and never, from the first answer on, does
// anybody lack a ban that was there all the time.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { login, postAlert } from '../lab/alert.ts';
import { type Chaos, chaosFrom } from '../lab/chaos.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Liar, startLiar } from '../lab/liar.ts';
import { pullList, pullStream, type StreamDecision } from '../lab/poller.ts';
import { randomFrom } from '../lab/random.ts';
import { until } from '../lab/wait.ts';

/** CHAOS_SEED repeats the choices of a run that failed elsewhere; CHAOS_SECONDS asks for more of them. */
const seed = Number(process.env['CHAOS_SEED'] ?? 20_260_731);
const seconds = Number(process.env['CHAOS_SECONDS'] ?? 60);

const scopes = 'scopes=ip,range,country,as';
const nameOf = ({ scope, type, value }: StreamDecision) => `${scope} ${type} ${value}`;

/** `restarts`: it asks for everything each time, or now and then. */
interface BouncerKind {
  dedup: boolean;
  restarts: 'always' | 'sometimes' | 'never';
  longestPauseMs: number;
}

describeWith('chaos before an engine', ['lab'], () => {
  const random = randomFrom(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const lasting = Array.from({ length: 150 }, (_, index) => `2001:db8:1::${(index + 1).toString(16)}`);
  let engine: Engine;
  let liar: Liar;
  let chaos: Chaos;
  let lapidary: Lapidary;
  let token: string;
  const stopping = new AbortController();
  const problems: string[] = [];
  const tasks: Promise<void>[] = [];

  beforeAll(async () => {
    console.log(`chaos: CHAOS_SEED=${seed} CHAOS_SECONDS=${seconds}`);
    engine = await startEngine();
    liar = await startLiar(engine);
    chaos = chaosFrom(random);
    token = await login(engine);
    await postAlert(engine, { decisions: lasting.map((value) => ({ value, duration: '24h' })) }, token);
    liar.lie(chaos.lie);
    const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
    const settings = { UPSTREAM_TIMEOUT_SECONDS: '1', RESYNC_INTERVAL_SECONDS: '5' };
    lapidary = await startLapidary({ upstream, settings });
  });
  afterAll(async () => {
    stopping.abort();
    await Promise.all(tasks);
    await lapidary?.close();
    await liar?.close();
    await engine?.close();
  });

  function startTask(task: () => Promise<unknown>, pauseMs: () => number) {
    const repeat = async () => {
      while (!stopping.signal.aborted) {
        await task().catch((error: unknown) => problems.push(String(error)));
        await delay(pauseMs(), undefined, { signal: stopping.signal }).catch(() => undefined);
      }
    };
    tasks.push(repeat());
  }

  /** A bouncer and what it enforces: by name, or each decision by its id where it asks for all of them. */
  function newBouncer(lapi: Lapi, { dedup, restarts }: BouncerKind) {
    const enforced = new Map<string | number, string>();
    const keyOf = (decision: StreamDecision) => (dedup ? nameOf(decision) : decision.id);
    let started = false;
    return {
      // By name only: Lapidary reports the ends of several decisions on one value together, with the last of them.
      enforced: () => [...new Set(enforced.values())].sort(),
      /** Whether anything was in the answer. */
      async poll(): Promise<boolean> {
        const startup = !started || restarts === 'always' || (restarts === 'sometimes' && random() < 0.1);
        const answer = await pullStream(lapi, `startup=${startup}&dedup=${dedup}&${scopes}`).catch(
          (error: unknown) => {
            // A feed that knows nothing yet says so.
            if (!started && String(error).includes('status 503')) return undefined;
            throw error;
          },
        );
        if (!answer) return false;
        started = true;
        if (startup) enforced.clear();
        for (const decision of answer.deleted ?? []) enforced.delete(keyOf(decision));
        for (const decision of answer.new ?? []) enforced.set(keyOf(decision), nameOf(decision));
        const has = new Set(enforced.values());
        const lacks = lasting.filter((value) => !has.has(`Ip ban ${value}`));
        if (lacks.length > 0) {
          const what = `${startup ? 'start-up' : 'delta'}, dedup=${dedup}`;
          problems.push(`${what}: lacks ${lacks.length} of ${lasting.length} lasting bans`);
        }
        return (answer.deleted ?? []).length + (answer.new ?? []).length > 0;
      },
      /** An answer removes one spelling of a network, and the next one another. Each goes out twice. */
      async pollToTheEnd() {
        if (restarts === 'always') return void (await this.poll());
        for (let polls = 1; await this.poll(); polls++)
          if (polls === 10) throw new Error('the feed never rests');
      },
    };
  }
  type Bouncer = ReturnType<typeof newBouncer>;

  const ask = async (method: string, path: string) => {
    const headers = { authorization: `Bearer ${token}`, 'user-agent': 'lapidary-lab/v1' };
    const answer = await fetch(`${engine.url}/v1/${path}`, { method, headers });
    // A locked database is the engine's own chaos.
    if (!answer.ok && answer.status !== 500) throw new Error(`${method} ${path}: ${answer.status}`);
    await answer.text();
  };

  /** One change at the engine. Few addresses, so that several decisions meet on one. */
  async function churn() {
    const host = `192.0.2.${Math.floor(random() * 40)}`;
    const target = pick([
      { value: host },
      { value: host },
      { value: host, type: 'captcha' },
      { value: `198.51.100.${16 * Math.floor(random() * 16)}/28`, scope: 'Range' },
      { value: pick(['FR', 'DE', 'AT']), scope: 'Country' },
    ]);
    const duration = pick(['4h', '2h', `${3 + Math.floor(random() * 6)}s`]);
    const action = random();
    if (action < 0.55) return void (await postAlert(engine, { decisions: [{ ...target, duration }] }, token));
    const which = target.scope === undefined ? `ip=${host}` : `scope=${target.scope}&value=${target.value}`;
    // The second of them deletes the rows, and no delta tells.
    await ask('DELETE', `${action < 0.8 ? 'decisions' : 'alerts'}?${which}`);
  }

  const kinds: BouncerKind[] = [true, false].flatMap((dedup) => [
    { dedup, restarts: 'never', longestPauseMs: 500 },
    { dedup, restarts: 'sometimes', longestPauseMs: 2000 },
    { dedup, restarts: 'never', longestPauseMs: 8000 },
    { dedup, restarts: 'always', longestPauseMs: 500 },
  ]);

  it(
    'leaves each bouncer with what the engine has, and never without what lasts',
    async () => {
      const bouncers: Bouncer[] = [];
      for (const [at, kind] of kinds.entries()) {
        const bouncer = newBouncer(
          { url: lapidary.url, key: await lapidary.addBouncer(`bouncer-${at}`) },
          kind,
        );
        bouncers.push(bouncer);
        startTask(bouncer.poll, () => random() * kind.longestPauseMs);
      }
      await until('the feed is fresh', async () => (await lapidary.health()).feed === 'fresh', 60_000);
      chaos.deceive();
      startTask(churn, () => random() * 300);
      await delay(seconds * 1000);

      stopping.abort();
      await Promise.all(tasks);
      liar.tellTheTruth();
      chaos.calm();
      console.log('chaos:', JSON.stringify(chaos.counts()));
      const direct = { url: engine.url, key: await engine.addBouncer('direct') };
      await until('the short bans have ended', async () =>
        (await pullList(direct)).every(({ duration }) => /^\d+h/.test(duration)),
      );
      // What a lie made up, or a doubt kept, is gone with the second list that does not have it.
      const lists = liar.answered('list') + 3;
      await until('three full lists are answered', () => liar.answered('list') >= lists, 60_000);
      const pulls = liar.asked('stream') + 2;
      await until('the rounds after have ended', () => liar.asked('stream') >= pulls);

      const truth = (await pullList(direct)).map(nameOf).sort();
      const distinct = [...new Set(truth)];
      const edge = { url: lapidary.url, key: await lapidary.addBouncer('lister') };
      expect((await pullList(edge)).map(nameOf).sort()).toEqual(truth);
      for (const [at, bouncer] of bouncers.entries()) {
        await bouncer.pollToTheEnd();
        expect(bouncer.enforced(), `bouncer ${JSON.stringify(kinds[at])}`).toEqual(distinct);
      }
      expect([...new Set(problems)].slice(0, 10)).toEqual([]);
    },
    (seconds + 240) * 1000,
  );
});
