// What an operator may do. Each role may do all that the one before it may.

/**
 * In order. `metrics` reads `/metrics` and nothing else. A viewer reads all. An operator also bans, and manages bouncers and
 * hosts. An admin also manages operators.
 */
export const roles = ['metrics', 'viewer', 'operator', 'admin'] as const;

export type Role = (typeof roles)[number];

export function mayAct(role: Role, needed: Role): boolean {
  return roles.indexOf(role) >= roles.indexOf(needed);
}
