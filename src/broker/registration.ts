// A known host registers a key: decided on what is there, written in one batch with its nonce, its count and its audit
// row. The count (`generation`) is what tells a host from its copy: it is asked for after the signature, so that no
// stranger can bring a host into suspicion.

import { findBouncer, insertStatements, noBouncer, type Bouncer } from '../db/bouncers.ts';
import * as db from '../db/hosts.ts';
import {
  atRevision,
  isKnownDigest,
  neverRevoked,
  planStatements,
  versionsOf,
  type KeyVersion,
} from '../db/keys.ts';
import { takeMachineStatements } from '../db/machines.ts';
import { fail, succeed, type Result } from '../failure.ts';
import { digestTaken } from './bouncers.ts';
import { isoTime } from './describe.ts';
import { mutate, type Answer, type Draft, type Mutation } from './mutations.ts';
import { defaultOverlap, endOf, isLive, planRotation, type Overlap, type VersionPlan } from './rotation.ts';
import { sql } from 'drizzle-orm';

/** What a host asks for, its signature checked. */
export interface Registration {
  readonly host: db.Host;
  readonly bouncer: string;
  readonly generation: number;
  readonly digest: string;
  readonly nonce: db.Nonce;
  readonly bootId: string | null;
}

/** What a bouncer has, for a new version to be added to. */
export interface BouncerState {
  readonly bouncer: Bouncer | null;
  readonly versions: readonly KeyVersion[];
}

export function hostMutation(env: Env, host: string, nowMs: number): Mutation {
  return { env, actor: actorOf(host), nowMs, expectedRevision: null, idempotency: null };
}

function actorOf(host: string): string {
  return `host:${host}`;
}

/** `mismatch`: what is written is the suspicion. */
export async function registerKey(env: Env, asked: Registration, nowMs: number): Promise<Result<Answer>> {
  const { host, digest, nonce } = asked;
  // A repetition changes nothing: it is answered from inside the decision, which then has nothing to write.
  let repeated: Result<Answer> | undefined;
  const done = await mutate(hostMutation(env, host.name, nowMs), async () => {
    if (await db.isBurnt(env.DB, nonce)) return fail({ kind: 'replayed' });
    const found = await readSlot(env.DB, asked.host, asked.bouncer);
    if (!found.ok) return found;
    const { host, hostKey } = found.value;
    const state = await readState(env.DB, asked.bouncer);
    const { versions } = state;
    const own = versions.find((version) => version.digest === digest && isLive(version, nowMs));
    if (own) {
      const lost = own === versions.at(-1) && asked.generation === hostKey.generation - 1;
      if (!lost && asked.generation !== hostKey.generation) {
        return hostKey.recoveryAllowed
          ? recount(host, hostKey, own, nonce, nowMs)
          : mismatch(host, hostKey, asked, nowMs);
      }
      const burnt = await db.burn(env.DB, nonce, host.id, nowMs);
      repeated = burnt ? succeed(unchanged(hostKey, own, nowMs)) : fail({ kind: 'replayed' });
      return fail({ kind: 'replayed' });
    }
    if (await isKnownDigest(env.DB, digest)) return fail(digestTaken);
    const leave = mayRegister(host, hostKey, asked.generation);
    if (!leave) return mismatch(host, hostKey, asked, nowMs);
    return register(asked, hostKey, state, leave, nowMs);
  });
  return repeated ?? told(done);
}

/** What a host is told: of a suspicion that was written (`mismatch`), the refusal. */
export function told(done: Result<Answer>): Result<Answer> {
  if (!done.ok || done.value.status !== 409) return done;
  const { what, generation } = done.value.body;
  return fail({ kind: 'generation-mismatch', what: String(what), generation: Number(generation) });
}

/** What a host registers, in an operator's words. */
function wordsFor(slot: string): string {
  if (slot === db.engineSlot) return 'engine';
  return db.isBouncers({ bouncer: slot }) ? `bouncer ${slot}` : 'machine';
}

/** The host as it is now, and its right to a key. It has signed, so it is told what it lacks; not whether another has it. */
export async function readSlot(
  d1: D1Database,
  { id, name }: db.Host,
  slot: string,
): Promise<Result<{ host: db.Host; hostKey: db.HostKey }>> {
  const host = await db.findHost(d1, name);
  if (host?.id !== id) return fail({ kind: 'forbidden' });
  if (host.removedMs !== null) return fail({ kind: 'host-revoked' });
  const found = await db.findHostKey(d1, slot);
  if (found?.hostKey.hostId === id) return succeed({ host, hostKey: found.hostKey });
  const problem = `host ${name} has no ${wordsFor(slot)}: an operator has to name it (PUT /api/v1/hosts/${name})`;
  return fail({ kind: 'forbidden', problem });
}

export async function readState(d1: D1Database, name: string): Promise<BouncerState> {
  const bouncer = await findBouncer(d1, name);
  return { bouncer, versions: bouncer ? await versionsOf(d1, [bouncer.id]) : [] };
}

/** Why a host may register: its count is right, or it lost it and may begin anew. `to`: what that uses up. */
export interface Leave {
  readonly why: 'in-order' | 'recovery-allowed' | 'recovery-automatic';
  readonly to: Partial<db.HostKey>;
}

export function mayRegister(host: db.Host, hostKey: db.HostKey, generation: number): Leave | null {
  // A right that nobody has used has no copy: whoever was removed and is known again brings the count that it had.
  if (generation === hostKey.generation || hostKey.generation === 0) return { why: 'in-order', to: {} };
  if (hostKey.recoveryAllowed) return { why: 'recovery-allowed', to: { recoveryAllowed: false } };
  if (generation !== 0) return null;
  if (host.mode === 'relaxed') return { why: 'recovery-automatic', to: {} };
  if (host.mode === 'strict' || hostKey.recoveriesLeft === 0) return null;
  return { why: 'recovery-automatic', to: { recoveriesLeft: hostKey.recoveriesLeft - 1 } };
}

function register(
  { bouncer: name, digest, nonce, bootId, host }: Registration,
  hostKey: db.HostKey,
  { bouncer, versions }: BouncerState,
  { why, to }: Leave,
  nowMs: number,
): Result<Draft> {
  const expiresMs = endOfNew(hostKey, versions, nowMs);
  const { plan, number } = planNew(hostKey, { bouncer, versions }, expiresMs, nowMs);
  const generation = hostKey.generation + 1;
  return succeed({
    entry: {
      action: why === 'in-order' ? 'host.register' : 'host.recover',
      target: host.name,
      detail: {
        bouncer: name,
        number,
        start: digest.slice(0, 8),
        generation,
        ...(why === 'in-order' ? {} : { by: why === 'recovery-allowed' ? 'operator' : 'automatic' }),
        revoked: plan.revoke.map((version) => version.number),
        ...(bootId === null ? {} : { boot_id: bootId }),
      },
    },
    unchanged: sql`${bouncerUnchanged(name, bouncer)} AND ${db.atGeneration(hostKey)} AND ${neverRevoked(digest)}`,
    statements: (d) => [
      ...db.burnStatements(d, nonce, nowMs),
      ...(bouncer
        ? planStatements(d, bouncer, plan, digest, nowMs)
        : insertStatements(d, name, digest, expiresMs, nowMs)),
      ...db.registeredStatements(d, hostKey, to, nowMs),
    ],
    answer: { status: 200, body: registered(name, generation, expiresMs) },
    clash: (column) => (column === 'burnt_nonces.nonce' ? { kind: 'replayed' } : digestTaken),
  });
}

export function bouncerUnchanged(name: string, bouncer: Bouncer | null) {
  return bouncer ? atRevision(bouncer) : noBouncer(name);
}

export function registered(bouncer: string, generation: number, expiresMs: number | null): Answer['body'] {
  return { bouncer, generation, state: 'registered', rotate: false, valid_until: isoTime(expiresMs) };
}

/** The new version: the next one where there is one in use, else the one to be used. */
export function planNew(
  asked: Pick<db.HostKey, 'graceMs' | 'maxOverlapMs'>,
  { bouncer, versions }: BouncerState,
  expiresMs: number | null,
  nowMs: number,
): { plan: VersionPlan; number: number } {
  const inUse = versions.some((version) => version.state === 'current' && isLive(version, nowMs));
  const overlap: Overlap = {
    graceMs: inUse ? (asked.graceMs ?? defaultOverlap.graceMs) : 0,
    maxOverlapMs: asked.maxOverlapMs ?? defaultOverlap.maxOverlapMs,
  };
  return {
    plan: planRotation(versions, overlap, expiresMs, nowMs),
    number: (bouncer?.versionCount ?? 0) + 1,
  };
}

/** A version lives as long as the rotation asked for, or as the version before it. */
function endOfNew(hostKey: db.HostKey, versions: readonly KeyVersion[], nowMs: number): number | null {
  const before = versions.at(-1);
  const lifeMs = hostKey.lifeMs ?? (before?.expiresMs == null ? null : before.expiresMs - before.createdMs);
  return lifeMs === null ? null : nowMs + lifeMs;
}

/** Of a version's life, after which a new one is due. */
const oldAfter = 0.75;

function unchanged(hostKey: db.HostKey, own: KeyVersion, nowMs: number): Answer {
  const { createdMs, expiresMs } = own;
  const asked = hostKey.rotationAskedMs !== null && hostKey.rotationAskedMs <= nowMs;
  const old = expiresMs !== null && nowMs - createdMs >= oldAfter * (expiresMs - createdMs);
  // The deadline of a `next` is lifted when it is used.
  const endMs = own.state === 'next' ? (expiresMs ?? Infinity) : endOf(own);
  const body = {
    bouncer: hostKey.bouncer,
    generation: hostKey.generation,
    state: 'unchanged',
    rotate: asked || old || own.state === 'previous',
    valid_until: Number.isFinite(endMs) ? isoTime(endMs) : null,
  };
  return { status: 200, body };
}

/** An operator's leave, used by a host that has its key and only lost count: it is told the count. */
function recount(
  host: db.Host,
  hostKey: db.HostKey,
  own: KeyVersion,
  nonce: db.Nonce,
  nowMs: number,
): Result<Draft> {
  const { bouncer, generation } = hostKey;
  const { number } = own;
  return succeed({
    entry: {
      action: 'host.recover',
      target: host.name,
      detail: { bouncer, number, generation, by: 'operator' },
    },
    unchanged: db.atGeneration(hostKey),
    statements: (d) => [...db.burnStatements(d, nonce, nowMs), ...db.useRecoveryStatements(d, hostKey)],
    answer: unchanged(hostKey, own, nowMs),
    clash: () => ({ kind: 'replayed' }),
  });
}

/** Notes that there may be a copy of a host. The nonce is burnt, so nobody else can repeat the suspicion. */
export function mismatch(
  host: db.Host,
  hostKey: db.HostKey,
  asked: Pick<Registration, 'generation' | 'nonce' | 'bootId'>,
  nowMs: number,
): Result<Draft> {
  const strict = host.mode === 'strict';
  const taken = { blockedMs: nowMs, actor: actorOf(host.name), reason: 'there may be a copy of its host' };
  return succeed({
    entry: {
      action: 'host.clone-suspected',
      target: host.name,
      detail: {
        bouncer: hostKey.bouncer,
        generation: hostKey.generation,
        claimed: asked.generation,
        revoked: strict,
        ...(asked.bootId === null ? {} : { boot_id: asked.bootId }),
      },
    },
    unchanged: db.atGeneration(hostKey),
    statements: (d) => [
      ...db.burnStatements(d, asked.nonce, nowMs),
      ...db.suspectStatements(d, host, nowMs),
      ...(strict
        ? [...db.revokeKeysStatements(d, host, nowMs), ...takeMachineStatements(d, host.id, taken)]
        : []),
    ],
    answer: { status: 409, body: { what: wordsFor(hostKey.bouncer), generation: hostKey.generation } },
    clash: () => ({ kind: 'replayed' }),
  });
}
