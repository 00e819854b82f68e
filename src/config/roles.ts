// What an operator may do. Each role may do all that the one before it may.

/** In order: a viewer reads; an operator bans, and cares for bouncers and their keys; an admin makes operators. */
export const roles = ['viewer', 'operator', 'admin'] as const;

export type Role = (typeof roles)[number];

export function isRole(value: unknown): value is Role {
  return roles.some((role) => role === value);
}

export function mayAct(role: Role, needed: Role): boolean {
  return roles.indexOf(role) >= roles.indexOf(needed);
}
