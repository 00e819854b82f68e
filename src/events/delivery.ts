// One try to deliver a message, after the Standard Webhooks specification 1.0.0: three headers, HMAC-SHA-256 over id, time
// and body. What a receiver answers is read no further than its status. Neither its address, which may have a secret in its
// path, nor the error of the network is repeated anywhere.

import { version } from '../config/version.ts';
import { isLoopbackUrl } from '../config/public-url.ts';
import type { Settings } from '../config/settings.ts';
import type { Enter } from '../engines/upstream.ts';

/** How long a receiver may take to answer. */
export const patienceMs = 10_000;

const shortestWaitMs = 10_000;
const longestWaitMs = 4 * 3_600_000;

/** How long after a try the next one is made: doubled with each failure, up to four hours. */
export function backoffMs(failures: number): number {
  return failures === 0 ? 0 : Math.min(longestWaitMs, shortestWaitMs * 2 ** (failures - 1));
}

/** What came of a try. `problem`: null where it was delivered. */
export interface Outcome {
  readonly atMs: number;
  /** Null: there was no answer. */
  readonly status: number | null;
  readonly problem: string | null;
}

/** What is wrong with an answer; null: nothing. */
export function problemOf(status: number): string | null {
  if (status >= 200 && status < 300) return null;
  if (status >= 300 && status < 400) return `it redirects (${status}), which is not followed`;
  return `it answered ${status}`;
}

/** Why messages can not go to an address; null: they can. Where a name leads is seen only when it is resolved. */
export function urlProblem(text: string, mayBePrivate: boolean): string | null {
  if (!URL.canParse(text)) return 'must be an address like https://hooks.example.net/lapidary';
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'must not have a user or a password';
  if (url.protocol === 'https:') return null;
  if (url.protocol !== 'http:') return 'must begin with https://';
  if (mayBePrivate && isLoopbackUrl(text)) return null;
  return 'must begin with https:// (http:// only to this machine, with WEBHOOK_ADDRESSES=private)';
}

/** The signature of a message: `v1,` and base64. `secret`: `whsec_` and base64. */
export async function signatureOf(
  secret: string,
  message: string,
  seconds: number,
  body: string,
): Promise<string> {
  const bytes = Uint8Array.fromBase64(secret.slice('whsec_'.length));
  const key = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const text = new TextEncoder().encode(`${message}.${seconds}.${body}`);
  return `v1,${new Uint8Array(await crypto.subtle.sign('HMAC', key, text)).toBase64()}`;
}

/** How receivers are reached. */
export type Network = (url: string, init: RequestInit) => Promise<Response>;

/**
 * Plain workerd keeps private addresses from webhooks, whatever their names resolve to, by a network of their own
 * (scripts/build.mjs). Cloudflare has no private addresses to reach.
 */
export function networkFor(env: object, { privateWebhooks }: Pick<Settings, 'privateWebhooks'>): Network {
  const { WEBHOOK_NETWORK: publicNetwork } = env as { WEBHOOK_NETWORK?: Fetcher };
  if (privateWebhooks || !publicNetwork) return (url, init) => fetch(url, init);
  return (url, init) => publicNetwork.fetch(url, init);
}

/** `enter`: waits for a turn. The time that is signed is that of the turn: receivers refuse one that is minutes old. */
export async function deliver(
  network: Network,
  url: string,
  secret: string,
  { message, body }: { readonly message: string; readonly body: string },
  enter: Enter,
): Promise<Outcome> {
  const begins = await enter();
  const seconds = Math.floor(Date.now() / 1000);
  const signal = AbortSignal.timeout(patienceMs);
  const post = async (): Promise<Response> => {
    const headers = {
      'content-type': 'application/json',
      'user-agent': `lapidary/${version}`,
      'webhook-id': message,
      'webhook-timestamp': String(seconds),
      'webhook-signature': await signatureOf(secret, message, seconds, body),
    };
    return network(url, { method: 'POST', redirect: 'manual', headers, body, signal });
  };
  try {
    const answer = await begins(post());
    // Not waited for: a body may have no end.
    void answer.body?.cancel().catch(() => undefined);
    return { atMs: Date.now(), status: answer.status, problem: problemOf(answer.status) };
  } catch {
    const problem = signal.aborted
      ? `it did not answer within ${patienceMs / 1000} s`
      : 'it can not be reached: nobody listens there, its name or its certificate is wrong, or its address is private';
    return { atMs: Date.now(), status: null, problem };
  }
}
