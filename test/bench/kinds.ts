// What each kind of request asks of D1 and of the feed's object, and what the feed's rounds write: the counts that a bill
// is made of (cost.ts).
import { type Counted, type Counts, startCounted } from '../lab/counted.ts';
import { insertDecisions, openDatabase } from '../lab/database.ts';
import type { Engine } from '../lab/engine.ts';
import { until } from '../lab/wait.ts';
import { makeDecisions } from './decisions.ts';

/** By what was asked. */
export type Kinds = Readonly<Record<KindName, Counts>>;
export type KindName = (typeof kindNames)[number];

const listed = 1_000;
const rotated = 1_000;
/** RESYNC_INTERVAL_SECONDS, as it is unless set. */
const resyncSeconds = 300;

export const kindNames = [
  'first poll of an isolate',
  'poll, a second after another',
  'poll, 5 s after another',
  'first poll with a new key',
  'look-up that finds nothing',
  'the same, 5 s later',
  'HEAD (AppSec), 5 s later',
  'usage metrics',
  'unknown key',
  '/health',
  'POST /bouncers',
  'POST /bouncers/{name}/rotate',
  'DELETE /bouncers/{name}',
  'POST /decisions',
  'DELETE /decisions',
  'POST /rotations of 1,000',
  'round without a change',
  '1,000 new decisions',
  '1,000 decisions under new ids',
] as const;

/** `engine`: has no decisions, and gets some. */
export async function measureKinds(engine: Engine): Promise<Kinds> {
  const upstream = { url: engine.url, key: await engine.addBouncer('counted') };
  // Rounds are run when they are counted.
  const counted = await startCounted({ upstream, settings: { SYNC_INTERVAL_SECONDS: '3600' } });
  const kinds = new Map<KindName, Counts>();
  const count = async (kind: KindName, ask: () => Promise<unknown>): Promise<void> => {
    await counted.take();
    await ask();
    kinds.set(kind, await counted.take());
  };
  try {
    await counted.round();
    await countPolls(counted, count);
    await countMutations(counted, count);
    await countRounds(engine, counted, count);
    await countRotation(counted, count);
    return Object.fromEntries(kinds) as Kinds;
  } finally {
    await counted.close();
  }
}

type Count = (kind: KindName, ask: () => Promise<unknown>) => Promise<void>;

async function countPolls(counted: Counted, count: Count): Promise<void> {
  const { url, key } = counted;
  const poll = (query = '') => ask(200, `${url}/v1/decisions/stream${query}`, key);
  const lookUp = () => ask(200, `${url}/v1/decisions?ip=192.0.2.1`, key);
  await count('first poll of an isolate', () => poll('?startup=true'));
  // Each change goes out twice: only then there is nothing to tell.
  for (let polls = 0; polls < 3; polls++) await poll();
  await counted.pass(1);
  await count('poll, a second after another', () => poll());
  await counted.pass(5);
  await count('poll, 5 s after another', () => poll());
  const newKey = await counted.addBouncer('new');
  await poll();
  await count('first poll with a new key', () => ask(200, `${url}/v1/decisions/stream?startup=true`, newKey));
  await until('the isolate has the filter', async () => {
    await counted.take();
    await lookUp();
    return (await counted.take()).calls === 0;
  });
  await count('look-up that finds nothing', lookUp);
  await counted.pass(5);
  await count('the same, 5 s later', lookUp);
  await counted.pass(5);
  await count('HEAD (AppSec), 5 s later', () => ask(200, `${url}/v1/decisions/stream`, key, 'HEAD'));
  await count('usage metrics', () => ask(201, `${url}/v1/usage-metrics`, key, 'POST', report));
  await count('unknown key', () => ask(403, `${url}/v1/decisions`, 'opens-nothing'));
  await count('/health', () => ask(200, `${url}/health`, ''));
}

async function countMutations({ operator }: Counted, count: Count): Promise<void> {
  const change = async (status: number, method: string, path: string, body?: object): Promise<void> => {
    const answer = await operator(method, path, body);
    if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status}`);
  };
  await count('POST /bouncers', () => change(201, 'POST', '/bouncers', { name: 'edge' }));
  await count('POST /bouncers/{name}/rotate', () => change(200, 'POST', '/bouncers/edge/rotate', {}));
  await count('DELETE /bouncers/{name}', () => change(204, 'DELETE', '/bouncers/edge'));
  await count('POST /decisions', () => {
    return change(201, 'POST', '/decisions', { value: '192.0.2.9', duration: '4h' });
  });
  await count('DELETE /decisions', () => change(200, 'DELETE', '/decisions?value=192.0.2.9'));
}

/** Without a grace, the second one: it also removes what the first one left. */
async function countRotation({ operator }: Counted, count: Count): Promise<void> {
  const bouncers = Array.from({ length: rotated }, (_, index) => {
    return { name: `many-${index}`, api_key: index.toString(16).padStart(128, '0') };
  });
  await operator('POST', '/bouncers/import', { bouncers });
  const rotate = async (): Promise<void> => {
    const { status, body } = await operator('POST', '/rotations', {
      selector: { names: ['many-*'] },
      grace: '0s',
    });
    if (status !== 201 || body.rotation.bouncers !== rotated) throw new Error(`POST /rotations: ${status}`);
  };
  await rotate();
  await count('POST /rotations of 1,000', rotate);
}

/** Among them the list of a community, which comes again every two hours, each time under other ids. */
async function countRounds(engine: Engine, counted: Counted, count: Count): Promise<void> {
  const rows = makeDecisions(listed).map(({ value }) => ({ value }));
  await counted.round();
  await count('round without a change', counted.round);
  insertDecisions(engine, rows);
  await count('1,000 new decisions', () => fullRound(counted));
  await demandAll(counted);
  const database = openDatabase(engine);
  database.exec('DELETE FROM decisions');
  database.close();
  insertDecisions(
    engine,
    rows.map((row) => ({ ...row, seconds: 24 * 3600 })),
  );
  await count('1,000 decisions under new ids', () => fullRound(counted));
  await demandAll(counted);
}

/** Not by an operator's call, which would be counted too. */
async function fullRound({ pass, round }: Counted): Promise<void> {
  await pass(resyncSeconds);
  await round();
}

async function demandAll({ operator }: Counted): Promise<void> {
  const { decisions, engines } = (await operator('GET', '/feed')).body;
  if (decisions !== listed || engines[0].full_age_seconds !== 0) {
    throw new Error(`the list did not come: ${decisions} decisions, ${JSON.stringify(engines)}`);
  }
}

const report = {
  remediation_components: [
    {
      type: 'crowdsec-firewall-bouncer',
      version: 'v0.0.28',
      utc_startup_timestamp: 0,
      metrics: [
        {
          meta: { utc_now_timestamp: 0, window_size_seconds: 1_800 },
          items: [{ name: 'dropped', value: 1, unit: 'packet', labels: { origin: 'CAPI' } }],
        },
      ],
    },
  ],
};

async function ask(status: number, url: string, key: string, method = 'GET', body?: object): Promise<void> {
  const response = await fetch(url, {
    method,
    headers: { 'X-Api-Key': key, 'User-Agent': 'bench/v1' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  await response.arrayBuffer();
  if (response.status !== status) throw new Error(`${method} ${url}: ${response.status}`);
}
