// A Lapidary that counts what Cloudflare writes on the bill: what D1 is asked, how often the feed's object is called, and
// the rows that it writes. The built Worker runs in a wrapper with a clock of its own: no count depends on how fast a
// machine is, and five seconds need not be waited for.
import { startAgain } from './again.ts';
import { type Lapidary, type LapidaryOptions, operatorAt, startLapidary } from './lapidary.ts';

export interface Counts {
  /** Questions to D1 one after the other, and what they read and wrote. */
  trips: number;
  rowsRead: number;
  rowsWritten: number;
  /** Calls of the feed's object, and rows that it wrote; each alarm set is one. */
  calls: number;
  objectRows: number;
}

export interface Counted extends Pick<Lapidary, 'url' | 'operator' | 'addBouncer' | 'close' | 'log'> {
  /** Of a bouncer that this isolate has not met; another one has. */
  key: string;
  /** What was counted since the last call. */
  take(): Promise<Counts>;
  /** Time stands still in the Worker and in the object, but for what is let pass. */
  pass(seconds: number): Promise<void>;
  /** What the alarm does. */
  round(): Promise<void>;
}

/** In front of the Worker. Its isolate is the object's too, so both have one clock and one sum. */
const wrapper = `
import worker, { DecisionFeed as Feed } from 'worker.js';
const none = () => ({ calls: 0, objectRows: 0 });
let sum = none();
let cursors = [];
let environment;

let nowMs;
function holdClock() {
  if (nowMs !== undefined) return;
  nowMs = Date.now();
  Date.now = () => nowMs;
}

function countRows(storage) {
  const own = Object.getPrototypeOf(storage.sql);
  const { exec } = own;
  own.exec = function (...given) {
    const cursor = exec.apply(this, given);
    cursors.push(cursor);
    return cursor;
  };
  const { setAlarm } = Object.getPrototypeOf(storage);
  Object.getPrototypeOf(storage).setAlarm = function (...given) {
    sum.objectRows++;
    return setAlarm.apply(this, given);
  };
}

let counting = false;
export class DecisionFeed extends Feed {
  constructor(ctx, env) {
    if (!counting) countRows(ctx.storage);
    counting = true;
    holdClock();
    super(ctx, env);
  }
  round() { return this.alarm(); }
}

const counted = (stub) => new Proxy(stub, {
  get: (_, method) => {
    sum.calls++;
    return stub[method];
  },
});

export default {
  scheduled: worker.scheduled,
  async fetch(request, env, ctx) {
    holdClock();
    const url = new URL(request.url);
    const feed = env.DECISION_FEED.getByName('default');
    switch (url.pathname) {
      case '/counted/take': {
        const taken = sum;
        for (const cursor of cursors) taken.objectRows += cursor.rowsWritten;
        [sum, cursors] = [none(), []];
        return Response.json(taken);
      }
      case '/counted/pass': {
        nowMs += Number(url.searchParams.get('ms'));
        return new Response('');
      }
      case '/counted/round': {
        await feed.round();
        return new Response('');
      }
    }
    // One for all requests, as the runtime's own is: the settings are read once.
    environment ??= { ...env, DECISION_FEED: { getByName: (name) => counted(env.DECISION_FEED.getByName(name)) } };
    return worker.fetch(request, environment, ctx);
  },
};`;

/** Between D1's binding and its store. */
const meter = `
const none = () => ({ trips: 0, rowsRead: 0, rowsWritten: 0 });
let sum = none();
export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname === '/counted/take') {
      const taken = sum;
      sum = none();
      return Response.json(taken);
    }
    sum.trips++;
    const response = await env.STORE.fetch(request);
    for (const { meta } of [await response.clone().json()].flat()) {
      sum.rowsRead += meta?.rows_read ?? 0;
      sum.rowsWritten += meta?.rows_written ?? 0;
    }
    return response;
  },
};`;

export async function startCounted(options: LapidaryOptions = {}): Promise<Counted> {
  const lapidary = await startLapidary(options);
  const key = await lapidary.addBouncer('counted');
  await fetch(`${lapidary.url}/v1/decisions/stream`, { headers: { 'X-Api-Key': key } });
  const { ports, log, close } = await startAgain(lapidary, ['meter'], withMeters, () => ['/counted/take']);
  const { url } = lapidary;
  const read = async (address: string): Promise<any> => (await fetch(`${address}/counted/take`)).json();
  return {
    url,
    key,
    operator: operatorAt(url, lapidary.stateDir),
    addBouncer: lapidary.addBouncer,
    close,
    log,
    take: async () => ({ ...(await read(`http://127.0.0.1:${ports[0]}`)), ...(await read(url)) }),
    pass: async (seconds) => void (await fetch(`${url}/counted/pass?ms=${seconds * 1000}`)),
    round: async () => void (await fetch(`${url}/counted/round`)),
  };
}

function withMeters(built: string): string {
  const edits = [
    ['(name = "d1", worker = .d1)', '(name = "d1", worker = .meter), (name = "store", worker = .d1)'],
    ['sockets = [', 'sockets = [(name = "meter", address = "127.0.0.1:0", http = (), service = "d1"), '],
    [
      '(name = "worker.js", esModule = embed "worker.js")',
      `(name = "counted.js", esModule = ${JSON.stringify(wrapper)}), (name = "worker.js", esModule = embed "worker.js")`,
    ],
  ] as const;
  let text = built;
  for (const [place, by] of edits) {
    if (!text.includes(place)) throw new Error(`scripts/build.mjs writes no ${place} any more`);
    text = text.replace(place, () => by);
  }
  return `${text}
const meter :Workerd.Worker = (
  compatibilityDate = "2026-10-01",
  modules = [(name = "meter.js", esModule = ${JSON.stringify(meter)})],
  bindings = [(name = "STORE", service = "store")],
);
`;
}
