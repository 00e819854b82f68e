// Torture answers: bodies of a real engine with a part cut away, a byte changed or a stretch repeated, each under
// a status of 200 and well framed. A cut one may cost nothing; of the others one may be a valid answer that says
// something else, so what it cost must be mended by the next true list.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { insertDecisions } from '../lab/database.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Liar, sendInstead, startLiar, type Subject } from '../lab/liar.ts';
import { type Poller, pullList, startPoller } from '../lab/poller.ts';

/** TORTURE_SEED repeats a run that failed elsewhere; TORTURE_RUNS asks for more of them. */
const seed = Number(process.env['TORTURE_SEED'] ?? 20_260_731);
const numRuns = Number(process.env['TORTURE_RUNS'] ?? 150);

/** No shrinking: what a mutation left behind would make every later one fail as well. */
const settings = { seed, numRuns, unbiased: true, endOnFailure: true };

type Mutation =
  | { kind: 'cut'; at: number }
  | { kind: 'change'; at: number; by: number }
  | { kind: 'repeat'; at: number; length: number; to: number };

/** Places are shares of the body's length, in millionths: fast-check's doubles are almost all next to zero. */
const share = fc.integer({ min: 0, max: 999_999 }).map((millionths) => millionths / 1e6);
const cut = fc.record({ kind: fc.constant('cut' as const), at: share });
const change = fc.record({
  kind: fc.constant('change' as const),
  at: share,
  by: fc.integer({ min: 1, max: 255 }),
});
const repeat = fc.record({
  kind: fc.constant('repeat' as const),
  at: share,
  length: fc.oneof(fc.constant(0), share),
  to: share,
});

function mutate(body: Buffer, mutation: Mutation): Buffer {
  const place = (part: number) => Math.floor(part * body.length);
  const at = place(mutation.at);
  if (mutation.kind === 'cut') return body.subarray(0, at);
  if (mutation.kind === 'change') {
    const changed = Buffer.from(body);
    changed[at]! ^= mutation.by;
    return changed;
  }
  const stretch = body.subarray(at, at + Math.max(1, place(mutation.length)));
  const to = place(mutation.to);
  return Buffer.concat([body.subarray(0, to), stretch, body.subarray(to)]);
}

describeWith('answers that were tampered with', ['lab'], () => {
  let engine: Engine;
  let liar: Liar;
  let lapidary: Lapidary;
  let edge: Lapi;
  let polling: Poller;
  let truth: string[];
  let startup: Buffer;

  beforeAll(async () => {
    engine = await startEngine();
    liar = await startLiar(engine);
    for (const host of [1, 2, 3, 4, 5, 6, 7, 8]) {
      await postAlert(engine, {
        decisions: [{ value: `192.0.2.${host}`, origin: host % 2 ? 'crowdsec' : 'cscli' }],
      });
    }
    const pulled = [1, 2, 3, 4].map((host) => ({
      value: `198.51.100.${host}`,
      origin: host % 2 ? 'CAPI' : 'lists',
    }));
    insertDecisions(engine, [
      ...pulled,
      { value: '2001:db8::/48', scope: 'Range' },
      { value: 'FR', scope: 'Country' },
    ]);
    const key = await engine.addBouncer('direct');
    truth = describeAll(await pullList({ url: engine.url, key }));
    const headers = { 'x-api-key': key, 'user-agent': 'lab/v1' };
    const whole = `${engine.url}/v1/decisions/stream?startup=true&scopes=ip,range,country`;
    startup = Buffer.from(await (await fetch(whole, { headers })).arrayBuffer());

    // Syncs when it is told to: between a tampered answer and the next true one nothing mends.
    const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
    const quiet = { SYNC_INTERVAL_SECONDS: '3600', RESYNC_INTERVAL_SECONDS: '86400' };
    lapidary = await startLapidary({ upstream, settings: quiet });
    edge = { url: lapidary.url, key: await lapidary.addBouncer('edge') };
    await lapidary.sync({ full: true });
    polling = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('polling') });
    expect(await served()).toEqual(truth);
  });
  afterAll(async () => {
    await polling?.stop();
    await lapidary?.close();
    await liar?.close();
    await engine?.close();
  });

  const describeAll = (list: Awaited<ReturnType<typeof pullList>>) =>
    list.map(({ id, origin, scope, type, value }) => `${id} ${origin} ${scope} ${type} ${value}`).sort();
  const served = async () => describeAll(await pullList(edge));

  /** One round in which one of the answers is tampered with; the stream has something to say then. */
  async function syncWith(subject: Subject, mutation: Mutation): Promise<void> {
    liar.lie(
      sendInstead(({ subject: asked, body }) => mutate(asked === 'stream' ? startup : body, mutation)),
      subject,
    );
    await lapidary.sync({ full: true });
    liar.tellTheTruth();
  }

  /** After which nothing may be left of it: a decision that was made up needs two looks to go. */
  async function expectMended(): Promise<void> {
    await lapidary.sync({ full: true });
    const missing = new Set(truth);
    for (const each of await served()) missing.delete(each);
    expect([...missing]).toEqual([]);
    await lapidary.sync({ full: true });
    expect(await served()).toEqual(truth);
  }

  it.each(['stream', 'list'] as const)('a cut %s costs nothing', async (subject) => {
    const property = fc.asyncProperty(cut, async (mutation) => {
      await syncWith(subject, mutation);
      expect(await served()).toEqual(truth);
    });
    await fc.assert(property, settings);
  });

  it.each(['stream', 'list'] as const)(
    'a %s with a changed byte or a repeated stretch is mended',
    async (subject) => {
      const property = fc.asyncProperty(fc.oneof(change, repeat), async (mutation) => {
        await syncWith(subject, mutation);
        await expectMended();
      });
      await fc.assert(property, settings);
    },
  );

  it('leaves the processes up and no poll without an answer', async () => {
    const { supervisor } = await lapidary.pids();
    expect(lapidary.log()).not.toContain('starting it again');
    expect(supervisor).toBeGreaterThan(0);
    await polling.untilAnswered(1);
    expect(polling.failures()).toEqual([]);
  });
});
