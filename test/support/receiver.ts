// Receivers of webhooks, by their host names, beside the engine that answers in place of the network. Each verifies what it is
// sent as the Standard Webhooks specification says.
import { vi } from 'vitest';
import { createHmac } from 'node:crypto';

export interface Received {
  readonly id: string;
  readonly headers: Headers;
  readonly text: string;
  /** What was answered. */
  readonly status: number;
  readonly type: string;
  readonly data: any;
}

export interface Receiver {
  /** All tries, in their order. */
  readonly tries: Received[];
  /** The types of the messages that were taken. */
  taken(): string[];
  /** Another answer than 204. */
  answer: (() => Response | Promise<Response>) | undefined;
  /** Resolves once so many tries have come. */
  reaches(count: number): Promise<void>;
}

/** Answers at `https://<host>/…`; what goes elsewhere goes on to whoever answers there. */
export function startReceiver(host: string): Receiver {
  const before = vi.mocked(globalThis.fetch).getMockImplementation() as typeof fetch;
  let waiting: (() => void)[] = [];
  const receiver: Receiver = {
    tries: [],
    answer: undefined,
    taken: () => receiver.tries.filter(({ status }) => status < 300).map(({ type }) => type),
    async reaches(count) {
      while (receiver.tries.length < count) await new Promise<void>((resolve) => waiting.push(resolve));
    },
  };
  vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    if (url.hostname !== host) return before(input, init);
    const headers = new Headers(init?.headers);
    const text = String(init?.body);
    const { type, data } = JSON.parse(text);
    const answered = (receiver.answer ?? (() => new Response(null, { status: 204 })))();
    const note = (status: number): void => {
      receiver.tries.push({ id: headers.get('webhook-id') ?? '', headers, text, status, type, data });
      for (const resolve of waiting.splice(0)) resolve();
    };
    if (!(answered instanceof Promise)) {
      note(answered.status);
      return answered;
    }
    note(0);
    return answered;
  });
  waiting = [];
  return receiver;
}

/** Whether the signature is right, by node's own HMAC. */
export function isSigned({ headers, text }: Pick<Received, 'headers' | 'text'>, secret: string): boolean {
  const [id, seconds] = [headers.get('webhook-id'), headers.get('webhook-timestamp')];
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signature = createHmac('sha256', key).update(`${id}.${seconds}.${text}`).digest('base64');
  return headers.get('webhook-signature')?.split(' ').includes(`v1,${signature}`) ?? false;
}
