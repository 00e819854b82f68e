// Two isolates of one Lapidary: the built Worker twice in one workerd, each with memory of its own, over the same D1
// and the same object of the feed. As Cloudflare runs it, where every location has isolates of its own.
import { startAgain } from './again.ts';
import { type Lapidary, operatorAt, startLapidary } from './lapidary.ts';

export interface TwoIsolates {
  first: Isolate;
  second: Isolate;
  addBouncer(name: string): Promise<string>;
  close(): Promise<void>;
}

/** One of the two, and the operator's calls through it. */
export type Isolate = Pick<Lapidary, 'url' | 'operator'>;

export async function startTwoIsolates(): Promise<TwoIsolates> {
  const lapidary = await startLapidary();
  const { port, close } = await startAgain(lapidary, 'second', withSecond, (free) => [
    '/health',
    `http://127.0.0.1:${free}/health`,
  ]);
  const url = `http://127.0.0.1:${port}`;
  const second = { url, operator: operatorAt(url, lapidary.stateDir) };
  return { first: lapidary, second, addBouncer: lapidary.addBouncer, close };
}

/** The configuration with the Worker in it a second time, whose object of the feed is the first one's. */
function withSecond(built: string): string {
  const worker = /^const lapidary :Workerd\.Worker = \([\s\S]*?^\);\n/m.exec(built)?.[0];
  const d1 = '    (name = "d1", worker = .d1),\n';
  let text = replaced(built, d1, `${d1}    (name = "second", worker = .second),\n`);
  const socket = '(name = "second", address = "127.0.0.1:0", http = (), service = "second")';
  text = replaced(text, 'sockets = [', `sockets = [${socket}, `);
  let second = replaced(worker ?? '', 'const lapidary ', 'const second ');
  const theirs = '(className = "DecisionFeed", serviceName = "lapidary")';
  second = replaced(second, 'durableObjectNamespace = "DecisionFeed"', `durableObjectNamespace = ${theirs}`);
  for (const line of [/^ {2}durableObjectNamespaces = .*\n/m, /^ {2}durableObjectStorage = .*\n/m]) {
    second = replaced(second, line.exec(second)?.[0] ?? '?', '');
  }
  return `${text}\n${second}`;
}

function replaced(text: string, place: string, by: string): string {
  if (!text.includes(place)) throw new Error(`scripts/build.mjs writes no ${place} any more`);
  return text.replace(place, () => by);
}
