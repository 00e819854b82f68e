// Hosts as the broker meets them: a key, a challenge, a signed request. Settings of their own go past the bindings that
// all tests share.
import { env } from 'cloudflare:workers';
import { expect } from 'vitest';
import { toBase64 } from '../../src/formats/bytes.ts';
import { digestOf } from '../../src/crypto/secret.ts';
import { operator } from './http.ts';
import { makeSshKey, type SshKey } from './ssh.ts';
import { serveWith } from './edge.ts';

export const base = 'http://edge.example/bootstrap/v1';

export interface HostAnswer {
  status: number;
  body: any;
  headers: Headers;
}

export interface Sending {
  /** Where it comes from; a new address each time unless it is given. */
  address?: string;
  settings?: Record<string, unknown>;
}

let count = 0;

/** A request below /bootstrap/v1. Every answer that is not 200 is problem+json and repeats nothing secret. */
export async function bootstrap(
  path: string,
  body?: unknown,
  { address = `2001:db8:${(++count).toString(16)}::1`, settings = {} }: Sending = {},
): Promise<HostAnswer> {
  const init = {
    method: body === undefined ? 'GET' : 'POST',
    headers: { 'cf-connecting-ip': address },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  };
  const response = await serveWith({ ...env, ...settings }, `/bootstrap/v1${path}`, init);
  const text = await response.text();
  expect(text).not.toMatch(/cs[bem]_[0-9A-Za-z]{49}|-secret-of-the-tests/);
  const answer = { status: response.status, body: JSON.parse(text), headers: response.headers };
  if (answer.status === 200) return answer;
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  expect(answer.body).toMatchObject({ status: answer.status, type: expect.stringMatching(/^urn:lapidary:/) });
  if (answer.status === 409) expect(answer.body.errors).toMatchObject([{ field: expect.any(String) }]);
  return answer;
}

export async function nonce(sending?: Sending): Promise<string> {
  return (await bootstrap('/challenge', undefined, sending)).body.nonce;
}

export interface Envelope {
  payload: string;
  signature: string;
}

export async function signed(key: SshKey, payload: unknown, how = {}): Promise<Envelope> {
  const bytes = new TextEncoder().encode(typeof payload === 'string' ? payload : JSON.stringify(payload));
  return { payload: toBase64(bytes), signature: await key.sign(bytes, how) };
}

export interface TestHost {
  readonly name: string;
  readonly key: SshKey;
  /** What it counts. */
  generation: number;
  /** A whole payload; `changes` go over it, and undefined takes a field out. */
  payload(changes?: Record<string, unknown>): Promise<Record<string, unknown>>;
  request(changes?: Record<string, unknown>): Promise<Envelope>;
  /** Sends a request; keeps the generation of a good answer. */
  register(changes?: Record<string, unknown>, sending?: Sending): Promise<HostAnswer>;
  sendEngineKey(key: string, changes?: Record<string, unknown>, sending?: Sending): Promise<HostAnswer>;
  /** Asks for its account at an engine; counts as the broker does. */
  askMachine(password: string, changes?: Record<string, unknown>, sending?: Sending): Promise<HostAnswer>;
}

/** A key as a host makes one. */
export function makeKey(): string {
  return `csb_${crypto.randomUUID().replaceAll('-', '')}${crypto.randomUUID().replaceAll('-', '')}`.slice(
    0,
    53,
  );
}

export async function makeHost(name = 'web-1', key?: SshKey): Promise<TestHost> {
  const own = key ?? (await makeSshKey());
  const digest = await digestOf(makeKey());
  let engineGeneration = 0;
  let machineGeneration = 0;
  const host: TestHost = {
    name,
    key: own,
    generation: 0,
    payload: async (changes = {}) => ({
      v: 1,
      aud: `${base}/keys`,
      host: name,
      bouncer: name,
      nonce: 'nonce' in changes ? '' : await nonce(),
      key_sha512: digest,
      generation: host.generation,
      ...changes,
    }),
    request: async (changes) => signed(own, await host.payload(changes)),
    async register(changes, sending) {
      const answer = await bootstrap('/keys', await host.request(changes), sending);
      if (answer.status === 200) host.generation = answer.body.generation;
      return answer;
    },
    async sendEngineKey(engineKey, changes = {}, sending) {
      const payload = {
        v: 1,
        aud: `${base}/engine-key`,
        host: name,
        nonce: await nonce(),
        engine_key: engineKey,
        generation: engineGeneration,
        ...changes,
      };
      const answer = await bootstrap('/engine-key', await signed(own, payload), sending);
      if (answer.status === 200) engineGeneration = answer.body.generation;
      return answer;
    },
    async askMachine(password, changes = {}, sending) {
      const payload = {
        v: 1,
        aud: `${base}/machine`,
        host: name,
        nonce: await nonce(),
        machine_password: password,
        generation: machineGeneration,
        ...changes,
      };
      const answer = await bootstrap('/machine', await signed(own, payload), sending);
      if (answer.status === 200) machineGeneration = answer.body.generation;
      return answer;
    },
  };
  return host;
}

/** A host that operators know. */
export async function knownHost(name = 'web-1', fields: Record<string, unknown> = {}): Promise<TestHost> {
  const host = await makeHost(name);
  const { status, body } = await operator('PUT', `/hosts/${name}`, {
    public_key: host.key.publicKey,
    bouncers: [name],
    ...fields,
  });
  if (status !== 201) throw new Error(`host ${name}: ${status} ${JSON.stringify(body)}`);
  return host;
}

export async function enrolmentToken(fields: Record<string, unknown> = {}): Promise<string> {
  const { status, body } = await operator('POST', '/enrolments', { hosts: 'web-*', ...fields });
  if (status !== 201) throw new Error(`enrolment: ${status} ${JSON.stringify(body)}`);
  return body.token;
}

export async function shownHost(name = 'web-1'): Promise<any> {
  return (await operator('GET', `/hosts/${name}`)).body.host;
}

/** Actions of the audit log, the oldest first. */
export async function actions(): Promise<string[]> {
  const { audit } = (await operator('GET', '/audit?limit=1000')).body;
  return audit.map(({ action }: { action: string }) => action).reverse();
}

/** How the answers of many end, in order. */
export function kindsOf(answers: readonly HostAnswer[]): string[] {
  return answers
    .map(({ status, body }) => (status === 200 ? body.state : `${status} ${body.type.slice(13)}`))
    .sort();
}
