// Calls of the operator API with settings of their own, issuers that answer in place of the network, and a watch on
// every output: no token may be in an answer, but the one that shows it, or in the log.
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { operator, type OperatorAnswer } from './http.ts';
import { canary, createIssuer, type TestIssuer } from './issuer.ts';
import { serveWith } from './edge.ts';

/** Every token that a test made. */
export const secrets = new Set<string>();
/** What was logged. */
export const output: string[] = [];
/** What is answered at an address. */
export const served = new Map<string, () => unknown>();
/** The addresses that were asked. */
export const asked: string[] = [];

/** What every address answers while it is set. */
export const network: { fault: ((url: string) => Response | Promise<Response>) | undefined } = {
  fault: undefined,
};

let count = 0;

/** For the top of a suite: sets all this up for each of its tests. */
export function watchOperators(): void {
  beforeEach(() => {
    for (const method of ['log', 'info', 'warn', 'error', 'debug'] as const) {
      vi.spyOn(console, method).mockImplementation((...words) => {
        output.push(words.map(String).join(' '));
      });
    }
    network.fault = undefined;
    asked.length = 0;
    vi.spyOn(globalThis, 'fetch').mockImplementation(async (input) => {
      const url = input instanceof Request ? input.url : String(input);
      asked.push(url);
      if (network.fault) return network.fault(url);
      const answer = served.get(url);
      return answer ? Response.json(answer()) : new Response('nothing here', { status: 404 });
    });
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
    for (const line of output.splice(0)) {
      for (const secret of [...secrets, canary]) expect(line).not.toContain(secret);
    }
    secrets.clear();
  });
}

/** A number that no other test of the suite has: an isolate remembers key sets from test to test. */
export function nextNumber(): number {
  return ++count;
}

export function pass(ms: number): void {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(now + ms);
}

/** An issuer that nobody has asked yet. */
export async function freshIssuer(alg: 'RS256' | 'ES256' = 'ES256'): Promise<TestIssuer> {
  const number = nextNumber();
  const issuer = createIssuer(`https://issuer-${number}.example`, `lapidary-${number}`);
  await issuer.addKey(alg, 'first');
  served.set(`${issuer.url}/.well-known/jwks.json`, issuer.jwks);
  return issuer;
}

export const byGroup = [
  { claim: 'groups', equals: 'owners', role: 'admin' },
  { claim: 'groups', one_of: ['ops', 'oncall'], role: 'operator' },
  { claim: 'groups', equals: 'everybody', role: 'viewer' },
];

export function entryOf(
  { url, audience }: TestIssuer,
  more: Record<string, unknown> = {},
): Record<string, unknown> {
  return { issuer: url, audience, rules: byGroup, ...more };
}

export interface Call {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  /** `OPERATOR_ISSUERS`. */
  issuers?: unknown[];
  settings?: Record<string, unknown>;
}

/** A call with settings of its own, past the bindings that all tests share. */
export async function request(path: string, { method = 'GET', body, headers = {}, issuers, settings }: Call) {
  const bindings = { ...env, OPERATOR_ISSUERS: JSON.stringify(issuers ?? []), ...settings };
  const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
  const response = await serveWith(bindings, `/api/v1${path}`, init);
  const text = await response.text();
  if (!(path === '/operator-tokens' && response.status === 201)) {
    for (const secret of [...secrets, canary]) expect(text).not.toContain(secret);
  }
  const answer: OperatorAnswer = {
    status: response.status,
    body: text === '' ? null : JSON.parse(text),
    headers: response.headers,
  };
  return answer;
}

export function bearer(token: string): { authorization: string } {
  secrets.add(token);
  return { authorization: `Bearer ${token}` };
}

/** Asks with a token, where `issuer` is the only one in the settings unless `issuers` says otherwise. */
export async function withToken(issuer: TestIssuer, token: string, call: Call & { path?: string } = {}) {
  const { path = '/feed', issuers = [entryOf(issuer)], ...rest } = call;
  return request(path, { ...rest, issuers, headers: { ...bearer(token), ...rest.headers } });
}

export async function makeToken(name: string, role: string, expiresIn = '1h'): Promise<string> {
  const { status, body } = await operator('POST', '/operator-tokens', { name, role, expires_in: expiresIn });
  expect(status).toBe(201);
  secrets.add(body.token);
  return body.token;
}

export async function auditRows(): Promise<[string, string, string][]> {
  // Not by the operator API: reading it with OPERATOR_TOKEN would add to what is read.
  const rows = await env.DB.prepare('SELECT actor, action, target FROM audit ORDER BY seq DESC').all<any>();
  return rows.results.map(({ actor, action, target }) => [actor, action, target]);
}
