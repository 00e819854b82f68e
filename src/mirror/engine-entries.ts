// The entries of engines' own allow-lists as operators read them: in pages, in the order in which they came. A page costs one
// look at all entries of the allow-list, of which there are 20,000 at most.

import { engineNamer, handleOf } from './engine-names.ts';
import type { Store } from './mirror.ts';

export interface PageAsk {
  /** The name of an engine whose lists are read; absent: all. */
  readonly engine?: string | undefined;
  readonly list?: string | undefined;
  /** The `place` of the last one of the page before; 0 begins. */
  readonly after: number;
  readonly limit: number;
}

export interface ListedEngineEntry {
  /** It keeps it for as long as the engine has it. */
  readonly place: number;
  readonly value: string;
  /** The engine's name, and that of its list. */
  readonly engine: string;
  readonly list: string;
  /** Null: it does not end. */
  readonly expiresMs: number | null;
  /** It has not ended. */
  readonly holds: boolean;
}

/** The next `limit` of them. */
export function page(
  { allowList, names }: Store,
  { engine, list, after, limit }: PageAsk,
): ListedEngineEntry[] {
  const handle = engine === undefined ? undefined : handleOf(names, engine);
  const found = allowList.entries.flatMap(({ id, value, expiresMs, applied: holds, from }) => {
    // Their ids count down from -1.
    const place = -id;
    if (!from || place <= after) return [];
    if (handle !== undefined && from.engine !== handle) return [];
    if (list !== undefined && from.list !== list) return [];
    return [{ place, value, engine: from.engine, list: from.list, expiresMs, holds }];
  });
  const nameOf = engineNamer(names);
  return found
    .sort((a, b) => a.place - b.place)
    .slice(0, limit)
    .map((entry) => ({ ...entry, engine: nameOf(entry.engine) }));
}
