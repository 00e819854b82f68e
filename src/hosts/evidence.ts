// The first contact of an unknown host. An enrolment token, or a token of its cloud instance, makes its SSH key trusted from
// then on. Whoever has the token first becomes that host. A token therefore opens little, and a second key for the same name
// is refused with a reason.

import { sql, type SQL } from 'drizzle-orm';
import { decodeJwt } from 'jose';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { always, type Statements } from '../store/audit.sql.ts';
import * as enrolments from './enrolments.sql.ts';
import * as db from './hosts.sql.ts';
import { digestTaken } from '../bouncers/bouncers.ts';
import { keyOfBouncer, keyOfMachine, selectOwner } from '../bouncers/host-keys.sql.ts';
import { isLive } from '../bouncers/versions.ts';
import { conflict, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { HostIssuer } from '../config/issuers.ts';
import { digestOf } from '../crypto/secret.ts';
import { fingerprintOf, formatKey } from '../crypto/ssh-key.ts';
import { matchesGlob } from '../formats/glob.ts';
import { nameRule } from '../operations/fields.ts';
import { mutate, type Answer } from '../operations/mutate.ts';
import { claimAt, holds, verifyClaims } from '../operators/oidc.ts';
import { bouncerUnchanged, planVersion, registered, selectBouncerState } from './bouncer-key.ts';
import { isLiveEnrolment, nameOfBouncer } from './enrolments.ts';
import { hostMutation } from './registration.ts';
import type { Payload, SignedRequest } from './signed-request.ts';

/** What makes an unknown key trusted, and what the host may have. */
export interface EnrolmentEvidence {
  /** The name of its bouncer. */
  readonly bouncer: string;
  /** The engine at which it may have a machine's account; null: at none. */
  readonly machineEngine: string | null;
  /** For the audit log. */
  readonly by: Readonly<Record<string, string>>;
  /** The cloud instance, as `issuer:instance`; null: not known. */
  readonly instance: string | null;
  /** Whether it is newer than the removal of the host of this name, so that the name may be used again. */
  readonly canReplaceRemoved: (removed: db.Host) => boolean;
  /** SQL that must still hold when it is used. */
  readonly stillGood: SQL;
  readonly use: (d: DrizzleD1Database) => Statements;
}

/** What the host sends: an enrolment token, which D1 has to know, or a token of its instance, which was verified. */
export type Credential =
  | { readonly kind: 'enrolment'; readonly digest: string }
  | { readonly kind: 'instance'; readonly evidence: EnrolmentEvidence };

/** The credential of a request. 401: the instance's token is not good; 403: it is not this host's; 503: no issuer's keys. */
export async function readCredential(
  issuers: readonly HostIssuer[],
  { payload }: SignedRequest,
  nowMs: number,
): Promise<Result<Credential>> {
  const { enrolment_token: enrolment, identity_token: identity } = payload;
  if (enrolment !== undefined) return succeed({ kind: 'enrolment', digest: digestOf(enrolment) });
  if (identity !== undefined) return readInstance(issuers, identity, payload, nowMs);
  return fail({ kind: 'forbidden' });
}

async function readInstance(
  issuers: readonly HostIssuer[],
  token: string,
  { host, aud }: Payload,
  nowMs: number,
): Promise<Result<Credential>> {
  const issuer = issuers.find(({ issuer }) => issuer === claimedIssuer(token));
  if (!issuer) return fail({ kind: 'forbidden' });
  const trust = { ...issuer, audience: issuer.audience ?? aud };
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
  const evidence: EnrolmentEvidence = {
    bouncer: nameOfBouncer(issuer.bouncer, host),
    machineEngine: issuer.machine,
    by: { instance: id },
    instance: id,
    canReplaceRemoved: (removed) => removed.instance !== id,
    stillGood: always,
    use: () => [],
  };
  return succeed({ kind: 'instance', evidence });
}

function claimedIssuer(token: string): unknown {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

/** Null for whatever is wrong with an enrolment token: all of it has the same answer. */
function readEnrolment(
  found: enrolments.Enrolment | undefined,
  host: string,
  fingerprint: string,
  nowMs: number,
): EnrolmentEvidence | null {
  if (!found || !isLiveEnrolment(found, nowMs) || !matchesGlob(found.hosts, host)) return null;
  const use = { enrolmentId: found.id, host, fingerprint, atMs: nowMs };
  return {
    bouncer: nameOfBouncer(found.bouncer, host),
    machineEngine: found.machineEngine,
    by: { enrolment: found.ref },
    instance: null,
    canReplaceRemoved: (removed) => found.createdMs > (removed.removedMs ?? Infinity),
    stillGood: enrolments.hasPlace(found, host),
    use: (d) => enrolments.takePlaceStatements(d, use),
  };
}

const nameTaken = conflict('host', 'this name is another key’s');
const bouncerTaken = conflict('bouncer', 'there is a bouncer of this name already');
const keyTaken = conflict('public_key', 'this key, or this instance, is another host’s');

/** What a clash on a column means. */
const clashes: Readonly<Record<string, Failure>> = {
  'burnt_nonces.nonce': { kind: 'replayed' },
  'hosts.public_key': keyTaken,
  'hosts.instance': keyTaken,
  'host_keys.kind': bouncerTaken,
};

/** The first key of the host's bouncer. */
export interface FirstKey {
  readonly bouncer: string;
  readonly digest: string;
}

/**
 * Makes the host, its bouncer and the first version of the bouncer's key, in one batch. Without a `first` key the host alone
 * is made: it asks for its machine's account, and the nonce is burnt with that. Answers null when a copy of this request was
 * faster, so that the host is known with this very SSH key.
 */
export async function enrolHost(
  env: Env,
  { payload: { host: name }, nonce, bootId, key }: SignedRequest,
  credential: Credential,
  first: FirstKey | null,
  nowMs: number,
): Promise<Result<Answer> | null> {
  const publicKey = formatKey(key);
  const fingerprint = await fingerprintOf(key);
  const named = bouncerOf(credential, name);
  const reads = (d: DrizzleD1Database) =>
    [
      enrolments.selectByDigest(d, credential.kind === 'enrolment' ? credential.digest : '', name),
      db.selectBurnt(d, nonce),
      db.selectHost(d, name),
      selectOwner(d, { kind: 'bouncer', name: named }),
      ...selectBouncerState(d, named, first?.digest ?? null),
    ] as const;
  let known = false;
  const done = await mutate(hostMutation(env, name, nowMs), reads, (rows) => {
    const [[enrolment], burnt, [there], [owner], [bouncer], versions, [digestKnown]] = rows;
    known = false;
    const evidence =
      credential.kind === 'instance'
        ? credential.evidence
        : readEnrolment(enrolment, name, fingerprint, nowMs);
    if (!evidence) return fail({ kind: 'forbidden' });
    const { bouncer: bouncerName, machineEngine, instance } = evidence;
    const isAllowed = first ? first.bouncer === bouncerName : machineEngine !== null;
    if (!isAllowed || !nameRule.test(bouncerName)) return fail({ kind: 'forbidden' });
    if (first && burnt.length > 0) return fail({ kind: 'replayed' });
    if (there && there.removedMs === null) {
      known = there.publicKey === publicKey;
      return fail(nameTaken);
    }
    if (there?.publicKey === publicKey) return fail({ kind: 'host-revoked' });
    if (there && !evidence.canReplaceRemoved(there)) return fail({ kind: 'forbidden' });
    // A removed host leaves its bouncer without a key. No other bouncer may be taken over.
    if (owner || versions.some((version) => isLive(version, nowMs))) return fail(bouncerTaken);
    if (digestKnown?.holds) return fail(digestTaken);
    const state = { name: bouncerName, bouncer, versions };
    const version = first && planVersion(state, first.digest, noOverlap, null, nowMs);
    const times = { createdMs: nowMs, seenMs: nowMs };
    const row = { name, publicKey, fingerprint, ...times, instance, machineEngine };
    const keys = [
      { ...keyOfBouncer(bouncerName), generation: first ? 1 : 0, recoveriesLeft: 1 },
      ...(machineEngine === null ? [] : [{ ...keyOfMachine(name), recoveriesLeft: 1 }]),
    ];
    const detail = {
      ...evidence.by,
      fingerprint,
      bouncer: bouncerName,
      ...(version ? { number: version.number, start: first.digest.slice(0, 8), generation: 1 } : {}),
      ...(machineEngine === null ? {} : { machine: machineEngine }),
      ...(bootId === null ? {} : { boot_id: bootId }),
    };
    return succeed({
      entry: { action: 'host.enrol', target: name, detail },
      unchanged: sql`${evidence.stillGood} AND ${db.noLiveHost(name)}
        AND ${version?.unchanged ?? bouncerUnchanged(bouncerName, bouncer)}`,
      statements: (d) => [
        ...(first ? db.burnStatements(d, nonce, nowMs) : []),
        ...db.insertHostStatements(d, row, keys),
        ...evidence.use(d),
        ...(version?.statements(d) ?? []),
      ],
      answer: registered(bouncerName, 1, null),
      clash: (column) => clashes[column] ?? digestTaken,
    });
  });
  return known && !done.ok && done.failure === nameTaken ? null : done;
}

const noOverlap = { graceMs: null, maxOverlapMs: null };

/** The bouncer's name; of an enrolment that is not read yet, as SQL. */
function bouncerOf(credential: Credential, host: string): string | SQL {
  if (credential.kind === 'instance') return credential.evidence.bouncer;
  return sql`(SELECT replace(bouncer, '{host}', ${host}) FROM enrolments WHERE digest = ${credential.digest})`;
}
