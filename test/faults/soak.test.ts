// Many bouncers, for long, on a feed that moves: most see little of it, some see all. Two engines ban and unban, the
// community list of one is replaced, the other one is killed and comes back with an older database, and now and then a
// bouncer loses an answer. No poll fails, none ever lacks what lasts, at rest each has what the engines have, and the memory
// of workerd stays where it was.
import { hash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cpuSeconds } from '../bench/cpu.ts';
import { median } from '../bench/table.ts';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { type Churn, startChurn } from '../lab/churn.ts';
import { replaceCommunityList } from '../lab/database.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Fleet, type FleetMember, type Held, nameOf, startFleet } from '../lab/fleet.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { pullList } from '../lab/poller.ts';
import { randomFrom } from '../lab/random.ts';
import { comeToRest, numberOf, watchMemory } from '../lab/soak.ts';
import { until } from '../lab/wait.ts';

/** The whole: SOAK_SECONDS=3600 SOAK_BOUNCERS=10000 SOAK_INTERVAL_SECONDS=60 SOAK_DECISIONS=50000. */
const seconds = numberOf('SOAK_SECONDS', 40);
const bouncerCount = numberOf('SOAK_BOUNCERS', 500);
const intervalSeconds = numberOf('SOAK_INTERVAL_SECONDS', 2);
const listed = numberOf('SOAK_DECISIONS', 5000);
const seed = numberOf('SOAK_SEED', 20_261_129);

/** One in fifty holds everything. */
const shareOfAll = 50;
const changesPerSecond = 10;
const connections = 64;
const addressHeader = 'x-lab-address';
/** What may come to be held in an hour: tombstones, and what V8 has not yet given back. */
const mostGrowth = 1.25;
/** In one call of the API. */
const mostImported = 1000;

interface Kind extends Pick<FleetMember, 'name' | 'query' | 'sees'> {
  /** Its limits, if its policy has any. */
  view?: Record<string, unknown>;
}

const allScopes = 'scopes=ip,range,country,as';
const isAddress = ({ scope }: Held): boolean => scope === 'Ip' || scope === 'Range';

const everything: readonly Kind[] = [
  { name: 'bouncer of all scopes', query: allScopes, sees: () => true },
  { name: 'bouncer of all addresses', query: '', sees: isAddress },
];

/** None of them sees more than a hundred decisions. */
const limited: readonly Kind[] = [
  {
    name: 'bouncer limited to countries',
    view: { scopes: ['Country'] },
    query: allScopes,
    sees: ({ scope }) => scope === 'Country',
  },
  {
    name: 'bouncer limited to what cscli bans',
    view: { origins: ['cscli'] },
    query: '',
    sees: (held) => held.origin === 'cscli' && isAddress(held),
  },
  {
    name: 'bouncer limited to one engine and origin',
    view: { engines: ['oslo'], origins: ['crowdsec'] },
    query: allScopes,
    sees: ({ engine, origin }) => engine === 'oslo' && origin === 'crowdsec',
  },
  {
    name: 'bouncer limited to scenarios',
    view: { scenarios_containing: ['http'] },
    query: allScopes,
    sees: ({ scenario }) => scenario.includes('http'),
  },
  { name: 'bouncer that asks for networks', query: 'scopes=as', sees: ({ scope }) => scope === 'AS' },
  { name: 'bouncer that asks for lists', query: 'origins=lists', sees: ({ origin }) => origin === 'lists' },
  {
    name: 'bouncer that asks for captchas',
    query: 'type=captcha',
    sees: (held) => held.type === 'captcha' && isAddress(held),
  },
  {
    name: 'bouncer that asks for every ban of an origin',
    query: 'origins=crowdsec&dedup=false',
    sees: (held) => held.origin === 'crowdsec' && isAddress(held),
  },
];

/** One of each kind that there is, for either engine. */
const lastingOn = (engine: string, at: number): Held[] => [
  { engine, origin: 'crowdsec', scenario: 'ssh-bf', scope: 'Ip', type: 'ban', value: `203.0.113.${at}` },
  {
    engine,
    origin: 'crowdsec',
    scenario: 'http',
    scope: 'Ip',
    type: 'captcha',
    value: `203.0.113.${10 + at}`,
  },
  { engine, origin: 'lists', scenario: 'firehol', scope: 'Ip', type: 'ban', value: `203.0.113.${20 + at}` },
  {
    engine,
    origin: 'cscli',
    scenario: 'manual',
    scope: 'Range',
    type: 'ban',
    value: `203.0.113.${32 * (1 + at)}/27`,
  },
  { engine, origin: 'cscli', scenario: 'manual', scope: 'Country', type: 'ban', value: `X${'AB'[at]}` },
  { engine, origin: 'crowdsec', scenario: 'http', scope: 'AS', type: 'ban', value: String(65_536 + at) },
];

/** A community list: of two after each other, two thirds of the values are the same. */
const communityList = (generation: number) =>
  Array.from({ length: listed }, (_, at) => {
    const number = Math.floor((generation * listed) / 3) + at;
    return { value: `2001:db8:1::${(1 + number).toString(16)}`, seconds: 7 * 24 * 3600 };
  });

describeWith('many bouncers for long', ['lab', 'sqlite'], () => {
  const names = ['default', 'oslo'] as const;
  const lasting = names.flatMap(lastingOn);
  let engines: Engine[];
  /** The engines as a bouncer of theirs asks them. */
  let direct: Lapi[];
  /** Of the second engine, as it was before anything moved. */
  let copy: { restore(): Promise<void> };
  let lapidary: Lapidary;
  let fleet: Fleet | undefined;
  let churn: Churn | undefined;
  let memory: ReturnType<typeof watchMemory> | undefined;

  beforeAll(async () => {
    console.log(
      `soak: SOAK_SECONDS=${seconds} SOAK_BOUNCERS=${bouncerCount} SOAK_INTERVAL_SECONDS=${intervalSeconds} ` +
        `SOAK_DECISIONS=${listed} SOAK_SEED=${seed}`,
    );
    const [first, second] = await Promise.all([startEngine(), startEngine()]);
    engines = [first, second];
    direct = [];
    replaceCommunityList(first, communityList(0));
    for (const [at, engine] of engines.entries()) {
      for (const { engine: name, scenario, ...decision } of lasting) {
        if (name === names[at])
          await postAlert(engine, { scenario, decisions: [{ ...decision, duration: '24h' }] });
      }
      direct.push({ url: engine.url, key: await engine.addBouncer('direct') });
    }
    const upstream = { url: first.url, key: await first.addBouncer('lapidary') };
    const oslo = { name: 'oslo', url: second.url, key: await second.addBouncer('lapidary') };
    await second.stop();
    copy = await second.copyDatabase();
    await second.start();
    const settings = {
      UPSTREAMS: JSON.stringify([oslo]),
      CLIENT_ADDRESS_HEADER: addressHeader,
      RESYNC_INTERVAL_SECONDS: String(Math.max(5, Math.min(300, Math.ceil(seconds / 4)))),
    };
    lapidary = await startLapidary({ upstream, settings });
    const whole = listed + lasting.length;
    await until('the feed is whole', async () => (await lapidary.feed()).decisions === whole, 60_000);
  });
  afterAll(async () => {
    memory?.stop();
    await Promise.all([fleet?.stop(), churn?.stop()]);
    await lapidary?.close();
    await Promise.all((engines ?? []).map((engine) => engine.close()));
  });

  /** Every tenth is a second host with the key of the one before. Of each kind there are some that do it otherwise. */
  async function enrol(): Promise<FleetMember[]> {
    const members: FleetMember[] = [];
    const rows: { name: string; api_key: string }[] = [];
    const limits: { name: string; view: object }[] = [];
    for (let at = 0; at < bouncerCount; at++) {
      const address = `2001:db8:2::${(1 + at).toString(16)}`;
      const before = members.at(-1);
      if (at % 10 === 9 && before) {
        members.push({ ...before, address });
        continue;
      }
      const seesAll = at % shareOfAll === 0;
      const kinds = seesAll ? everything : limited;
      const number = seesAll ? at / shareOfAll : at;
      const { name: kind, query, sees, view } = kinds[number % kinds.length] as Kind;
      const turn = Math.floor(number / kinds.length);
      const key = randomBytes(16).toString('hex');
      const name = `soak-${at}`;
      rows.push({ name, api_key: hash('sha512', key) });
      if (view) limits.push({ name, view });
      const [deletedFirst, gzip] = [turn % 2 === 0, turn % 4 < 2];
      members.push({ name: kind, key, address, query, sees, deletedFirst, gzip });
    }
    for (let at = 0; at < rows.length; at += mostImported) {
      const bouncers = rows.slice(at, at + mostImported);
      const { status, body } = await lapidary.operator('POST', '/bouncers/import', { bouncers });
      expect([status, body.imported]).toEqual([200, bouncers.length]);
    }
    const left = limits.values();
    const limit = async () => {
      for (const { name, view } of left) {
        const { status } = await lapidary.operator(
          'PATCH',
          `/bouncers/${name}`,
          { view },
          { 'if-match': '*' },
        );
        expect(status).toBe(200);
      }
    };
    await Promise.all(Array.from({ length: 16 }, limit));
    return members;
  }

  /** What the engines have now. */
  async function truth(): Promise<Held[]> {
    const lists = await Promise.all(direct.map(pullList));
    return lists.flatMap((list, at) =>
      list.map((decision) => ({ ...decision, engine: names[at] as string })),
    );
  }

  it(
    'leaves each of them with what it may have of the engines’ bans, in the memory that it had before',
    async () => {
      let beganMs = Date.now();
      const say = (what: string) =>
        console.log(`soak: ${((Date.now() - beganMs) / 1000).toFixed(1)} s: ${what}`);
      const members = await enrol();
      say(`${members.length} bouncers are enrolled`);
      fleet = startFleet(members, {
        url: lapidary.url,
        addressHeader,
        connections,
        intervalSeconds,
        lasting,
      });
      await fleet.round();
      say(`they have started: ${JSON.stringify(fleet.figures())}`);
      expect(fleet.problems()).toEqual({});

      const [first, second] = engines as [Engine, Engine];
      beganMs = Date.now();
      const atShare = (share: number): number => beganMs + share * seconds * 1000;
      const reached = (share: number) => delay(Math.max(0, atShare(share) - Date.now()));
      const { workerd } = await lapidary.pids();
      memory = watchMemory(workerd);
      const cpuBefore = cpuSeconds(workerd);
      fleet.start();
      churn = startChurn(engines, { changesPerSecond, random: randomFrom(seed) });
      await reached(0.2);
      replaceCommunityList(first, communityList(1));
      say('the community list was replaced');
      await reached(0.4);
      churn.leave(1);
      await second.kill();
      say('an engine was killed');
      await reached(0.5);
      await copy.restore();
      await second.start();
      churn.resume(1);
      // What the killed one had banned since its copy stays until an operator says that the copy counts.
      await until('the restored list is accepted', async () => {
        return (await lapidary.sync({ full: true, force: true })).ok;
      });
      say('it was restored');
      await reached(0.6);
      replaceCommunityList(first, communityList(2));
      say('the community list was replaced again');
      await reached(1);
      await Promise.all([churn.stop(), fleet.stop()]);
      const changes = churn.changes();
      const warm = median(memory.between(atShare(0.3), atShare(0.6)));
      const late = median(memory.between(atShare(0.8), atShare(1)));
      const most = Math.max(...memory.between(atShare(0), atShare(1)));
      const cpu = cpuSeconds(workerd) - cpuBefore;
      say(
        JSON.stringify({
          ...fleet.figures(),
          changes,
          cpuSeconds: cpu,
          residentMegabytes: { warm, late, most },
        }),
      );

      await comeToRest(lapidary, direct);
      const held = await truth();
      const sizes = limited.map(({ sees }) => new Set(held.filter(sees).map(nameOf)).size);
      say(`the limited see ${sizes.join(', ')} decisions`);
      await fleet.round();
      const differing = fleet.differing(held);
      const differences = differing.slice(0, 5).map((at) => [members[at]?.name, fleet?.difference(at, held)]);
      expect(differences, `${differing.length} of ${members.length} bouncers`).toEqual([]);
      expect(fleet.problems()).toEqual({});
      expect(churn.problems()).toEqual([]);
      expect(changes).toBeGreaterThan(0.8 * changesPerSecond * seconds);
      expect(sizes.every((size) => size > 2 && size <= 100)).toBe(true);
      expect(late).toBeLessThan(mostGrowth * warm);
    },
    (2 * seconds + 300) * 1000,
  );
});
