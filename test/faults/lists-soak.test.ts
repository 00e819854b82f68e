// Two hundred appliances of all kinds, for long, while an engine bans and unbans, dies and comes back, and each device's key
// is rotated. None ever lacks what lasts, each has what is banned in the end, and the memory of workerd stays bounded.
import { hash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cpuSeconds } from '../bench/cpu.ts';
import { median } from '../bench/table.ts';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { kinds, startAppliance, type Appliance } from '../lab/appliances.ts';
import { startChurn, type Churn } from '../lab/churn.ts';
import { replaceCommunityList } from '../lab/database.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { pullList } from '../lab/poller.ts';
import { randomFrom } from '../lab/random.ts';
import { comeToRest, numberOf, watchMemory } from '../lab/soak.ts';
import { isHost, nameOf, readNetwork, union, without, type Span } from '../lab/spans.ts';
import { until } from '../lab/wait.ts';

const seconds = numberOf('LIST_SOAK_SECONDS', 30);
const deviceCount = numberOf('LIST_SOAK_DEVICES', 200);
const intervalSeconds = numberOf('LIST_SOAK_INTERVAL_SECONDS', 5);
const listed = 500;
const seed = 20_261_130;
const changesPerSecond = 5;
/** In ten minutes it was 338 MB at most (docs/figures.md): with room. */
const mostMegabytes = 400;
/** In the second half of a run in which memory has time to settle. */
const mostGrowth = 1.25;
const settlingSeconds = 300;

const lasting = ['203.0.113.1', '203.0.113.64/26', '2001:db8:2::1', '2001:db8:3::/48'];
const spansOf = (values: readonly string[]): Span[] => values.map((value) => readNetwork(value) as Span);

interface Device {
  name: string;
  appliance: Appliance;
  /** What of all that is banned it can have. */
  reads(span: Span): boolean;
}

function readsOf(kind: string): Device['reads'] {
  if (kind === 'sophos') return (span) => span.family === 4 && isHost(span);
  return kind === 'checkpoint' ? ({ family }) => family === 4 : () => true;
}

describeWith('two hundred appliances for long', ['lab', 'sqlite'], () => {
  let engine: Engine;
  let direct: Lapi;
  let lapidary: Lapidary;
  let churn: Churn | undefined;
  let memory: ReturnType<typeof watchMemory> | undefined;
  const devices: Device[] = [];
  /** What was ever wrong, a text of each kind with how often it came. */
  const problems: Record<string, number> = {};
  const note = (problem: string): void => void (problems[problem] = (problems[problem] ?? 0) + 1);
  const stopping = new AbortController();

  beforeAll(async () => {
    engine = await startEngine();
    const community = Array.from({ length: listed }, (_, at) => ({
      value: `2001:db8:1::${(1 + at).toString(16)}`,
      seconds: 7 * 24 * 3600,
    }));
    replaceCommunityList(engine, community);
    const decisions = lasting.map((value) => {
      return { value, scope: value.includes('/') ? 'Range' : 'Ip', duration: '24h' };
    });
    await postAlert(engine, { scenario: 'ssh-bf', decisions });
    direct = { url: engine.url, key: await engine.addBouncer('direct') };
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
    });
    await until('the feed is whole', async (saw) => {
      const { decisions } = await lapidary.feed();
      saw(decisions);
      return decisions === listed + lasting.length;
    });
    await enrol();
  });
  afterAll(async () => {
    stopping.abort();
    memory?.stop();
    await churn?.stop();
    await lapidary?.close();
    await engine?.close();
  });

  /** Every third has its networks merged. */
  async function enrol(): Promise<void> {
    const names = Object.keys(kinds);
    const bouncers: { name: string; api_key: string }[] = [];
    for (let at = 0; at < deviceCount; at++) {
      const kindName = names[at % names.length] as string;
      const kind = kinds[kindName]!;
      const key = randomBytes(16).toString('hex');
      const name = `${kindName}-${at}`;
      bouncers.push({ name, api_key: hash('sha512', key) });
      const path = at % 3 === 0 ? `${kind.path}?aggregate=1` : kind.path;
      const appliance = startAppliance(lapidary.url, { ...kind, path }, key);
      devices.push({ name, appliance, reads: readsOf(kindName) });
    }
    const { status, body } = await lapidary.operator('POST', '/bouncers/import', { bouncers });
    expect([status, body.imported]).toEqual([200, deviceCount]);
  }

  async function refresh({ name, appliance, reads }: Device): Promise<void> {
    const kind = name.replace(/-\d+$/, '');
    const before = appliance.statuses.length;
    await appliance.refresh().catch((error: unknown) => note(`${kind}: ${String(error)}`));
    for (const status of appliance.statuses.slice(before)) {
      if (![200, 304].includes(status)) note(`${kind}: ${status}`);
    }
    if (without(spansOf(lasting).filter(reads), appliance.entries()).length > 0) {
      note(`${kind}: lacks a lasting ban`);
    }
  }

  /** On its interval, spread over it. */
  async function live(device: Device, at: number): Promise<void> {
    const { signal } = stopping;
    const pause = (ms: number) => delay(ms, undefined, { signal }).catch(() => undefined);
    await pause((at / deviceCount) * intervalSeconds * 1000);
    while (!signal.aborted) {
      const startedMs = Date.now();
      await refresh(device);
      await pause(Math.max(0, intervalSeconds * 1000 - (Date.now() - startedMs)));
    }
  }

  /** Their admins rotate the keys, and type each new one in some time later. */
  async function rotate(withinMs: number): Promise<void> {
    const made: [Appliance, string][] = [];
    for (const { name, appliance } of devices) {
      const { status, body } = await lapidary.operator('POST', `/bouncers/${name}/rotate`, { grace: '5m' });
      expect(status).toBe(200);
      made.push([appliance, body.key]);
    }
    for (const [appliance, key] of made) {
      await delay(withinMs / deviceCount);
      appliance.password(key);
    }
  }

  async function truth(): Promise<Span[]> {
    const list = await pullList(direct);
    const bans = list.filter(({ type, scope }) => type === 'ban' && /^(?:Ip|Range)$/.test(scope));
    return spansOf(bans.map(({ value }) => value));
  }

  it(
    'leaves each of them with what it can have of the engine’s bans, in bounded memory',
    async () => {
      const { workerd } = await lapidary.pids();
      memory = watchMemory(workerd);
      const cpuBefore = cpuSeconds(workerd);
      const beganMs = Date.now();
      const atShare = (share: number): number => beganMs + share * seconds * 1000;
      const reached = (share: number) => delay(Math.max(0, atShare(share) - Date.now()));
      churn = startChurn([engine], { changesPerSecond, random: randomFrom(seed) });
      const living = Promise.all(devices.map(live));
      await reached(0.2);
      await rotate(0.2 * seconds * 1000);
      await reached(0.5);
      churn.leave(0);
      await engine.kill();
      await reached(0.65);
      await engine.start();
      churn.resume(0);
      await reached(1);
      await churn.stop();
      stopping.abort();
      await living;

      const statuses: Record<string, number> = {};
      for (const { appliance } of devices) {
        for (const status of appliance.statuses) statuses[status] = (statuses[status] ?? 0) + 1;
      }
      const warm = median(memory.between(atShare(0.2), atShare(0.5)));
      const late = median(memory.between(atShare(0.8), atShare(1)));
      const most = Math.max(...memory.between(atShare(0), atShare(1)));
      const cpu = cpuSeconds(workerd) - cpuBefore;
      console.log(
        `list soak of ${seconds} s, ${deviceCount} devices every ${intervalSeconds} s: ` +
          JSON.stringify({
            statuses,
            changes: churn.changes(),
            cpuSeconds: cpu,
            residentMegabytes: { warm, late, most },
          }),
      );

      await comeToRest(lapidary, [direct]);
      const banned = await truth();
      expect(without(spansOf(lasting), banned)).toEqual([]);
      await Promise.all(devices.map(refresh));
      const differing = devices.filter(({ appliance, reads }) => {
        const [due, has] = [union(banned.filter(reads)), union(appliance.entries())].map((spans) =>
          spans.map(nameOf).join(),
        );
        return due !== has;
      });
      expect(differing.map(({ name }) => name)).toEqual([]);
      expect(problems).toEqual({});
      expect(churn.problems()).toEqual([]);
      expect(churn.changes()).toBeGreaterThan(seconds);
      expect(most).toBeLessThan(mostMegabytes);
      if (seconds >= settlingSeconds) expect(late).toBeLessThan(mostGrowth * warm);
    },
    (2 * seconds + 240) * 1000,
  );
});
