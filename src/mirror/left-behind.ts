// Decisions that no engine vouches for any more: they live to their own end, since who was banned once is not unbanned by
// an accident. An operator ends them by vouching for all engines.

import { isLocal, type Row } from '../formats/decision.ts';
import { lastNames, type Names } from './engine-names.ts';
import type { Mirror } from './memory.ts';

export const leftBehindReasons = ['database-replaced', 'engine-removed'] as const;
export type LeftBehindReason = (typeof leftBehindReasons)[number];

/** How many of one engine, by the name that it had last, and why. */
export interface LeftBehind {
  readonly engine: string;
  readonly decisions: number;
  readonly why: LeftBehindReason;
}

/**
 * Why a decision is left behind; null: it is not. Without any engine none is, since then it is more likely that a setting
 * was lost. `engines`: by the handles of those that there are.
 */
export function whyLeftBehind(engines: ReadonlyMap<string, unknown>, row: Row): LeftBehindReason | null {
  if (row.engine === '') return null;
  if (engines.size > 0 && !engines.has(row.engine)) return 'engine-removed';
  return isLocal(row) ? 'database-replaced' : null;
}

export function countLeftBehind(
  mirror: Mirror,
  engines: ReadonlyMap<string, unknown>,
  names: Names,
): LeftBehind[] {
  const named = lastNames(names);
  const counts = new Map<string, LeftBehind>();
  for (const row of mirror.byId.values()) {
    const why = whyLeftBehind(engines, row);
    if (why === null) continue;
    const engine = named.get(row.engine) ?? row.engine;
    const before = counts.get(`${why} ${engine}`);
    counts.set(`${why} ${engine}`, { engine, decisions: (before?.decisions ?? 0) + 1, why });
  }
  return [...counts.values()];
}
