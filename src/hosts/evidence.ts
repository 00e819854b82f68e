// The first contact of a host that nobody knows: an enrolment token, or a token of its instance, makes its SSH key
// believed from then on. Whoever has the token first is that host, so what a token opens is narrow, and a second key
// for the same name is told to be one too many.

import { sql, type SQL } from 'drizzle-orm';
import { decodeJwt } from 'jose';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { always, type Statements } from '../store/audit.sql.ts';
import * as enrolments from './enrolments.sql.ts';
import * as db from './hosts.sql.ts';
import { neverRevoked } from '../bouncers/keys.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { HostIssuer } from '../config/issuers.ts';
import { digestOf } from '../crypto/secret.ts';
import {
  bouncerUnchanged,
  newKeyStatements,
  planNew,
  registered,
  selectBouncerState,
} from './bouncer-key.ts';
import { digestTaken } from '../bouncers/bouncers.ts';
import { isLiveEnrolment, nameOfBouncer } from './enrolments.ts';
import { nameRule } from '../operations/fields.ts';
import { matchesGlob } from '../formats/glob.ts';
import { mutate, type Answer } from '../operations/mutate.ts';
import { claimAt, holds, verifyClaims } from '../operators/oidc.ts';
import { hostMutation } from './registration.ts';
import { isLive } from '../bouncers/versions.ts';
import { fingerprintOf, formatKey, type PublicKey } from '../crypto/ssh-key.ts';
import { bouncerSlot, machineSlot, selectOwner } from '../bouncers/host-keys.sql.ts';

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
  readonly use: (d: DrizzleD1Database) => Statements;
}

/** What a host brings: the digest of an enrolment token, which D1 has to know, or an introduction that needs no D1. */
export type Evidence =
  | { readonly kind: 'enrolment'; readonly digest: string }
  | { readonly kind: 'instance'; readonly introduction: Introduction };

/** An enrolment token. Whether it is one, and good, is read with all the rest that is decided on. */
export async function byEnrolment(token: string): Promise<Evidence> {
  return { kind: 'enrolment', digest: await digestOf(token) };
}

/** All that may be wrong with an enrolment token has the same answer: null. */
function openedBy(
  found: enrolments.Enrolment | undefined,
  { name: host }: FirstContact,
  fingerprint: string,
  nowMs: number,
): Introduction | null {
  if (!found || !isLiveEnrolment(found, nowMs) || !matchesGlob(found.hosts, host)) return null;
  const use = { enrolmentId: found.id, host, fingerprint, atMs: nowMs };
  return {
    bouncer: nameOfBouncer(found.bouncer, host),
    machineEngine: found.machineEngine,
    by: { enrolment: found.ref },
    instance: null,
    bringsBack: (removed) => found.createdMs > (removed.removedMs ?? Infinity),
    stillGood: enrolments.hasPlace(found, host),
    use: (d) => enrolments.takePlaceStatements(d, use),
  };
}

/** By a token of the instance. 401: it is not good; 403: it is, and is not this host's; 503: no keys of its issuer. */
export async function byInstance(
  issuers: readonly HostIssuer[],
  token: string,
  host: string,
  audience: string,
  nowMs: number,
): Promise<Result<Evidence>> {
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
  const introduction: Introduction = {
    bouncer: nameOfBouncer(issuer.bouncer, host),
    machineEngine: issuer.machine,
    by: { instance: id },
    instance: id,
    bringsBack: (removed) => removed.instance !== id,
    stillGood: always,
    use: () => [],
  };
  return succeed({ kind: 'instance', introduction });
}

function claimedIssuer(token: string): unknown {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

const nameTaken: Failure = { kind: 'conflict', field: 'host', problem: 'this name is another key’s' };
const bouncerTaken: Failure = {
  kind: 'conflict',
  field: 'bouncer',
  problem: 'there is a bouncer of this name already',
};
const keyTaken: Failure = {
  kind: 'conflict',
  field: 'public_key',
  problem: 'this key, or this instance, is another host’s',
};

/** What comes with a first contact. */
export interface FirstContact {
  readonly name: string;
  readonly key: PublicKey;
  readonly bootId: string | null;
  /** The first key of its bouncer, and the nonce that it came with; null: it came for something else first. */
  readonly first: { readonly bouncer: string; readonly digest: string; readonly nonce: db.Nonce } | null;
  /** It comes for a machine's account, which what it brings must be good for. */
  readonly needsMachine: boolean;
}

/**
 * Makes the host, its bouncer and the first version of its key, at once; or the host alone. Null: the host is there with
 * this very key by now (a copy of this request was faster), and registers as one that is known.
 */
export async function introduce(
  env: Env,
  contact: FirstContact,
  evidence: Evidence,
  nowMs: number,
): Promise<Result<Answer> | null> {
  const { name, key, bootId, first } = contact;
  const publicKey = formatKey(key);
  const fingerprint = await fingerprintOf(key);
  const named = bouncerOf(evidence, name);
  const reads = (d: DrizzleD1Database) =>
    [
      enrolments.selectByDigest(d, evidence.kind === 'enrolment' ? evidence.digest : '', name),
      db.selectBurnt(d, first?.nonce ?? { text: '', expiresMs: 0 }),
      db.selectHost(d, name),
      selectOwner(d, { kind: 'bouncer', name: named }),
      ...selectBouncerState(d, named, first?.digest ?? null),
    ] as const;
  let known = false;
  const done = await mutate(hostMutation(env, name, nowMs), reads, (rows) => {
    const [[enrolment], burnt, [there], [owner], [bouncer], versions, [digestKnown]] = rows;
    known = false;
    const introduction =
      evidence.kind === 'instance' ? evidence.introduction : openedBy(enrolment, contact, fingerprint, nowMs);
    if (!introduction) return fail({ kind: 'forbidden' });
    const { bouncer: bouncerName, machineEngine } = introduction;
    const fits = first === null || first.bouncer === bouncerName;
    if (!fits || !nameRule.test(bouncerName)) return fail({ kind: 'forbidden' });
    if (contact.needsMachine && machineEngine === null) return fail({ kind: 'forbidden' });
    if (burnt.length > 0) return fail({ kind: 'replayed' });
    if (there && there.removedMs === null) {
      known = there.publicKey === publicKey;
      return fail(nameTaken);
    }
    if (there?.publicKey === publicKey) return fail({ kind: 'host-revoked' });
    if (there && !introduction.bringsBack(there)) return fail({ kind: 'forbidden' });
    // Only what a removed host has left may be taken over: a bouncer without a key.
    if (owner || versions.some((version) => isLive(version, nowMs))) return fail(bouncerTaken);
    if (digestKnown?.holds) return fail(digestTaken);
    const { plan, number } = planNew(
      { graceMs: null, maxOverlapMs: null },
      { bouncer, versions },
      null,
      nowMs,
    );
    const row = {
      name,
      publicKey,
      fingerprint,
      createdMs: nowMs,
      seenMs: nowMs,
      instance: introduction.instance,
      machineEngine,
    };
    const keys = [
      { ...bouncerSlot(bouncerName), generation: first ? 1 : 0, recoveriesLeft: 1 },
      ...(machineEngine === null ? [] : [{ ...machineSlot(name), recoveriesLeft: 1 }]),
    ];
    return succeed({
      entry: {
        action: 'host.enrol',
        target: name,
        detail: {
          ...introduction.by,
          fingerprint,
          bouncer: bouncerName,
          ...(first ? { number, start: first.digest.slice(0, 8), generation: 1 } : {}),
          ...(machineEngine === null ? {} : { machine: machineEngine }),
          ...(bootId === null ? {} : { boot_id: bootId }),
        },
      },
      unchanged: sql`${introduction.stillGood} AND ${db.noLiveHost(name)}
        AND ${bouncerUnchanged(bouncerName, bouncer)} AND ${first ? neverRevoked(first.digest) : always}`,
      statements: (d) => [
        ...(first ? db.burnStatements(d, first.nonce, nowMs) : []),
        ...db.insertHostStatements(d, row, keys),
        ...introduction.use(d),
        ...(first
          ? newKeyStatements(
              d,
              { name: bouncerName, bouncer, plan, digest: first.digest, expiresMs: null },
              nowMs,
            )
          : []),
      ],
      answer: registered(bouncerName, 1, null),
      clash: (column) => clashOf(column),
    });
  });
  return known && !done.ok && done.failure === nameTaken ? null : done;
}

/** The bouncer's name; of an enrolment that is not read yet, as SQL. */
function bouncerOf(evidence: Evidence, host: string): string | SQL {
  if (evidence.kind === 'instance') return evidence.introduction.bouncer;
  return sql`(SELECT replace(bouncer, '{host}', ${host}) FROM enrolments WHERE digest = ${evidence.digest})`;
}

function clashOf(column: string): Failure {
  switch (column) {
    case 'burnt_nonces.nonce':
      return { kind: 'replayed' };
    case 'hosts.public_key':
    case 'hosts.instance':
      return keyTaken;
    case 'host_keys.kind':
      return bouncerTaken;
    default:
      return digestTaken;
  }
}
