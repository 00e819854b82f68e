// A Lapidary whose object can be taken away under those who ask it, as a deploy or a fault of the platform does: its own
// Worker, with one more path at a socket of its own.
import { startAgain } from './again.ts';
import { type Lapidary, startLapidary } from './lapidary.ts';

export type Abortable = Pick<Lapidary, 'url' | 'addBouncer' | 'ban' | 'unban' | 'close'> & {
  /** The object is gone once this answers, with all that it had in memory; the next question makes another one. */
  abort(): Promise<void>;
  log(): string;
};

const entry = `
import worker, { DecisionFeed as Feed } from 'worker.js';
export class DecisionFeed extends Feed {
  takeAway() { this.ctx.abort(); }
}
const feed = (env) => env.DECISION_FEED.getByName('default');
export default {
  ...worker,
  async fetch(request, env, ctx) {
    if (new URL(request.url).pathname !== '/take-away') return worker.fetch(request, env, ctx);
    return new Response(await feed(env).takeAway().then(() => 'it stays', (error) => error.message));
  },
};
`;

export async function startAbortable(): Promise<Abortable> {
  const lapidary = await startLapidary();
  const { ports, log, close } = await startAgain(lapidary, ['abort'], withAbort);
  const { url, addBouncer, ban, unban } = lapidary;
  return {
    url,
    addBouncer,
    ban,
    unban,
    async abort() {
      const said = await (await fetch(`http://127.0.0.1:${ports[0]}/take-away`)).text();
      if (!said.includes('abort()')) throw new Error(`the object was not taken away: ${said}`);
    },
    log,
    close,
  };
}

function withAbort(built: string): string {
  const module = '(name = "worker.js", esModule = embed "worker.js")';
  const socket = '(name = "abort", address = "127.0.0.1:0", http = (), service = "lapidary")';
  if (!built.includes(`[${module}]`)) throw new Error('scripts/build.mjs writes other modules now');
  return built
    .replace(`[${module}]`, () => `[(name = "abort.js", esModule = ${JSON.stringify(entry)}), ${module}]`)
    .replace('sockets = [', `sockets = [${socket}, `);
}
