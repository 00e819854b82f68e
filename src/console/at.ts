// What each page knows of its request: who asks, from where, and when.

import type { Context } from 'hono';
import type { AppEnv } from '../env.ts';
import { mayAct, type Role } from '../config/roles.ts';

export interface At {
  /** Before each path of a link: PATH_PREFIX and `/console`. */
  readonly base: string;
  /** The address of Lapidary as bouncers may use it. */
  readonly url: string;
  readonly actor: string;
  readonly role: Role;
  /** Signed in by a cookie, so that there is something to sign out of. */
  readonly bySession: boolean;
  /** What each form has with it (operators/sessions.ts). */
  readonly formToken: string;
  readonly nowMs: number;
}

export function may(at: At, needed: Role): boolean {
  return mayAct(at.role, needed);
}

export function baseOf(c: Context<AppEnv>): string {
  return `${c.get('settings').pathPrefix}/console`;
}

/** A path of the console with a query. Empty and undefined parameters are left out. */
export function linkTo(
  at: Pick<At, 'base'>,
  path: string,
  query: Readonly<Record<string, string | number | null | undefined>> = {},
): string {
  const given = Object.entries(query).filter(
    ([, value]) => value !== undefined && value !== null && value !== '',
  );
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return at.base + path + (search === '' ? '' : `?${search}`);
}
