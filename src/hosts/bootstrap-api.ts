// The routes by which hosts register their keys. They are open to everybody, so the cheap checks come first: size, rate,
// signature, nonce, and only then the one batch of the database.

import { Hono, type Context } from 'hono';
import * as z from 'zod';
import { checkAudience, publicUrls } from './audience.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { findHost, type Host } from './hosts.sql.ts';
import { countRefusal } from '../feed/client.ts';
import { fail, problem, succeed, type Failure, type Result } from '../http/failure.ts';
import { consumeBootstrapLimit } from '../http/rate-limit.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { makeNonce, nonceLifeMs } from './challenge.ts';
import { isoTime, time } from '../operations/fields.ts';
import { registerBouncerKey } from './bouncer-key.ts';
import { registerEngineKey } from './engine-key.ts';
import { registerMachine } from './machine-account.ts';
import * as signed from './signed-request.ts';
import { enrolHost, readCredential, type FirstKey } from './evidence.ts';
import { noMachines } from '../machines/blocklist.ts';
import type { Answer } from '../operations/mutate.ts';
import type { Group } from '../operations/openapi.ts';
import { mount, operation, type Operation } from '../operations/operation.ts';
import { isFromLoopback } from './public-url.ts';
import { noteRefusal } from './refusals.ts';

const basePath = '/bootstrap/v1';

/** Failures that doubt who sent a request. */
const refusals = new Set<Failure['kind']>([
  'forbidden',
  'bad-nonce',
  'stale-nonce',
  'replayed',
  'host-revoked',
  'generation-mismatch',
]);

/** A route that takes a signed request. */
function registration<T extends signed.Payload>(
  definition: Pick<Operation, 'path' | 'summary' | 'description'> & {
    readonly payload: z.ZodObject & z.ZodType<T>;
    readonly answer: Operation['answers'][number];
    readonly refusals?: readonly number[];
    readonly register: (
      c: Context<AppEnv>,
      request: signed.SignedRequest<T>,
      nowMs: number,
    ) => Promise<Result<Answer>>;
  },
): Operation {
  const { payload, answer, refusals: further = [], register, ...described } = definition;
  return operation({
    ...described,
    description: `${described.description}\n\n${fieldsOf(payload)}`,
    method: 'POST',
    needs: null,
    body: signed.envelope,
    bodyLimitBytes: signed.envelopeLimitBytes,
    answers: { 200: answer },
    refusals: [400, 401, 403, 409, 410, 429, ...further],
    reply: async (c, { body }) => {
      const context = verificationContext(c, basePath + described.path);
      const request = await signed.readRequest(context, body, payload);
      const done = request.ok ? await register(c, request.value, context.nowMs) : request;
      c.header('cache-control', 'no-store');
      if (done.ok) return c.json(done.value.body);
      if (refusals.has(done.failure.kind)) countRefusal('host', done.failure.kind);
      return problem(done.failure);
    },
  });
}

const bootstrapOperations = [
  operation({
    method: 'GET',
    path: '/challenge',
    needs: null,
    summary: 'A nonce for a host to sign',
    description: 'Good for two minutes on this clock, and once. The host’s own clock is not asked for.',
    answers: {
      200: {
        description: 'A new one each time.',
        body: z.object({ nonce: z.string(), expires_at: time, server_time: time }),
      },
    },
    refusals: [429],
    reply: async (c) => {
      const nowMs = Date.now();
      const nonce = await makeNonce(secretsOf(c), nowMs);
      c.header('cache-control', 'no-store');
      return c.json({ nonce, expires_at: isoTime(nowMs + nonceLifeMs), server_time: isoTime(nowMs) });
    },
  }),
  registration({
    path: '/keys',
    summary: 'A host registers the digest of its bouncer’s key',
    description:
      'Signed with the host’s SSH key. The key itself stays on the host. `v` is 1, `aud` the address that the request ' +
      'is sent to, `generation` what the last answer said, 0 at first. A host that nobody knows sends `public_key`, ' +
      'and `enrolment_token` or `identity_token`.',
    payload: signed.keysPayload,
    answer: {
      description: '`unchanged`: this is the key that is registered already.',
      body: z.object({
        bouncer: z.string(),
        generation: z.int().meta({ description: 'For the host to keep, and to send with its next request.' }),
        state: z.enum(['registered', 'unchanged']),
        rotate: z.boolean().meta({ description: 'It is time for a new key.' }),
        valid_until: time.nullable(),
      }),
    },
    register: async (c, request, nowMs) => {
      const { bouncer, key_sha512: digest } = request.payload;
      const enrolled = request.host ? null : await enrol(c, request, { bouncer, digest }, nowMs);
      if (enrolled) return enrolled;
      const host = await hostOf(c, request);
      return host.ok ? registerBouncerKey(c.env, { ...request, host: host.value }, nowMs) : host;
    },
  }),
  registration({
    path: '/engine-key',
    summary: 'A host sends the key under which Lapidary pulls from its engine',
    description: 'For hosts with `engine: true`. The key is kept sealed, and used once the engine takes it.',
    payload: signed.engineKeyPayload,
    answer: {
      description: '`unchanged`: it was sent before.',
      body: z.object({ generation: z.int(), state: z.enum(['registered', 'unchanged']) }),
    },
    register: async (c, request, nowMs) => {
      const { host } = request;
      if (!host) return fail({ kind: 'forbidden' });
      return registerEngineKey(c.env, secretsOf(c), { ...request, host }, nowMs);
    },
  }),
  registration({
    path: '/machine',
    summary: 'A host gets its account at an engine, as a machine (a log processor)',
    description:
      'For hosts with `machine`. The host makes the password; it is passed to the engine and kept nowhere here. A ' +
      'repeated request is answered with the state of the account; a new password gets a new account.',
    payload: signed.machinePayload,
    answer: {
      description:
        '`registered`: the engine takes it; `unchanged`: it does as before; `waiting`: it wants ' +
        '`cscli machines validate` (engines before 1.6.3, or without a token for auto-registration).',
      body: z.object({
        machine: z.string().meta({ description: 'Its `machine_id`.' }),
        engine: z.string(),
        lapi_path: z
          .string()
          .meta({ description: 'What the broker’s address is followed by: `/` or `/engines/{name}/`.' }),
        generation: z.int(),
        state: z.enum(['registered', 'unchanged', 'waiting']),
      }),
    },
    refusals: [503],
    register: async (c, request, nowMs) => {
      const settings = c.get('settings');
      if (!settings.machineRoutes) return fail({ kind: 'unavailable', problem: noMachines });
      const enrolled = request.host ? null : await enrol(c, request, null, nowMs);
      if (enrolled && !enrolled.ok) return enrolled;
      const host = await hostOf(c, request);
      if (!host.ok) return host;
      const address = clientAddress(c.req.raw, settings);
      return registerMachine(c.env, settings.engines, { ...request, host: host.value }, address, nowMs);
    },
  }),
];

/** What a signed payload has in it. */
function fieldsOf({ shape }: z.ZodObject): string {
  const { must = [], may = [] } = Object.groupBy(Object.keys(shape), (name) => {
    return shape[name]?.safeParse(undefined).success ? 'may' : 'must';
  });
  const listed = (names: readonly string[]): string => names.map((name) => `\`${name}\``).join(', ');
  return `The payload has ${listed(must)}, and may have ${listed(may)}.`;
}

export const bootstrapApi: Group = { tag: 'hosts’ own', basePath, operations: bootstrapOperations };

export const bootstrapRoutes = new Hono<AppEnv>();

bootstrapRoutes.use(async (c, next) => {
  const settings = c.get('settings');
  if (!settings.bootstrap) {
    const why = 'hosts can not bootstrap: BOOTSTRAP_SECRET is not set (wrangler secret put BOOTSTRAP_SECRET)';
    return problem({ kind: 'unavailable', problem: why });
  }
  const waitSeconds = await consumeBootstrapLimit(c.env, clientAddress(c.req.raw, settings), Date.now());
  if (waitSeconds !== null) return problem({ kind: 'rate-limited', waitSeconds });
  return next();
});

mount(bootstrapRoutes, bootstrapOperations);

/** The secrets are set: without them every request is refused above. */
function secretsOf(c: Context<AppEnv>): BootstrapSecrets {
  return c.get('settings').bootstrap as BootstrapSecrets;
}

function verificationContext(c: Context<AppEnv>, path: string): signed.VerificationContext {
  const settings = c.get('settings');
  const request = c.req.raw;
  const nowMs = Date.now();
  return {
    d1: c.env.DB,
    secrets: secretsOf(c),
    checkAudience: (audience, fixed) =>
      checkAudience(publicUrls(settings, fixed), path, audience, isFromLoopback(request, settings)),
    // After the answer: how long it takes must not reveal which hosts there are.
    noteRefusal: (host, refusal) =>
      c.executionCtx.waitUntil(noteRefusal(c.env, host, refusal, clientAddress(request, settings), nowMs)),
    nowMs,
  };
}

/** Makes an unknown host known. Null: a copy of the request was faster, and registers as any known host's. */
async function enrol(
  c: Context<AppEnv>,
  request: signed.SignedRequest,
  first: FirstKey | null,
  nowMs: number,
): Promise<Result<Answer> | null> {
  const credential = await readCredential(c.get('settings').hostIssuers, request, nowMs);
  return credential.ok ? enrolHost(c.env, request, credential.value, first, nowMs) : credential;
}

/** The host that sent a request, which is known by now. */
async function hostOf(c: Context<AppEnv>, { host, payload }: signed.SignedRequest): Promise<Result<Host>> {
  const known = host ?? (await findHost(c.env.DB, payload.host));
  return known ? succeed(known) : fail({ kind: 'forbidden' });
}
