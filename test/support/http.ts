// Requests to the Worker as its callers make them, inside workerd.
import { exports } from 'cloudflare:workers';

export const operatorToken = 'operator-token-of-the-tests';

export function call(path: string, init: RequestInit = {}): Promise<Response> {
  return exports.default.fetch(new Request(`http://edge.example${path}`, init));
}

export interface OperatorAnswer {
  status: number;
  body: any;
  headers: Headers;
}

/** A call of the operator API; `body` is sent as JSON unless it is a text. */
export async function operator(method: string, path: string, body?: unknown): Promise<OperatorAnswer> {
  const response = await call(`/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${operatorToken}` },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? null : JSON.parse(text), headers: response.headers };
}

/** Registers a bouncer and returns its key. */
export async function addBouncer(name: string): Promise<string> {
  const { status, body } = await operator('POST', '/bouncers', { name });
  if (status !== 201) throw new Error(`bouncer ${name}: ${status} ${JSON.stringify(body)}`);
  return body.key;
}

/** A request with a bouncer's key. */
export function asBouncer(key: string, path: string, init: RequestInit = {}): Promise<Response> {
  return call(path, { ...init, headers: { 'x-api-key': key, ...init.headers } });
}

/** Removes all entries of the allow-list, of which there are 1,000 at most. */
export async function emptyAllowList(): Promise<void> {
  const { body } = await operator('GET', '/allowlist?limit=1000');
  for (const { id } of body.entries) await operator('DELETE', `/allowlist/${id}`);
}
