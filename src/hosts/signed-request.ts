// A host's signed request, from its bytes to the host that sends it. Nothing in it is trusted before the signature is
// verified. Nothing is decided by what is written here: a note of a refusal, for operators. Whoever is not a known host gets
// one and the same answer, whatever the reason.

import * as z from 'zod';
import { selectHost, type Host, type Nonce } from './hosts.sql.ts';
import { selectFixedUrl } from './public-url.ts';
import { askD1 } from '../store/ask.ts';
import { badInput, causeOf, fail, succeed, type Result } from '../http/failure.ts';
import { parseJson } from '../http/body.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { readNonce } from './challenge.ts';
import { check, digest, name } from '../operations/fields.ts';
import { parsePublicKey, storedKey, type PublicKey } from '../crypto/ssh-key.ts';
import { parseSignature, verifySignature, type Signature } from '../crypto/sshsig.ts';
import { fromBase64 } from '../formats/bytes.ts';

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
  // The engine stores it with bcrypt, which reads 72 bytes.
  machine_password: z
    .string('must be a text')
    .regex(/^[\x21-\x7e]{32,72}$/, 'must be 32 to 72 printable characters'),
});

export type Payload = z.output<z.ZodObject<typeof common>>;
export type KeysPayload = z.output<typeof keysPayload>;
export type EngineKeyPayload = z.output<typeof engineKeyPayload>;
export type MachinePayload = z.output<typeof machinePayload>;

/** A host's request: signed with `key`, meant for this route, with a nonce that has not expired. */
export interface SignedRequest<T extends Payload = Payload> {
  readonly payload: T;
  readonly nonce: Nonce;
  readonly bootId: string | null;
  readonly key: PublicKey;
  /** The host that has this key; null: no known host, so this is a first contact. */
  readonly host: Host | null;
}

/** The same of a host that is known. */
export type KnownRequest<T extends Payload = Payload> = SignedRequest<T> & { readonly host: Host };

/** What a request is verified with. */
export interface VerificationContext {
  readonly d1: D1Database;
  readonly secrets: BootstrapSecrets;
  /** Whether an `aud` is the address of this route. `fixed`: the broker's address as D1 has it. */
  readonly checkAudience: (audience: string, fixed: string | null) => Result<void>;
  readonly noteRefusal: (host: Host, refusal: Refusal) => void;
  readonly nowMs: number;
}

/** Why a request under a known host's name is refused, for operators to see. */
export type Refusal =
  /** The host signed it, for another broker. */
  | { readonly kind: 'relay'; readonly audience: string }
  /** It is not signed with the host's key. Whether with any, is not verified yet. */
  | { readonly kind: 'key'; readonly signature: Signature; readonly bytes: Uint8Array };

export async function readRequest<T extends Payload>(
  context: VerificationContext,
  sent: z.output<typeof envelope>,
  schema: z.ZodType<T>,
): Promise<Result<SignedRequest<T>>> {
  const bytes = fromBase64(sent.payload);
  if (!bytes) return badInput('payload', 'must be base64');
  const signature = parseSignature(sent.signature);
  if (!signature.ok) return signature;
  const payload = readPayload(bytes, schema);
  if (!payload.ok) return payload;
  const { aud, nonce, boot_id: bootId = null } = payload.value;
  const contact = await contactOf(context, payload.value.host);
  if (!contact.ok) return contact;
  const signer = await whoSigned(context, contact.value.host, payload.value, signature.value, bytes);
  if (!signer.ok) return signer;
  const { host } = signer.value;
  if (host && host.removedMs !== null) return fail({ kind: 'host-revoked' });
  const meant = context.checkAudience(aud, contact.value.fixed);
  if (!meant.ok) {
    const isRelay = host && meant.failure.kind === 'bad-input';
    if (isRelay) context.noteRefusal(host, { kind: 'relay', audience: aud });
    return meant;
  }
  const read = await readNonce(context.secrets, nonce, context.nowMs);
  return read.ok ? succeed({ payload: payload.value, nonce: read.value, bootId, ...signer.value }) : read;
}

/** The host of this name, a removed one too, and the address of this broker that is fixed in D1. */
async function contactOf({ d1 }: VerificationContext, name: string) {
  try {
    const [[host], [fixed]] = await askD1(d1, (d) => d.batch([selectHost(d, name), selectFixedUrl(d)]));
    return succeed({ host: host ?? null, fixed: fixed?.url ?? null });
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

type Signer = Pick<SignedRequest, 'key' | 'host'>;

/**
 * A known host is whoever signs with its stored key. Any other key counts only together with a token that can make it
 * trusted, as a first contact. Whether the token does, and whether the name is free, is decided later (evidence.ts).
 */
async function whoSigned(
  { noteRefusal }: VerificationContext,
  host: Host | null,
  payload: Payload,
  signature: Signature,
  bytes: Uint8Array,
): Promise<Result<Signer>> {
  if (host) {
    const key = storedKey(host.publicKey);
    if (await verifySignature(signature, key, namespace, bytes)) return succeed({ key, host });
    // The name of a removed host is free: another key may belong to its next host.
    if (host.removedMs === null) noteRefusal(host, { kind: 'key', signature, bytes });
  }
  const token = payload.enrolment_token ?? payload.identity_token;
  if (payload.public_key === undefined || token === undefined) return fail({ kind: 'forbidden' });
  const key = await parsePublicKey(payload.public_key);
  if (!key.ok) return key;
  const isSigned = await verifySignature(signature, key.value, namespace, bytes);
  return isSigned ? succeed({ key: key.value, host: null }) : fail({ kind: 'forbidden' });
}
