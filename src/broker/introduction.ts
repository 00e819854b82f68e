// The first contact of a host that nobody knows: an enrolment token, or a token of its instance, makes its SSH key
// believed from then on. Whoever has the token first is that host, so what a token opens is narrow, and a second key
// for the same name is told to be one too many.

import { sql, type SQL } from 'drizzle-orm';
import type { BatchItem } from 'drizzle-orm/batch';
import { decodeJwt } from 'jose';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { insertStatements, type Bouncer } from '../db/bouncers.ts';
import * as enrolments from '../db/enrolments.ts';
import * as db from '../db/hosts.ts';
import { isKnownDigest, isRevoked, neverRevoked, planStatements } from '../db/keys.ts';
import { fail, succeed, type Failure, type Result } from '../failure.ts';
import type { HostIssuer } from '../host-issuers.ts';
import { digestOf } from '../secret.ts';
import { digestTaken } from './bouncers.ts';
import { isLiveEnrolment, nameOfBouncer } from './enrolments.ts';
import { nameRule } from './fields.ts';
import { matchesGlob } from './glob.ts';
import { mutate, type Answer } from './mutations.ts';
import { claimAt, holds, verifyClaims } from './oidc.ts';
import {
  bouncerUnchanged,
  hostMutation,
  planNew,
  readState,
  registered,
  type Registration,
} from './registration.ts';
import { isLive, type VersionPlan } from './rotation.ts';
import { fingerprintOf, formatKey, type PublicKey } from './ssh-key.ts';

/** What makes an unknown key believed, and for which bouncer. */
export interface Introduction {
  readonly bouncer: string;
  /** The engine at which it may have a machine's account; null: at none. */
  readonly machineEngine: string | null;
  /** For the audit log. */
  readonly by: Readonly<Record<string, string>>;
  readonly instance: string | null;
  /** It came after the host of this name was removed, so it brings the name back. */
  readonly bringsBack: (removed: db.Host) => boolean;
  /** SQL that must still hold when it is used. */
  readonly stillGood: SQL;
  readonly use: (d: DrizzleD1Database) => readonly BatchItem<'sqlite'>[];
}

/** By an enrolment token. All that may be wrong with one has the same answer. */
export async function byEnrolment(
  d1: D1Database,
  token: string,
  host: string,
  key: PublicKey,
  nowMs: number,
): Promise<Result<Introduction>> {
  const digest = await digestOf(token);
  const found = (await isRevoked(d1, digest)) ? null : await enrolments.findByDigest(d1, digest);
  if (!found || !isLiveEnrolment(found, nowMs) || !matchesGlob(found.hosts, host))
    return fail({ kind: 'forbidden' });
  const use = { enrolmentId: found.id, host, fingerprint: await fingerprintOf(key), atMs: nowMs };
  return succeed({
    bouncer: nameOfBouncer(found.bouncer, host),
    machineEngine: found.machineEngine,
    by: { enrolment: found.ref },
    instance: null,
    bringsBack: (removed) => found.createdMs > (removed.removedMs ?? Infinity),
    stillGood: enrolments.hasPlace(found, host),
    use: (d) => enrolments.takePlaceStatements(d, use),
  });
}

/** By a token of the instance. 401: it is not good; 403: it is, and is not this host's; 503: no keys of its issuer. */
export async function byInstance(
  issuers: readonly HostIssuer[],
  token: string,
  host: string,
  audience: string,
  nowMs: number,
): Promise<Result<Introduction>> {
  const issuer = issuers.find(({ issuer }) => issuer === claimedIssuer(token));
  if (!issuer) return fail({ kind: 'forbidden' });
  const trust = { ...issuer, audience: issuer.audience ?? audience };
  const verified = await verifyClaims(trust, token, nowMs);
  if (!verified.ok) return verified;
  const claims = verified.value;
  const instance = claimAt(claims, issuer.instanceClaim);
  const good =
    typeof instance === 'string' &&
    /^[\x21-\x7e]{1,200}$/.test(instance) &&
    claimAt(claims, issuer.hostClaim) === host &&
    matchesGlob(issuer.hosts, host) &&
    issuer.conditions.every((condition) => holds(condition, claims));
  if (!good) return fail({ kind: 'forbidden' });
  const id = `${issuer.name}:${instance}`;
  return succeed({
    bouncer: nameOfBouncer(issuer.bouncer, host),
    machineEngine: issuer.machine,
    by: { instance: id },
    instance: id,
    bringsBack: (removed) => removed.instance !== id,
    stillGood: sql`1`,
    use: () => [],
  });
}

function claimedIssuer(token: string): unknown {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

const nameTaken: Failure = { kind: 'conflict', problem: 'host: this name is another key’s' };
const bouncerTaken: Failure = {
  kind: 'conflict',
  problem: 'bouncer: there is a bouncer of this name already',
};
const keyTaken: Failure = {
  kind: 'conflict',
  problem: 'public_key: this key, or this instance, is another host’s',
};

/** What comes with a first contact. */
export interface FirstContact {
  readonly name: string;
  readonly key: PublicKey;
  readonly bootId: string | null;
  /** The first key of its bouncer, and the nonce that it came with; null: it came for something else first. */
  readonly first: Pick<Registration, 'bouncer' | 'digest' | 'nonce'> | null;
}

/**
 * Makes the host, its bouncer and the first version of its key, at once; or the host alone. Null: the host is there with
 * this very key by now (a copy of this request was faster), and registers as one that is known.
 */
export async function introduce(
  env: Env,
  { name, key, bootId, first }: FirstContact,
  introduction: Introduction,
  nowMs: number,
): Promise<Result<Answer> | null> {
  const bouncerName = introduction.bouncer;
  if ((first && first.bouncer !== bouncerName) || !nameRule.test(bouncerName)) {
    return fail({ kind: 'forbidden' });
  }
  const publicKey = formatKey(key);
  const fingerprint = await fingerprintOf(key);
  let known = false;
  const done = await mutate(hostMutation(env, name, nowMs), async () => {
    if (first && (await db.isBurnt(env.DB, first.nonce))) return fail({ kind: 'replayed' });
    const there = await db.findHost(env.DB, name);
    if (there && there.removedMs === null) {
      known = there.publicKey === publicKey;
      return fail(nameTaken);
    }
    if (there?.publicKey === publicKey) return fail({ kind: 'host-revoked' });
    if (there && !introduction.bringsBack(there)) return fail({ kind: 'forbidden' });
    const owner = await db.findHostKey(env.DB, bouncerName);
    const state = await readState(env.DB, bouncerName);
    // Only what a removed host has left may be taken over: a bouncer without a key.
    if (owner || state.versions.some((version) => isLive(version, nowMs))) return fail(bouncerTaken);
    if (first && (await isKnownDigest(env.DB, first.digest))) return fail(digestTaken);
    if (!(await enrolments.holdsNow(env.DB, introduction.stillGood))) return fail({ kind: 'forbidden' });
    const { bouncer } = state;
    const { plan, number } = planNew({ graceMs: null, maxOverlapMs: null }, state, null, nowMs);
    const row = {
      name,
      publicKey,
      fingerprint,
      createdMs: nowMs,
      seenMs: nowMs,
      instance: introduction.instance,
      machineEngine: introduction.machineEngine,
    };
    const keys = [
      { bouncer: bouncerName, generation: first ? 1 : 0, recoveriesLeft: 1 },
      ...(row.machineEngine === null ? [] : [{ bouncer: db.machineSlot(name), recoveriesLeft: 1 }]),
    ];
    const registering = first && { number, start: first.digest.slice(0, 8), generation: 1 };
    return succeed({
      entry: {
        action: 'host.enrol',
        target: name,
        detail: {
          ...introduction.by,
          fingerprint,
          bouncer: bouncerName,
          ...registering,
          ...(row.machineEngine === null ? {} : { machine: row.machineEngine }),
          ...(bootId === null ? {} : { boot_id: bootId }),
        },
      },
      unchanged: sql`${introduction.stillGood} AND ${db.noLiveHost(name)}
        AND ${bouncerUnchanged(bouncerName, bouncer)} AND ${first ? neverRevoked(first.digest) : sql`1`}`,
      statements: (d) => [
        ...(first ? db.burnStatements(d, first.nonce, nowMs) : []),
        ...db.insertHostStatements(d, row, keys),
        ...introduction.use(d),
        ...(first ? keyStatements(d, bouncer, plan, first, nowMs) : []),
      ],
      answer: { status: 200, body: registered(bouncerName, 1, null) },
      clash: (column) => clashOf(column),
    });
  });
  return known && !done.ok && done.failure === nameTaken ? null : done;
}

function keyStatements(
  d: DrizzleD1Database,
  bouncer: Bouncer | null,
  plan: VersionPlan,
  { bouncer: name, digest }: Pick<Registration, 'bouncer' | 'digest'>,
  nowMs: number,
) {
  return bouncer
    ? planStatements(d, bouncer, plan, digest, nowMs)
    : insertStatements(d, name, digest, null, nowMs);
}

function clashOf(column: string): Failure {
  switch (column) {
    case 'burnt_nonces.nonce':
      return { kind: 'replayed' };
    case 'hosts.public_key':
    case 'hosts.instance':
      return keyTaken;
    case 'host_keys.bouncer':
      return bouncerTaken;
    default:
      return digestTaken;
  }
}
