// An engine that has one list and never changes it, where a real one would take too long or can not be in trouble.
import { createServer, type ServerResponse } from 'node:http';
import { listen, type Listening } from './listen.ts';

export interface ListEngine extends Listening {
  /** It answers 500. */
  trouble: boolean;
}

/** Written as it is read, so that it may be longer than memory. */
export async function startListEngine(count: number, valueAt: (at: number) => string): Promise<ListEngine> {
  const server = createServer((asked, answer) => reply(asked.url ?? '', answer));

  function reply(url: string, answer: ServerResponse): void {
    if (engine.trouble) return void answer.writeHead(500).end('{"message":"trouble"}');
    answer.setHeader('content-type', 'application/json');
    if (url.startsWith('/v1/decisions/stream')) return void answer.end('{"new": [], "deleted": []}');
    if (url !== '/v1/decisions') return void answer.end('null');
    let at = 0;
    const write = (): void => {
      for (; at < count; at++) {
        const value = valueAt(at);
        const scope = value.includes('/') ? 'Range' : 'Ip';
        const decision = { id: at + 1, origin: 'CAPI', type: 'ban', scope, value };
        const text = JSON.stringify({ ...decision, scenario: 'crowdsecurity/ssh-bf', duration: '100h0m0s' });
        if (!answer.write(`${at === 0 ? '[' : ','}${text}`)) {
          at++;
          return void answer.once('drain', write);
        }
      }
      answer.end(']');
    };
    write();
  }

  const engine: ListEngine = { ...(await listen(server)), trouble: false };
  return engine;
}
