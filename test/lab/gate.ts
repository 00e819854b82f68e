// A Lapidary whose D1 can be made silent: between the binding and its store stands a Worker that holds what it is asked
// until it is opened again, and counts it.
import { startAgain } from './again.ts';
import { type Lapidary, type LapidaryOptions, startLapidary } from './lapidary.ts';

export interface Gated extends Pick<Lapidary, 'url' | 'operator' | 'addBouncer' | 'close' | 'log'> {
  /** D1 answers nobody from now on. */
  silence(): Promise<void>;
  /** It answers again, also what it was asked meanwhile. */
  open(): Promise<void>;
  /** How often D1 was asked since the last call. */
  questions(): Promise<number>;
}

const gate = `
let silent = false;
let questions = 0;
export default {
  async fetch(request, env) {
    switch (new URL(request.url).pathname) {
      case '/gate/silence': silent = true; return new Response('');
      case '/gate/open': silent = false; return new Response('');
      case '/gate/questions': {
        const answer = new Response(String(questions));
        questions = 0;
        return answer;
      }
    }
    questions++;
    while (silent) await scheduler.wait(20);
    return env.STORE.fetch(request);
  },
};`;

export async function startGated(options: LapidaryOptions = {}): Promise<Gated> {
  const lapidary = await startLapidary(options);
  const { ports, log, close } = await startAgain(lapidary, ['gate'], withGate);
  const tell = async (what: string): Promise<string> =>
    (await fetch(`http://127.0.0.1:${ports[0]}/gate/${what}`)).text();
  const { url, operator, addBouncer } = lapidary;
  return {
    url,
    operator,
    addBouncer,
    close,
    log,
    silence: async () => void (await tell('silence')),
    open: async () => void (await tell('open')),
    questions: async () => Number(await tell('questions')),
  };
}

function withGate(built: string): string {
  const service = '(name = "d1", worker = .d1)';
  const sockets = 'sockets = [';
  if (!built.includes(service) || !built.includes(sockets)) {
    throw new Error('scripts/build.mjs writes another configuration');
  }
  const socket = '(name = "gate", address = "127.0.0.1:0", http = (), service = "d1")';
  return `${built
    .replace(service, '(name = "d1", worker = .gate), (name = "store", worker = .d1)')
    .replace(sockets, `${sockets}${socket}, `)}
const gate :Workerd.Worker = (
  compatibilityDate = "2026-10-01",
  modules = [(name = "gate.js", esModule = ${JSON.stringify(gate)})],
  bindings = [(name = "STORE", service = "store")],
);
`;
}
