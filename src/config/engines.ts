// What an engine's settings must be, those of `UPSTREAM_URL` as well as an entry of `UPSTREAMS` of the kind `lapi`. Pure. A
// mistake here sends machines, with the passwords they bring, to an engine that is not theirs.

import * as z from 'zod';
import { fields, parsed, parsePlainUrl, text } from './fields.ts';

/** An engine's LAPI, and how it is asked. */
export interface EngineSettings {
  readonly kind: 'lapi';
  /** Operators' name for it. It is part of addresses, and views choose engines by it. */
  readonly name: string;
  /** The address of its LAPI, without a trailing slash. */
  readonly url: string;
  /** A bouncer key that only Lapidary uses: a shared one loses changes. Null: the engine's host sends one. */
  readonly apiKey: string | null;
  /** Which setting holds the key, for an operator to read. */
  readonly keyName: string;
  /** Sent with every request, such as a Cloudflare Access service token. */
  readonly headers: Readonly<Record<string, string>>;
  /** With it the engine (1.6.3 on) validates the machines that are registered for hosts. Null: `cscli` has to. */
  readonly registrationToken: string | null;
  /** The machine's account by which its own allow-lists are read (1.6.6 on). Null: they are not read. */
  readonly allowLists: MachineAccount | null;
  /** The host names by which requests reach it, in lower case. */
  readonly hosts: readonly string[];
  /** How long it may be silent, before an answer and within one. */
  readonly timeoutMs: number;
  /** The scopes that deltas ask for. The stream has no wildcard; the full list has all scopes. */
  readonly scopes: readonly string[];
}

export interface MachineAccount {
  /** LAPI's `machine_id`. */
  readonly machine: string;
  readonly password: string;
}

/** The address of an engine's LAPI, without a trailing slash. */
export const lapiUrl = parsed('an http:// or https:// address without user, query or fragment', (address) =>
  /^https?:$/.test(parsePlainUrl(address)?.protocol ?? '') ? address.replace(/\/+$/, '') : null,
);

/** A key is sent as a header, so it must be printable. */
export const engineKey = text(/^[\x21-\x7e]+$/, 'the key of a bouncer of this engine');

/** LAPI takes no shorter and no longer one (its `WatcherRegistrationRequest`). */
export const registrationToken = text(/^[\x21-\x7e]{32,255}$/, '32 to 255 printable characters');

export const headers = z.custom<EngineSettings['headers']>(
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.entries(value).every(
      ([name, text]) =>
        /^[A-Za-z0-9-]+$/.test(name) && typeof text === 'string' && /^[\x20-\x7e]*$/.test(text),
    ),
  'a JSON object of header names and texts',
);

const hostName = z
  .string('a host name')
  .toLowerCase()
  .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'a host name');

export const upstreamName = text(
  /^[a-z0-9][a-z0-9-]{0,31}$/,
  'up to 32 lower-case letters, digits and hyphens',
);

/** By which an engine's own allow-lists are read. */
export const machineAccount = fields({
  machine: text(/^[\x21-\x7e]{1,255}$/, 'the name of a machine of this engine'),
  password: text(/^[\x20-\x7e]{1,255}$/, 'the password of that machine'),
});

/** An entry of `UPSTREAMS` that is an engine. */
export const engine = fields({
  kind: z.literal('lapi').optional(),
  name: upstreamName,
  url: lapiUrl,
  key: engineKey,
  registration_token: registrationToken.nullable().default(null),
  allowlists: machineAccount.nullable().default(null),
  headers: headers.default({}),
  hosts: z.array(hostName, 'a list of host names').default([]),
});
