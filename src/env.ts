// What every route may use: the bindings, the settings, and who is calling from where.

import type { EngineSettings } from './config/engines.ts';
import { readClientIp } from './formats/ip.ts';
import type { Role } from './config/roles.ts';
import { readSettings, type Settings } from './config/settings.ts';

/** Hono's environment for all our routes. */
export interface AppEnv {
  Bindings: Env;
  Variables: {
    settings: Settings;
    /** The engine that the request's address names; null: none. */
    engine: EngineSettings | null;
    /** Who an operator is, as the audit log names it. */
    actor: string;
    role: Role;
    /** The operator came with `OPERATOR_TOKEN`: what it is used for is marked. */
    breakGlass: boolean;
  };
}

let read: { readonly env: Env; readonly settings: Settings } | undefined;

/** The settings of this isolate, read once. Throws `SettingError`. */
export function settingsOf(env: Env): Settings {
  if (read?.env !== env) read = { env, settings: readSettings({ ...env }) };
  return read.settings;
}

/**
 * Where a client is, as `readClientIp` writes it; a text that is no address as it came. Only the configured header is
 * believed: on Cloudflare nobody can forge `CF-Connecting-IP`, anywhere else everybody can, and there the connection
 * itself tells. Of a list like `X-Forwarded-For` the nearest proxy has appended the last entry; those before it are
 * what the client claims.
 */
export function clientAddress(request: Request, settings: Settings): string {
  const named =
    settings.clientAddressHeader === '' ? null : request.headers.get(settings.clientAddressHeader);
  const text = named ? named.slice(named.lastIndexOf(',') + 1) : peerOf(request);
  return readClientIp(text) ?? (text.trim().slice(0, 64) || 'unknown');
}

/** workerd gives `address:port`, IPv6 in brackets. */
function peerOf(request: Request): string {
  return (request.cf as { clientIp?: string } | undefined)?.clientIp ?? '';
}

let proxyNoted = false;

/**
 * Says once, where the connection itself tells, that it may be a proxy's: nothing else would show why all clients share
 * one limit. Whether it is one only the operator knows; who has none and sets the header believes everybody.
 */
export function noteProxy(headers: Headers, { clientAddressHeader }: Settings): void {
  if (proxyNoted || clientAddressHeader !== '' || !headers.has('x-forwarded-for')) return;
  proxyNoted = true;
  console.error(
    'a request brings X-Forwarded-For, and CLIENT_ADDRESS_HEADER is not set: behind a proxy all clients have its ' +
      'address, share one limit where one counts by address, and with one key are one client. If a proxy of yours stands in front, set ' +
      'CLIENT_ADDRESS_HEADER=x-forwarded-for, or the header in which it says where a client is. If none does, set ' +
      'nothing: the client made it up',
  );
}
