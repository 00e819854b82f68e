// What the address of a request says: the route, behind any prefix, and the engine that is meant. Pure.

import type { EngineSettings } from '../config/engines.ts';
import type { Settings } from '../config/settings.ts';

export interface Address {
  /** The path to be routed. */
  readonly path: string;
  /** The engine that is named by path (`/engines/{name}/v1/…`) or by host name; null: none is. */
  readonly engine: EngineSettings | null;
  /** Named by path, and no engine of the settings. */
  readonly unknownEngine?: string;
}

/**
 * Whether a request says where it is. workerd makes its address of whatever stands in `Host`: of one with a slash in it
 * that would be another path.
 */
export function namesHost(request: Request): boolean {
  return URL.canParse(request.url) && hasHost(request.headers);
}

/** Whether `Host` has no letters but those that Go lets pass (httpguts.ValidHostHeader). */
export function hasHost(headers: Headers): boolean {
  return /^[\w!$%&'()*+,.:;=[\]~-]*$/.test(headers.get('host') ?? '');
}

/** The query of an address, with its `?`. */
export function searchOf(url: string): string {
  const mark = url.indexOf('?');
  return mark < 0 ? '' : url.slice(mark);
}

/** A path that no route has. */
const nowhere = '/nowhere';

/**
 * `//v1/…` is what clients make of a base address that ends in a slash, and a slash at the end is no reason for a
 * redirect: half of the bouncers do not follow one.
 */
export function readAddress(
  url: string,
  { pathPrefix, engines }: Pick<Settings, 'pathPrefix' | 'engines'>,
): Address {
  const { pathname, hostname } = new URL(url);
  const whole = pathname.replace(/\/{2,}/g, '/').replace(/(?<=.)\/$/, '');
  if (!whole.startsWith(`${pathPrefix}/`)) {
    return { path: whole === pathPrefix ? '/' : nowhere, engine: null };
  }
  const path = whole.slice(pathPrefix.length);
  const [, name, rest] = /^\/engines\/([^/]+)(\/v1\/.*)$/.exec(path) ?? [];
  if (name === undefined || rest === undefined) {
    return { path, engine: engines.find(({ hosts }) => hosts.includes(hostname.toLowerCase())) ?? null };
  }
  const engine = engines.find((each) => each.name === name);
  return engine ? { path: rest, engine } : { path: nowhere, engine: null, unknownEngine: name };
}
