// A known host registers a key. The decision is made on what D1 has now, and is written in one batch with the nonce, the
// new generation and the audit row. What differs between the kinds of keys is in bouncer-key.ts, engine-key.ts and
// machine-account.ts.
//
// The generation counts a key's registrations. The host keeps it and sends it with its next request. A wrong one means that
// a copy of the host may exist. It is looked at after the signature is verified, so that no stranger can raise a suspicion.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { always, type AuditEntry, type RowsOf, type Statements } from '../store/audit.sql.ts';
import * as db from './hosts.sql.ts';
import { selectOwner, type HostKey, type KeyName, type Owned } from '../bouncers/host-keys.sql.ts';
import { takeMachineStatements } from '../machines/machines.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { mutate, mutationBy } from '../operations/mutate.ts';
import type { Answer, Draft, Mutation } from '../operations/mutate.ts';
import type { KnownRequest } from './signed-request.ts';

/** A host as D1 has it now, and its right to a key. */
export interface Right {
  readonly host: db.Host;
  readonly hostKey: HostKey;
}

/** What differs between the kinds of keys. */
export interface Kind<Reads extends Statements> {
  readonly key: KeyName;
  readonly reads: (d: DrizzleD1Database) => Reads;
  /** A failure refuses the request, whatever it asks for. */
  readonly decide: (rows: RowsOf<Reads>, right: Right) => Result<Options>;
}

interface Options {
  /** Null: the request has another key than the registered one. */
  readonly repeated: Repeated | null;
  /** `generation`: the one that the host is to keep. */
  readonly register: (grant: RegistrationGrant, generation: number) => Result<NewKey>;
}

/** The request has the key that is registered already. */
interface Repeated {
  readonly answer: Answer;
  /** The answer to the registration may have been lost, so the generation before it is right as well. */
  readonly mayBeBehind: boolean;
  /** Given a wrong generation, the key may be registered once more. If not, only an operator's permission helps. */
  readonly again: boolean;
}

/** What is written for a new key. */
export interface NewKey {
  readonly entry: Pick<AuditEntry, 'action' | 'detail'>;
  /** SQL that must hold when it is written, besides the host's right. */
  readonly unchanged: SQL;
  readonly statements: (d: DrizzleD1Database) => Statements;
  readonly answer: Answer;
  /** What a clash means on any other column than the nonce's. */
  readonly clash: Failure;
}

/** Why a host may register a key: its generation is right, or it may start again. */
export interface RegistrationGrant {
  readonly reason: 'in-order' | 'recovery-allowed' | 'recovery-automatic';
  /** What the grant uses up, as changes of the host's key. */
  readonly uses: Partial<HostKey>;
}

/** `generation-mismatch`: the suspicion is written, the key is not. */
export async function register<const Reads extends Statements>(
  env: Env,
  request: KnownRequest,
  nowMs: number,
  kind: Kind<Reads>,
): Promise<Result<Answer>> {
  const { nonce, payload } = request;
  const reads = (d: DrizzleD1Database) => [...selectRight(d, request, kind.key), ...kind.reads(d)] as const;
  let isUnchanged = false;
  const done = await mutate(hostMutation(env, request.host.name, nowMs), reads, (all) => {
    const [burnt, [host], [owner], ...rows] = all as unknown as RowsOf<ReturnType<typeof selectRight>>;
    isUnchanged = false;
    if (burnt.length > 0) return fail({ kind: 'replayed' });
    const right = rightOf(request, kind.key, host, owner);
    if (!right.ok) return right;
    const options = kind.decide(rows as unknown as RowsOf<Reads>, right.value);
    if (!options.ok) return options;
    const { repeated } = options.value;
    const { hostKey } = right.value;
    const behind = hostKey.generation - payload.generation;
    isUnchanged = repeated !== null && (behind === 0 || (behind === 1 && repeated.mayBeBehind));
    if (repeated && isUnchanged) return succeed({ as: repeated.answer });
    if (repeated && !repeated.again) {
      return hostKey.recoveryAllowed
        ? recount(right.value, repeated.answer, request, nowMs)
        : mismatch(right.value, request, nowMs);
    }
    const grant = grantOf(right.value, payload.generation);
    if (!grant) return mismatch(right.value, request, nowMs);
    const made = options.value.register(grant, hostKey.generation + 1);
    if (!made.ok) return made;
    const statements = (d: DrizzleD1Database) => [
      ...made.value.statements(d),
      ...db.registeredStatements(d, hostKey, grant.uses, nowMs),
    ];
    return draftOf(right.value, request, { ...made.value, statements }, nowMs);
  });
  if (!done.ok || !isUnchanged) return done;
  // Nothing was written yet; the nonce must be burnt.
  return (await db.burn(env.DB, nonce, request.host.id, nowMs)) ? done : fail({ kind: 'replayed' });
}

function selectRight(d: DrizzleD1Database, { nonce, host }: KnownRequest, key: KeyName) {
  return [db.selectBurnt(d, nonce), db.selectHost(d, host.name), selectOwner(d, key)] as const;
}

export function hostMutation(env: Env, host: string, nowMs: number): Mutation {
  return mutationBy(env, actorOf(host), nowMs);
}

export function actorOf(host: string): string {
  return `host:${host}`;
}

/** The refusal says what the host lacks, since it has signed. It does not say whether another host has the key. */
function rightOf(
  { host: { id, name } }: KnownRequest,
  key: KeyName,
  host: db.Host | undefined,
  owner: Owned | undefined,
): Result<Right> {
  if (host?.id !== id) return fail({ kind: 'forbidden' });
  if (host.removedMs !== null) return fail({ kind: 'host-revoked' });
  if (owner?.hostKey.hostId === id) return succeed({ host, hostKey: owner.hostKey });
  const problem = `host ${name} has no ${wordsFor(key)}: an operator has to name it (PUT /api/v1/hosts/${name})`;
  return fail({ kind: 'forbidden', problem });
}

/** A key in an operator's words. */
function wordsFor({ kind, name }: KeyName): string {
  return kind === 'bouncer' ? `bouncer ${name}` : kind;
}

/** Null: the generation is wrong, and the host may not start again. */
function grantOf({ host, hostKey }: Right, generation: number): RegistrationGrant | null {
  // A key that was never registered has no copy. A host that was removed and made known again still has its old generation.
  if (generation === hostKey.generation || hostKey.generation === 0) return { reason: 'in-order', uses: {} };
  if (hostKey.recoveryAllowed) return { reason: 'recovery-allowed', uses: { recoveryAllowed: false } };
  // A host that was rebuilt has lost its state, and sends 0.
  if (generation !== 0) return null;
  if (host.mode === 'relaxed') return { reason: 'recovery-automatic', uses: {} };
  if (host.mode === 'strict' || hostKey.recoveriesLeft === 0) return null;
  return { reason: 'recovery-automatic', uses: { recoveriesLeft: hostKey.recoveriesLeft - 1 } };
}

type Written = Omit<NewKey, 'unchanged' | 'clash'> &
  Partial<Pick<NewKey, 'unchanged' | 'clash'>> &
  Pick<Draft, 'refusal'>;

function draftOf(
  { host, hostKey }: Right,
  { nonce, bootId }: Pick<KnownRequest, 'nonce' | 'bootId'>,
  { entry, unchanged = always, statements, clash = { kind: 'replayed' }, ...answers }: Written,
  nowMs: number,
): Result<Draft> {
  const detail = { ...entry.detail, ...(bootId === null ? {} : { boot_id: bootId }) };
  return succeed({
    ...answers,
    entry: { action: entry.action, target: host.name, detail },
    unchanged: sql`${db.atGeneration(hostKey)} AND ${unchanged}`,
    statements: (d) => [...db.burnStatements(d, nonce, nowMs), ...statements(d)],
    clash: (column) => (column === 'burnt_nonces.nonce' ? { kind: 'replayed' } : clash),
  });
}

/** The host has its key and lost its generation only. An operator allowed it to start again, so the answer has the right one. */
function recount(right: Right, answer: Answer, { nonce }: KnownRequest, nowMs: number): Result<Draft> {
  const { hostKey } = right;
  const detail = { ...keyDetail(hostKey), generation: hostKey.generation, by: 'operator' };
  const written = {
    entry: { action: 'host.recover', detail },
    statements: (d: DrizzleD1Database) => db.useRecoveryStatements(d, hostKey),
    answer,
  };
  return draftOf(right, { nonce, bootId: null }, written, nowMs);
}

/** Notes that a copy of the host may exist. The nonce is burnt, so nobody can raise the suspicion again with this request. */
function mismatch(right: Right, request: KnownRequest, nowMs: number): Result<Draft> {
  const { host, hostKey } = right;
  const { generation } = hostKey;
  const revoked = host.mode === 'strict';
  const taken = { blockedMs: nowMs, actor: actorOf(host.name), reason: 'there may be a copy of its host' };
  const detail = { ...keyDetail(hostKey), generation, claimed: request.payload.generation, revoked };
  const written: Written = {
    entry: { action: 'host.clone-suspected', detail },
    statements: (d) => [
      ...db.suspectStatements(d, host, nowMs),
      ...(revoked ? db.revokeKeysStatements(d, host, nowMs) : []),
      ...(revoked ? takeMachineStatements(d, host.id, taken) : []),
    ],
    answer: { status: 409, body: {} },
    refusal: { kind: 'generation-mismatch', what: wordsFor(hostKey), generation },
  };
  return draftOf(right, request, written, nowMs);
}

/** Which key, for the audit log. */
function keyDetail({ kind, name }: KeyName): Readonly<Record<string, string>> {
  return kind === 'bouncer' ? { bouncer: name } : { key: kind };
}
