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
    /** The engine that the request's address names; null: it names none. */
    engine: EngineSettings | null;
    /** Who an operator is, as the audit log names it. */
    actor: string;
    role: Role;
    /** The operator uses `OPERATOR_TOKEN`. The audit log marks each use of it. */
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
 * Where a client is, as `readClientIp` writes it. A text that is no address stays as it came, in ASCII. Only the configured
 * header is used: on Cloudflare nobody can forge `CF-Connecting-IP`; elsewhere everybody can, and the connection says it. Of
 * a list like `X-Forwarded-For` only the last entry counts: the nearest proxy appended it, the others are the client's claim.
 */
export function clientAddress(request: Request, settings: Settings): string {
  const named =
    settings.clientAddressHeader === '' ? null : request.headers.get(settings.clientAddressHeader);
  const text = named ? named.slice(named.lastIndexOf(',') + 1) : peerOf(request);
  const address = readClientIp(text);
  if (address !== undefined) return address;
  return (
    text
      .replace(/[^ -~]/g, '?')
      .trim()
      .slice(0, 64) || 'unknown'
  );
}

/** The other end of the connection. workerd gives `address:port`, with IPv6 in brackets. */
function peerOf(request: Request): string {
  return (request.cf as { clientIp?: string } | undefined)?.clientIp ?? '';
}

let proxyNoted = false;

/**
 * Logs once that requests seem to come through a proxy while no header is configured. Nothing else would show why all
 * clients share one limit. Only the operator knows whether there is a proxy. Without one the header must stay unset:
 * every client could claim any address by it.
 */
export function noteProxy(headers: Headers, { clientAddressHeader }: Settings): void {
  if (proxyNoted || clientAddressHeader !== '' || !headers.has('x-forwarded-for')) return;
  proxyNoted = true;
  console.error(
    'a request has X-Forwarded-For, and CLIENT_ADDRESS_HEADER is not set: behind a proxy all clients have its address, ' +
      'share one limit by address, and are one client where they share a key. If a proxy of yours is in front, set ' +
      'CLIENT_ADDRESS_HEADER=x-forwarded-for, or the header in which it says where a client is. If none is, leave it ' +
      'unset: the client sent the header itself',
  );
}
