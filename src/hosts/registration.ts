// A known host registers a key, whatever its kind: decided on what is there, written in one batch with its nonce, its count
// and its audit row. The count (`generation`) is what tells a host from its copy: it is asked for after the signature, so
// that no stranger can bring a host into suspicion. What a kind has of its own is its file's: bouncer-registration.ts,
// engine-registration.ts, host-machine.ts.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { AuditEntry, RowsOf, Statements } from '../store/audit.sql.ts';
import * as db from './hosts.sql.ts';
import { takeMachineStatements } from '../machines/machines.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { mutate, mutationBy, type Answer, type Draft, type Mutation } from '../operations/mutate.ts';
import { type HostKey, type Slot, type Owned, selectOwner } from '../bouncers/host-keys.sql.ts';

/** What a host asks for, its signature checked. */
export interface Asked {
  readonly host: Pick<db.Host, 'id' | 'name'>;
  readonly generation: number;
  readonly nonce: db.Nonce;
  readonly bootId: string | null;
}

/** A host as it is now, and its right to a key. */
export interface Right {
  readonly host: db.Host;
  readonly hostKey: HostKey;
}

/** What it has registered already is what it sends again. */
export interface Repeated {
  readonly answer: (right: Right) => Answer;
  /** The answer to the last time may be lost: a count that is one behind is right, too. */
  readonly mayBeBehind: boolean;
  /** With a wrong count it is registered again where the host may; otherwise only an operator's leave tells it the count. */
  readonly again: boolean;
}

/** What is to be registered. */
export interface New {
  readonly entry: Pick<AuditEntry, 'action' | 'detail'>;
  /** SQL that must hold, besides the host's right. */
  readonly unchanged: SQL;
  readonly statements: (d: DrizzleD1Database) => Statements;
  readonly answer: Answer;
  readonly clash: Failure;
}

/** What differs between the kinds of keys. */
export interface Kind<Reads extends Statements> {
  readonly slot: Slot;
  readonly reads: (d: DrizzleD1Database) => Reads;
  /** A reason against any answer but this. */
  readonly refuse?: (rows: RowsOf<Reads>, right: Right) => Failure | null;
  /** Null: it is another key than the one that is there. */
  readonly repeated: (rows: RowsOf<Reads>, right: Right) => Repeated | null;
  /** `generation`: the count that the host is to keep. */
  readonly register: (rows: RowsOf<Reads>, right: Right, leave: Leave, generation: number) => Result<New>;
}

/** `generation-mismatch`: what is written is the suspicion. */
export async function register<const Reads extends Statements>(
  env: Env,
  asked: Asked,
  kind: Kind<Reads>,
  nowMs: number,
): Promise<Result<Answer>> {
  const { nonce } = asked;
  const reads = (d: DrizzleD1Database) => [...selectRight(d, asked, kind.slot), ...kind.reads(d)] as const;
  let isUnchanged = false;
  const done = await mutate(hostMutation(env, asked.host.name, nowMs), reads, (all) => {
    const [burnt, [host], [owner], ...rest] = all as unknown as RowsOf<ReturnType<typeof selectRight>>;
    const rows = rest as unknown as RowsOf<Reads>;
    isUnchanged = false;
    if (burnt.length > 0) return fail({ kind: 'replayed' });
    const found = rightOf(asked, kind.slot, host, owner);
    if (!found.ok) return found;
    const right = found.value;
    const { hostKey } = right;
    const refused = kind.refuse?.(rows, right) ?? null;
    if (refused) return fail(refused);
    const repeated = kind.repeated(rows, right);
    if (repeated) {
      const behind = hostKey.generation - asked.generation;
      isUnchanged = behind === 0 || (behind === 1 && repeated.mayBeBehind);
      if (isUnchanged) return succeed({ as: repeated.answer(right) });
      if (!repeated.again) {
        return hostKey.recoveryAllowed
          ? recount(right, repeated.answer(right), nonce, nowMs)
          : mismatch(right, asked, nowMs);
      }
    }
    const leave = mayRegister(right, asked.generation);
    if (!leave) return mismatch(right, asked, nowMs);
    const made = kind.register(rows, right, leave, hostKey.generation + 1);
    return made.ok ? draftOf(made.value, right, leave, asked, nowMs) : made;
  });
  if (!done.ok || !isUnchanged) return done;
  // Nothing was written but that the nonce is used up.
  return (await db.burn(env.DB, nonce, asked.host.id, nowMs)) ? done : fail({ kind: 'replayed' });
}

function selectRight(d: DrizzleD1Database, { nonce, host }: Asked, slot: Slot) {
  return [db.selectBurnt(d, nonce), db.selectHost(d, host.name), selectOwner(d, slot)] as const;
}

export function hostMutation(env: Env, host: string, nowMs: number): Mutation {
  return mutationBy(env, actorOf(host), nowMs);
}

export function actorOf(host: string): string {
  return `host:${host}`;
}

/** It has signed, so it is told what it lacks; not whether another has it. */
function rightOf(
  asked: Asked,
  slot: Slot,
  host: db.Host | undefined,
  owner: Owned | undefined,
): Result<Right> {
  const { id, name } = asked.host;
  if (host?.id !== id) return fail({ kind: 'forbidden' });
  if (host.removedMs !== null) return fail({ kind: 'host-revoked' });
  if (owner?.hostKey.hostId === id) return succeed({ host, hostKey: owner.hostKey });
  const problem = `host ${name} has no ${wordsFor(slot)}: an operator has to name it (PUT /api/v1/hosts/${name})`;
  return fail({ kind: 'forbidden', problem });
}

/** What a host registers, in an operator's words. */
function wordsFor({ kind, name }: Slot): string {
  return kind === 'bouncer' ? `bouncer ${name}` : kind;
}

/** Why a host may register: its count is right, or it lost it and may begin anew. `to`: what that uses up. */
export interface Leave {
  readonly why: 'in-order' | 'recovery-allowed' | 'recovery-automatic';
  readonly to: Partial<HostKey>;
}

function mayRegister({ host, hostKey }: Right, generation: number): Leave | null {
  // A right that nobody has used has no copy: whoever was removed and is known again brings the count that it had.
  if (generation === hostKey.generation || hostKey.generation === 0) return { why: 'in-order', to: {} };
  if (hostKey.recoveryAllowed) return { why: 'recovery-allowed', to: { recoveryAllowed: false } };
  if (generation !== 0) return null;
  if (host.mode === 'relaxed') return { why: 'recovery-automatic', to: {} };
  if (host.mode === 'strict' || hostKey.recoveriesLeft === 0) return null;
  return { why: 'recovery-automatic', to: { recoveriesLeft: hostKey.recoveriesLeft - 1 } };
}

function draftOf(
  made: New,
  { host, hostKey }: Right,
  { to }: Leave,
  { nonce, bootId }: Asked,
  nowMs: number,
): Result<Draft> {
  const detail = { ...made.entry.detail, ...(bootId === null ? {} : { boot_id: bootId }) };
  return succeed({
    entry: { action: made.entry.action, target: host.name, detail },
    unchanged: sql`${db.atGeneration(hostKey)} AND ${made.unchanged}`,
    statements: (d) => [
      ...db.burnStatements(d, nonce, nowMs),
      ...made.statements(d),
      ...db.registeredStatements(d, hostKey, to, nowMs),
    ],
    answer: made.answer,
    clash: (column) => (column === 'burnt_nonces.nonce' ? { kind: 'replayed' } : made.clash),
  });
}

/** An operator's leave, used by a host that has its key and only lost count: it is told the count. */
function recount({ host, hostKey }: Right, answer: Answer, nonce: db.Nonce, nowMs: number): Result<Draft> {
  const { generation } = hostKey;
  return succeed({
    entry: {
      action: 'host.recover',
      target: host.name,
      detail: { ...keyDetail(hostKey), generation, by: 'operator' },
    },
    unchanged: db.atGeneration(hostKey),
    statements: (d) => [...db.burnStatements(d, nonce, nowMs), ...db.useRecoveryStatements(d, hostKey)],
    answer,
    clash: () => ({ kind: 'replayed' }),
  });
}

/** Notes that there may be a copy of a host. The nonce is burnt, so nobody else can repeat the suspicion. */
function mismatch({ host, hostKey }: Right, asked: Asked, nowMs: number): Result<Draft> {
  const { generation } = hostKey;
  const strict = host.mode === 'strict';
  const taken = { blockedMs: nowMs, actor: actorOf(host.name), reason: 'there may be a copy of its host' };
  return succeed({
    entry: {
      action: 'host.clone-suspected',
      target: host.name,
      detail: {
        ...keyDetail(hostKey),
        generation,
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
    answer: { status: 409, body: {} },
    refusal: { kind: 'generation-mismatch', what: wordsFor(hostKey), generation },
    clash: () => ({ kind: 'replayed' }),
  });
}

/** Which key, for the audit log. */
function keyDetail({ kind, name }: Slot): Readonly<Record<string, string>> {
  return kind === 'bouncer' ? { bouncer: name } : { key: kind };
}
