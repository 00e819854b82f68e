// Several isolates of one Lapidary: the built Worker so often in one workerd, each with memory of its own, over the same D1
// and the same object of the feed. As Cloudflare runs it, where every location has isolates of its own. Each counts what
// it asks the object, and its clock can be set.
import { startAgain } from './again.ts';
import { type Lapidary, type LapidaryOptions, operatorAt, operatorToken, startLapidary } from './lapidary.ts';

export interface Isolates extends Pick<
  Lapidary,
  'addBouncer' | 'sync' | 'feed' | 'ban' | 'unban' | 'pids' | 'log'
> {
  /** The first has the feed's object. */
  all: readonly Isolate[];
  /** How often they asked the object since the last call, by its method. */
  takeCalls(): Promise<Record<string, number>>;
  /** How many polls wait in one of them, as its metrics say it. */
  waitingPolls(isolate: Isolate): Promise<number>;
  close(): Promise<void>;
}

export interface TwoIsolates extends Pick<Isolates, 'addBouncer' | 'close'> {
  first: Isolate;
  second: Isolate;
}

/** One of them, and the operator's calls through it. */
export type Isolate = Pick<Lapidary, 'url' | 'operator'>;

/** Its value is the time of the isolate in ms from then on. */
export const clockHeader = 'x-lab-now';

/** In front of each Worker. */
const wrapper = `
import worker, { DecisionFeed } from 'worker.js';
export { DecisionFeed };
let calls = {};
let nowMs;
let environment;
const counted = (stub) => new Proxy(stub, {
  get: (_, method) => {
    calls[method] = (calls[method] ?? 0) + 1;
    return stub[method];
  },
});
export default {
  scheduled: worker.scheduled,
  async fetch(request, env, ctx) {
    const set = request.headers.get('${clockHeader}');
    if (set !== null) {
      nowMs = Number(set);
      Date.now = () => nowMs;
    }
    if (new URL(request.url).pathname === '/lab/take-calls') {
      const taken = calls;
      calls = {};
      return Response.json(taken);
    }
    // One for all requests, as the runtime's own is: the settings are read once.
    environment ??= {
      ...env,
      DECISION_FEED: { getByName: (...given) => counted(env.DECISION_FEED.getByName(...given)) },
    };
    return worker.fetch(request, environment, ctx);
  },
};`;

export async function startTwoIsolates(): Promise<TwoIsolates> {
  const { all, addBouncer, close } = await startIsolates(2);
  const [first, second] = all as [Isolate, Isolate];
  return { first, second, addBouncer, close };
}

export async function startIsolates(count: number, options: LapidaryOptions = {}): Promise<Isolates> {
  const lapidary = await startLapidary(options);
  const names = Array.from({ length: count - 1 }, (_, at) => `isolate${at + 2}`) as [string, ...string[]];
  const urls = (ports: readonly number[]): string[] => ports.map((port) => `http://127.0.0.1:${port}`);
  const { ports, log, close } = await startAgain(
    lapidary,
    names,
    (built) => withIsolates(built, names),
    (free) => ['/health', ...urls(free).map((url) => `${url}/health`)],
  );
  const others = urls(ports).map((url) => ({ url, operator: operatorAt(url, lapidary.stateDir) }));
  const all = [lapidary, ...others];
  return {
    ...lapidary,
    all,
    log,
    close,
    async takeCalls() {
      const sum: Record<string, number> = {};
      for (const { url } of all) {
        const calls = (await (await fetch(`${url}/lab/take-calls`)).json()) as Record<string, number>;
        for (const [method, times] of Object.entries(calls)) sum[method] = (sum[method] ?? 0) + times;
      }
      return sum;
    },
    async waitingPolls({ url }) {
      const authorization = `Bearer ${await operatorToken(lapidary.stateDir)}`;
      const response = await fetch(`${url}/metrics`, { headers: { authorization } });
      const text = await response.text();
      if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
      return Number(/^lapidary_feed_waiting_polls (\d+)$/m.exec(text)?.[1] ?? NaN);
    },
  };
}

/** The configuration with the Worker in it so often, whose object of the feed is the first one's. */
function withIsolates(built: string, names: readonly string[]): string {
  const module = '(name = "worker.js", esModule = embed "worker.js")';
  const wrapped = `(name = "wrapper.js", esModule = ${JSON.stringify(wrapper)}), ${module}`;
  let text = replaced(built, module, wrapped);
  const worker = /^const lapidary :Workerd\.Worker = \([\s\S]*?^\);\n/m.exec(text)?.[0] ?? '';
  const d1 = '    (name = "d1", worker = .d1),\n';
  const theirs = '(className = "DecisionFeed", serviceName = "lapidary")';
  for (const name of names) {
    text = replaced(text, d1, `${d1}    (name = "${name}", worker = .${name}),\n`);
    const socket = `(name = "${name}", address = "127.0.0.1:0", http = (), service = "${name}")`;
    text = replaced(text, 'sockets = [', `sockets = [${socket}, `);
    let other = replaced(worker, 'const lapidary ', `const ${name} `);
    other = replaced(other, 'durableObjectNamespace = "DecisionFeed"', `durableObjectNamespace = ${theirs}`);
    for (const line of [/^ {2}durableObjectNamespaces = .*\n/m, /^ {2}durableObjectStorage = .*\n/m]) {
      other = replaced(other, line.exec(other)?.[0] ?? '?', '');
    }
    text += `\n${other}`;
  }
  return text;
}

function replaced(text: string, place: string, by: string): string {
  if (!text.includes(place)) throw new Error(`scripts/build.mjs writes no ${place} any more`);
  return text.replace(place, () => by);
}
