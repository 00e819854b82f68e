// What operators do with hosts: make them known by their SSH public key, change and remove them, and let a host that lost
// its generation start again. Each decides on what D1 has; mutate.ts writes it.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import type { RowsOf } from '../store/audit.sql.ts';
import * as db from './hosts.sql.ts';
import { endMachineStatements, type Taken } from '../machines/machines.sql.ts';
import { badInput, conflict, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { isoTime, time, name } from '../operations/fields.ts';
import { checkRevision, mutate } from '../operations/mutate.ts';
import type { Answer, Draft, Mutation, Shown } from '../operations/mutate.ts';
import { fingerprintOf, formatKey, parsePublicKey } from '../crypto/ssh-key.ts';
import * as hostKeys from '../bouncers/host-keys.sql.ts';

/** Whether there is an engine of this name is checked where the settings are known (api.ts). */
export const machineField = z.string('must be the name of an engine').nullable().default(null).meta({
  description:
    'The engine at which it may have a machine’s account (a log processor): `default` is that of UPSTREAM_URL.',
  example: 'default',
});

const modes = ['standard', 'relaxed', 'strict'] as const;

export const hostFields = z.strictObject({
  public_key: z
    .string('must be a line of authorized_keys')
    .max(4096, 'must be a line of authorized_keys')
    .meta({ description: 'ssh-ed25519, ecdsa-sha2-nistp256/384/521, or ssh-rsa from 2048 bits on.' }),
  bouncers: z
    .array(name, 'must be a list of names')
    .max(20, 'must be at most 20 names')
    .meta({ description: 'The bouncers whose keys it may register. They need not be there yet.' }),
  mode: z
    .enum(modes, `must be one of ${modes.join(', ')}`)
    .default('standard')
    .meta({
      description:
        'What happens when its generation is wrong. `standard`: refused, but a rebuilt host may start again once; ' +
        '`relaxed`: it always may; `strict`: refused, and all its keys are revoked.',
    }),
  engine: z.boolean('must be true or false').default(false).meta({
    description: 'It has the engine, and may send the key under which Lapidary pulls from it.',
  }),
  machine: machineField,
});

export const hostShape = z
  .object({
    name: z.string(),
    state: z.enum(db.hostStates).meta({
      description: '`clone-suspected`: it sent a wrong generation; a copy of it may exist.',
    }),
    public_key: z.string(),
    fingerprint: z.string().meta({ description: 'As `ssh-keygen -l` prints it.' }),
    mode: z.enum(modes),
    engine: z.boolean(),
    machine: z
      .object({
        engine: z.string(),
        name: z
          .string()
          .nullable()
          .meta({ description: 'Its `machine_id`; null: it has not asked for its account yet.' }),
        validated_at: time.nullable().meta({
          description: 'Since when the engine takes it; null: it waits for `cscli machines validate`.',
        }),
      })
      .nullable()
      .meta({ description: 'Its account at an engine.' }),
    revision: z.int().meta({ description: 'Counts its changes by operators; its ETag.' }),
    created_at: time,
    last_seen: time.nullable(),
    suspected_at: time.nullable(),
    last_refused_at: time.nullable().meta({
      description:
        'When a request under its name was refused for its SSH key or the address in it; exact to 10 min.',
    }),
    last_refused_why: z.string().nullable(),
    instance: z.string().nullable().meta({ description: 'The cloud instance that it has proved to be.' }),
    bouncers: z.array(
      z.object({
        name: z.string(),
        generation: z.int().meta({ description: 'How often its key was registered.' }),
        rotation_asked_at: time.nullable(),
        recovery_allowed: z
          .boolean()
          .meta({ description: 'Its next registration is taken, whatever its generation.' }),
      }),
    ),
  })
  .meta({ id: 'Host' });

export function describeHost({ host, keys, machine }: db.HostFacts): z.input<typeof hostShape> {
  const used = keys.some(({ generation }) => generation > 0);
  const account = { name: machine?.machine ?? null, validated_at: isoTime(machine?.validatedMs ?? null) };
  return {
    name: host.name,
    state: host.suspectedMs !== null ? 'clone-suspected' : used ? 'registered' : 'waiting',
    public_key: host.publicKey,
    fingerprint: host.fingerprint,
    mode: host.mode,
    engine: keys.some(({ kind }) => kind === 'engine'),
    machine: host.machineEngine === null ? null : { engine: host.machineEngine, ...account },
    revision: host.revision,
    created_at: isoTime(host.createdMs),
    last_seen: isoTime(host.seenMs),
    suspected_at: isoTime(host.suspectedMs),
    last_refused_at: isoTime(host.lastRefusedMs),
    last_refused_why: host.lastRefusedWhy,
    instance: host.instance,
    bouncers: keys
      .filter(({ kind }) => kind === 'bouncer')
      .map((key) => ({
        name: key.name,
        generation: key.generation,
        rotation_asked_at: isoTime(key.rotationAskedMs),
        recovery_allowed: key.recoveryAllowed,
      })),
  };
}

/** Makes a host, or changes it to what is asked for. */
export async function putHost(
  mutation: Mutation,
  name: string,
  { public_key: line, bouncers, mode, engine, machine }: z.output<typeof hostFields>,
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const taken = takenBy(mutation, 'an operator took it from its host');
  const key = await parsePublicKey(line);
  if (!key.ok) return key;
  if (new Set(bouncers).size < bouncers.length) return badInput('bouncers', 'must name each bouncer once');
  if (bouncers.length === 0 && !engine && machine === null) {
    return badInput('bouncers', 'must have a name, or engine be true, or machine be named');
  }
  const publicKey = formatKey(key.value);
  const fingerprint = await fingerprintOf(key.value);
  const detail = { fingerprint, bouncers, mode, engine, machine };
  const wanted = [
    ...bouncers.map(hostKeys.keyOfBouncer),
    ...(engine ? [hostKeys.keyOfEngine] : []),
    ...(machine === null ? [] : [hostKeys.keyOfMachine(name)]),
  ];
  const reads = (d: DrizzleD1Database) =>
    [db.selectHostFacts(d, name), hostKeys.selectOwnersOf(d, wanted)] as const;
  const decide = ([[found], owners]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    const there = found?.facts.host.removedMs === null ? found.facts : null;
    const host = there?.host ?? null;
    const expected = checkRevision(mutation, host?.revision ?? 0);
    if (!expected.ok) return expected;
    const keys = there?.keys ?? [];
    const keepsMachine = there?.machine?.engine === machine;
    const other = owners.find((owner) => owner.host !== name);
    if (other) return fail(ownedBy(other));
    const newKey = host !== null && host.publicKey !== publicKey;
    const add = wanted
      .filter((want) => !keys.some((key) => hostKeys.isSameKey(want, key)))
      .map((key) => ({ ...key, recoveriesLeft: mode === 'strict' ? 0 : 1 }));
    const remove = keys.filter((key) => !wanted.some((want) => hostKeys.isSameKey(want, key)));
    const forgotten = { suspectedMs: null, instance: null, lastRefusedMs: null, lastRefusedWhy: null };
    const to = { publicKey, fingerprint, mode, machineEngine: machine, ...(newKey ? forgotten : {}) };
    return succeed({
      entry: { action: host ? 'host.change' : 'host.create', target: name, detail },
      unchanged: host ? db.atHostRevision(host) : db.noLiveHost(name),
      statements: (d) => [
        ...(host
          ? db.changeHostStatements(d, host, to, add, remove, newKey)
          : db.insertHostStatements(d, { name, ...to, createdMs: nowMs }, add)),
        ...(host && !keepsMachine ? endMachineStatements(d, host.id, taken) : []),
      ],
      answer: { status: host ? 200 : 201 },
      clash: (column) =>
        column === 'hosts.public_key'
          ? conflict('public_key', 'this key is another host’s')
          : conflict('bouncers', 'one is another host’s'),
      ...(engine ? {} : { news: { noEngineOn: name } }),
    });
  };
  return mutate(mutation, reads, decide, shownHost(name));
}

/** A host as a GET shows it. */
function shownHost(name: string): Shown<db.HostFacts> {
  return { json: db.hostJson(name), describe: (facts) => ({ host: describeHost(facts) }) };
}

function ownedBy({ hostKey: { kind, name }, host }: hostKeys.Owned): Failure {
  return kind === 'engine'
    ? conflict('engine', `the engine is on host ${host}`)
    : conflict('bouncers', `${name} is registered by host ${host}`);
}

function takenBy({ nowMs, actor }: Mutation, reason: string): Taken {
  return { blockedMs: nowMs, actor, reason };
}

/** Removes a host: its bouncers' keys are revoked, its machine is refused, and its next request is answered with 410. */
export async function removeHost(mutation: Mutation, name: string): Promise<Result<Answer>> {
  const taken = takenBy(mutation, 'its host was removed');
  return change(mutation, name, 'host.remove', ({ host, keys, machine }) => ({
    detail: {
      fingerprint: host.fingerprint,
      bouncers: keys.filter(({ kind }) => kind === 'bouncer').map((key) => key.name),
      ...(machine ? { machine: machine.machine } : {}),
    },
    statements: (d) => db.removeHostStatements(d, host, taken),
    answer: { status: 204, body: {} },
    news: { noEngineOn: name },
  }));
}

/** Lets each of its keys be registered once more, whatever its generation, and takes the suspicion back. */
export async function allowRecovery(mutation: Mutation, name: string): Promise<Result<Answer>> {
  return change(mutation, name, 'host.allow-recovery', ({ host }) => ({
    detail: { suspected: host.suspectedMs !== null },
    statements: (d) => db.changeHostStatements(d, host, { suspectedMs: null }, [], [], true),
    answer: { status: 200 },
  }));
}

/** A change of a host that is there. */
type Change = Pick<Draft, 'statements' | 'answer' | 'news'> & Pick<Draft['entry'], 'detail'>;

function change(
  mutation: Mutation,
  name: string,
  action: string,
  changeOf: (facts: db.HostFacts) => Change,
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => [db.selectHostFacts(d, name)] as const;
  const decide = ([[found]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!found || found.facts.host.removedMs !== null)
      return fail({ kind: 'not-found', what: `host ${name}` });
    const { host } = found.facts;
    const expected = checkRevision(mutation, host.revision);
    if (!expected.ok) return expected;
    const { detail, ...draft } = changeOf(found.facts);
    return succeed({ ...draft, entry: { action, target: name, detail }, unchanged: db.atHostRevision(host) });
  };
  return mutate(mutation, reads, decide, shownHost(name));
}
