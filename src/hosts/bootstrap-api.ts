// The routes by which hosts register their keys themselves. Open to everybody, so all that is dear comes after what is
// cheap: size, rate, signature, nonce, and only then the database's one batch.

import { Hono, type Context } from 'hono';
import * as z from 'zod';
import { checkAudience, publicUrls } from './audience.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { findHost, type Host } from './hosts.sql.ts';
import { noteState } from '../machines/machines.sql.ts';
import { fail, problem, succeed, type Result } from '../http/failure.ts';
import { takeBootstrapTurn } from '../http/rate-limit.ts';
import { seal } from '../crypto/seal.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { makeNonce, nonceLifeMs } from './challenge.ts';
import { isoTime, time } from '../operations/fields.ts';
import { registerEngineKey } from './engine-key.ts';
import {
  engineKeyPayload,
  envelope,
  envelopeLimitBytes,
  keysPayload,
  machinePayload,
  readRequest,
  type Desk,
  type Shared,
  type SignedRequest,
} from './signed-request.ts';
import { giveMachine } from './machine-account.ts';
import { byEnrolment, byInstance, introduce, type Evidence } from './evidence.ts';
import { openAccount } from '../machines/account.ts';
import { registerKey } from './bouncer-key.ts';
import { noMachines } from '../machines/blocklist.ts';
import type { Answer } from '../operations/mutate.ts';
import type { Group } from '../operations/openapi.ts';
import { mount, operation } from '../operations/operation.ts';
import { isFromLoopback } from './public-url.ts';
import { noteRefusal } from './refusals.ts';
import { askFeed } from '../feed/client.ts';

const basePath = '/bootstrap/v1';
const refusals = [400, 401, 403, 409, 410, 429];

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
  operation({
    method: 'POST',
    path: '/keys',
    needs: null,
    summary: 'A host registers the digest of its bouncer’s key',
    description:
      'Signed with the host’s SSH key. The key itself stays on the host.\n\n' +
      `${fieldsOf(keysPayload)} \`v\` is 1, \`aud\` the address that the request is sent to, \`generation\` what the last ` +
      'answer said, 0 at first. A host that nobody knows sends `public_key`, and `enrolment_token` or `identity_token`.',
    body: envelope,
    bodyLimitBytes: envelopeLimitBytes,
    answers: {
      200: {
        description: '`unchanged`: this is the key that is registered already.',
        body: z.object({
          bouncer: z.string(),
          generation: z
            .int()
            .meta({ description: 'For the host to keep, and to send with its next request.' }),
          state: z.enum(['registered', 'unchanged']),
          rotate: z.boolean().meta({ description: 'It is time for a new key.' }),
          valid_until: time.nullable(),
        }),
      },
    },
    refusals,
    reply: async (c, { body }) => {
      const desk = deskOf(c, '/keys');
      const request = await readRequest(desk, body, keysPayload);
      return answered(c, request.ok ? await register(c, desk, request.value) : request);
    },
  }),
  operation({
    method: 'POST',
    path: '/engine-key',
    needs: null,
    summary: 'A host sends the key under which Lapidary pulls from its engine',
    description:
      'For hosts with `engine: true`. The key is kept sealed, and used once the engine takes it.\n\n' +
      fieldsOf(engineKeyPayload),
    body: envelope,
    bodyLimitBytes: envelopeLimitBytes,
    answers: {
      200: {
        description: '`unchanged`: it was sent before.',
        body: z.object({ generation: z.int(), state: z.enum(['registered', 'unchanged']) }),
      },
    },
    refusals,
    reply: async (c, { body }) => {
      const desk = deskOf(c, '/engine-key');
      const request = await readRequest(desk, body, engineKeyPayload);
      return answered(c, request.ok ? await keepEngineKey(c, desk, request.value) : request);
    },
  }),
  operation({
    method: 'POST',
    path: '/machine',
    needs: null,
    summary: 'A host gets its account at an engine, as a machine (a log processor)',
    description:
      'For hosts with `machine`. The host makes the password; it is passed to the engine and kept nowhere here. A host ' +
      'that repeats its request is told how the account stands; one that comes with a new password gets a new account.\n\n' +
      fieldsOf(machinePayload),
    body: envelope,
    bodyLimitBytes: envelopeLimitBytes,
    answers: {
      200: {
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
    },
    refusals: [...refusals, 503],
    reply: async (c, { body }) => {
      const desk = deskOf(c, '/machine');
      const request = await readRequest(desk, body, machinePayload);
      return answered(c, request.ok ? await openMachine(c, desk, request.value) : request);
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
  const waitSeconds = await takeBootstrapTurn(c.env, clientAddress(c.req.raw, settings), Date.now());
  if (waitSeconds !== null) return problem({ kind: 'rate-limited', waitSeconds });
  return next();
});

mount(bootstrapRoutes, bootstrapOperations);

/** Set: who has none was told so above. */
function secretsOf(c: Context<AppEnv>): BootstrapSecrets {
  return c.get('settings').bootstrap as BootstrapSecrets;
}

function deskOf(c: Context<AppEnv>, path: string): Desk {
  const settings = c.get('settings');
  const d1 = c.env.DB;
  const request = c.req.raw;
  const nowMs = Date.now();
  return {
    d1,
    secrets: secretsOf(c),
    checkAudience: (audience, fixed) =>
      checkAudience(
        publicUrls(settings, fixed),
        basePath + path,
        audience,
        isFromLoopback(request, settings),
      ),
    // Beside the answer: how long it takes tells nobody which hosts there are.
    noteRefusal: (host, refusal) =>
      c.executionCtx.waitUntil(noteRefusal(c.env, host, refusal, clientAddress(request, settings), nowMs)),
    nowMs,
  };
}

type KeysRequest = SignedRequest<z.output<typeof keysPayload>>;

async function register(c: Context<AppEnv>, desk: Desk, request: KeysRequest): Promise<Result<Answer>> {
  const { d1, nowMs } = desk;
  const { payload, nonce, key, host } = request;
  const asked = {
    bouncer: payload.bouncer,
    generation: payload.generation,
    digest: payload.key_sha512,
    nonce,
    bootId: payload.boot_id ?? null,
  };
  if (host) return registerKey(c.env, { ...asked, host }, nowMs);
  const evidence = await evidenceOf(c, desk, request);
  if (!evidence.ok) return evidence;
  const contact = { name: payload.host, key, bootId: asked.bootId, first: asked, needsMachine: false };
  const made = await introduce(c.env, contact, evidence.value, nowMs);
  if (made) return made;
  // Somebody was faster with the same key: this host's own copy of the request.
  const known = await findHost(d1, payload.host);
  return known ? registerKey(c.env, { ...asked, host: known }, nowMs) : fail({ kind: 'forbidden' });
}

async function evidenceOf(
  c: Context<AppEnv>,
  { nowMs }: Desk,
  { payload }: SignedRequest<Shared>,
): Promise<Result<Evidence>> {
  const { enrolment_token: enrolment, identity_token: identity, host, aud } = payload;
  if (enrolment !== undefined) return succeed(await byEnrolment(enrolment));
  if (identity !== undefined) return byInstance(c.get('settings').hostIssuers, identity, host, aud, nowMs);
  return fail({ kind: 'forbidden' });
}

async function keepEngineKey(
  c: Context<AppEnv>,
  { secrets, nowMs }: Desk,
  { payload, nonce, host }: SignedRequest<z.output<typeof engineKeyPayload>>,
): Promise<Result<Answer>> {
  if (!host) return fail({ kind: 'forbidden' });
  const { generation, engine_key: engineKey, boot_id: bootId = null } = payload;
  const kept = await registerEngineKey(c.env, { host, generation, nonce, bootId, engineKey }, nowMs);
  if (!kept.ok) return kept;
  // Also when it was sent before: the feed may not have been told then.
  const sealed = await seal(secrets, host.name, engineKey);
  const offered = await askFeed(c.env, async (feed) => feed.offerEngineKey(host.name, sealed));
  return offered.ok ? kept : offered;
}

type MachineRequest = SignedRequest<z.output<typeof machinePayload>>;

async function openMachine(c: Context<AppEnv>, desk: Desk, request: MachineRequest): Promise<Result<Answer>> {
  const { d1, nowMs } = desk;
  const settings = c.get('settings');
  if (!settings.machineRoutes) return fail({ kind: 'unavailable', problem: noMachines });
  const { generation, machine_password: password, boot_id: bootId = null } = request.payload;
  const host = await hostOf(c, desk, request);
  if (!host.ok) return host;
  const asked = { host: host.value, generation, nonce: request.nonce, bootId, password };
  const given = await giveMachine(c.env, settings.engines, asked, nowMs);
  if (!given.ok) return given;
  const { engine, known, machine, hostId } = given.value;
  const opened = await openAccount(engine, given.value, known, clientAddress(c.req.raw, settings));
  if (!opened.ok) return opened;
  await noteState(d1, { hostId, machine, validatedMs: opened.value === 'validated' ? nowMs : null });
  return succeed({
    status: 200,
    body: {
      machine,
      engine: engine.name,
      lapi_path: engine === settings.engines[0] ? '/' : `/engines/${engine.name}/`,
      generation: given.value.generation,
      state: opened.value === 'waiting' ? 'waiting' : known ? 'unchanged' : 'registered',
    },
  });
}

/** The host that asks; one that comes for its machine first is made known, and registers its bouncer's key later. */
async function hostOf(c: Context<AppEnv>, desk: Desk, request: MachineRequest): Promise<Result<Host>> {
  const { d1, nowMs } = desk;
  const { payload, key, host } = request;
  if (host) return succeed(host);
  const evidence = await evidenceOf(c, desk, request);
  if (!evidence.ok) return evidence;
  const bootId = payload.boot_id ?? null;
  const contact = { name: payload.host, key, bootId, first: null, needsMachine: true };
  const made = await introduce(c.env, contact, evidence.value, nowMs);
  if (made && !made.ok) return made;
  const known = await findHost(d1, payload.host);
  return known ? succeed(known) : fail({ kind: 'forbidden' });
}

function answered(c: Context<AppEnv>, answer: Result<Answer>): Response {
  c.header('cache-control', 'no-store');
  return answer.ok ? c.json(answer.value.body) : problem(answer.failure);
}
