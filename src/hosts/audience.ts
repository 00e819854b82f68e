// Whether a host's signed request is meant for this broker: its `aud` has to be an address by which hosts know the broker.
// The request's own Host header has no part in it, since whoever relays a request can write that. A mistake here lets another
// broker relay a host's requests to this one. Pure.

import { badInput, fail, succeed, type Result } from '../http/failure.ts';
import type { Settings } from '../config/settings.ts';
import { isLoopbackUrl } from '../config/public-url.ts';

/**
 * The addresses by which hosts know this broker, `PATH_PREFIX` included. A PUBLIC_URL that other machines can reach is the
 * only one. `fixed`: the address in D1 (schema.ts).
 */
export function publicUrls(
  { publicUrl, pathPrefix }: Pick<Settings, 'publicUrl' | 'pathPrefix'>,
  fixed: string | null,
): string[] {
  if (publicUrl !== '' && !isLoopbackUrl(publicUrl)) return [publicUrl];
  return [
    ...(publicUrl === '' ? [] : [publicUrl]),
    ...(fixed === null ? [] : [fixed.startsWith('//') ? fixed + pathPrefix : fixed]),
  ];
}

/** Whether `audience`, which a host has signed, is the route at `path` of a broker with the addresses `urls`. */
export function checkAudience(
  urls: readonly string[],
  path: string,
  audience: string,
  fromLoopback: boolean,
): Result<void> {
  if (urls.length === 0) {
    const why =
      'this broker does not know its address yet: set PUBLIC_URL, or let an operator call /api/v1 by the name that hosts use';
    return fail({ kind: 'unavailable', problem: why });
  }
  // A fixed address has no scheme: behind a proxy that ends TLS, the broker doesn't see it.
  const named = urls.find(
    (url) => `${url}${path}` === (url.startsWith('//') ? audience.replace(/^https?:/, '') : audience),
  );
  if (named === undefined) {
    const known = urls.map((url) => url.replace(/^\/\//, '')).join(' and as ');
    return badInput('aud', `is not this route of this broker, which hosts know as ${known} (PUBLIC_URL)`);
  }
  if (!isLoopbackUrl(named) || fromLoopback) return succeed(undefined);
  return badInput(
    'aud',
    'is good on this machine only: PUBLIC_URL must be an address that other hosts reach',
  );
}
