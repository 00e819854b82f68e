// A host's signed request, from bytes to who sends it. Nothing in it is believed before the signature is checked, and
// nothing is decided by what is written here: a trace of refusals. Every way not to be a known host has one and the same answer.

import * as z from 'zod';
import type { Host, Nonce } from './hosts.sql.ts';
import { readContact, type Contact } from './public-url.sql.ts';
import { badInput, causeOf, fail, succeed, type Result } from '../http/failure.ts';
import { parseJson } from '../http/body.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { readNonce } from './challenge.ts';
import { check, digest, name } from '../operations/fields.ts';
import type { Refusal } from './refusals.ts';
import { parsePublicKey, storedKey, type PublicKey } from '../crypto/ssh-key.ts';
import { fromBase64 } from '../formats/bytes.ts';
import { parseSignature, verifySignature, type Signature } from '../crypto/sshsig.ts';

export const namespace = 'bootstrap-v1@lapidary';

/** Of a request below /bootstrap. */
export const envelopeLimitBytes = 8192;

export const envelope = z.strictObject({
  payload: z
    .string('must be base64')
    .meta({ description: 'Base64 of the exact bytes that were signed: JSON.' }),
  signature: z.string('must be a text').meta({
    description: `What \`ssh-keygen -Y sign -n ${namespace}\` writes for them, with the host's SSH key.`,
  }),
});

const common = {
  v: z.literal(1, 'must be 1'),
  aud: z.string('must be the address that this is sent to'),
  host: name,
  nonce: z.string('must be the nonce of a challenge'),
  generation: z.int('must be a whole number').min(0, 'must be 0 or more').max(1e15, 'must be at most 10^15'),
  public_key: z.string('must be a line of authorized_keys').optional(),
  enrolment_token: z.string('must be a text').optional(),
  identity_token: z.string('must be a text').optional(),
  boot_id: z
    .string('must be a text')
    .regex(/^[\w-]{1,64}$/, 'must be up to 64 letters and digits')
    .optional(),
};

export const keysPayload = z.strictObject({ ...common, bouncer: name, key_sha512: digest });
export const engineKeyPayload = z.strictObject({
  ...common,
  engine_key: z
    .string('must be a text')
    .regex(/^[\x21-\x7e]{16,200}$/, 'must be 16 to 200 printable characters'),
});

export const machinePayload = z.strictObject({
  ...common,
  // bcrypt, in which the engine keeps it, reads 72 bytes.
  machine_password: z
    .string('must be a text')
    .regex(/^[\x21-\x7e]{32,72}$/, 'must be 32 to 72 printable characters'),
});

export type Shared = z.output<z.ZodObject<typeof common>>;

/** A host's request that is what it says: signed by `key`, for us, now. */
export interface SignedRequest<T extends Shared> {
  readonly payload: T;
  readonly nonce: Nonce;
  readonly key: PublicKey;
  /** The host that has this key; null: none, it comes for the first time. */
  readonly host: Host | null;
}

/** Who checks. */
export interface Desk {
  readonly d1: D1Database;
  readonly secrets: BootstrapSecrets;
  /** Whether an `aud` is the address of this route. `fixed`: the one that an operator fixed. */
  readonly checkAudience: (audience: string, fixed: string | null) => Result<'ours'>;
  /** Leaves a trace of a known host's request. */
  readonly noteRefusal: (host: Host, refusal: Refusal) => void;
  readonly nowMs: number;
}

export async function readRequest<T extends Shared>(
  desk: Desk,
  sent: z.output<typeof envelope>,
  schema: z.ZodType<T>,
): Promise<Result<SignedRequest<T>>> {
  const bytes = fromBase64(sent.payload);
  if (!bytes) return badInput('payload', 'must be base64');
  const signature = parseSignature(sent.signature);
  if (!signature.ok) return signature;
  const payload = readPayload(bytes, schema);
  if (!payload.ok) return payload;
  const { aud, nonce } = payload.value;
  const contact = await contactOf(desk, payload.value.host);
  if (!contact.ok) return contact;
  const signer = await whoSigned(desk, contact.value.host, payload.value, signature.value, bytes);
  if (!signer.ok) return signer;
  const { host } = signer.value;
  if (host && host.removedMs !== null) return fail({ kind: 'host-revoked' });
  const ours = desk.checkAudience(aud, contact.value.fixed);
  if (!ours.ok) {
    if (host && ours.failure.kind === 'bad-input') desk.noteRefusal(host, { kind: 'relay', audience: aud });
    return ours;
  }
  const known = await readNonce(desk.secrets, nonce, desk.nowMs);
  return known.ok ? succeed({ payload: payload.value, nonce: known.value, ...signer.value }) : known;
}

async function contactOf({ d1 }: Desk, host: string): Promise<Result<Contact>> {
  try {
    return succeed(await readContact(d1, host));
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'hosts can not be checked now; try again' });
  }
}

function readPayload<T>(bytes: Uint8Array, schema: z.ZodType<T>): Result<T> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return badInput('payload', 'not UTF-8');
  }
  const json = parseJson(text);
  if (!json.ok || typeof json.value !== 'object' || json.value === null || Array.isArray(json.value)) {
    return badInput('payload', 'not a JSON object');
  }
  return check(schema, json.value);
}

type Signer = Pick<SignedRequest<never>, 'key' | 'host'>;

/**
 * The enrolled key decides. Another one counts only when it comes with something that could make it believed; whether
 * that does, and whether the name is free, is for the first contact to find out (introduction.ts).
 */
async function whoSigned(
  { noteRefusal }: Desk,
  host: Host | null,
  payload: Shared,
  signature: Signature,
  bytes: Uint8Array,
): Promise<Result<Signer>> {
  if (host) {
    const key = storedKey(host.publicKey);
    if (await verifySignature(signature, key, namespace, bytes)) return succeed({ key, host });
    // Of a removed host another key may be the next host of its name.
    if (host.removedMs === null) noteRefusal(host, { kind: 'key', signature, namespace, bytes });
  }
  const introduced = payload.enrolment_token ?? payload.identity_token;
  if (payload.public_key === undefined || introduced === undefined) return fail({ kind: 'forbidden' });
  const key = await parsePublicKey(payload.public_key);
  if (!key.ok) return key;
  const good = await verifySignature(signature, key.value, namespace, bytes);
  return good ? succeed({ key: key.value, host: null }) : fail({ kind: 'forbidden' });
}
