// Patterns of the names of bouncers, by which an entry of the allow-list is for some bouncers. Pure, but for what is remembered
// of names. A mistake here lets an address through at a bouncer for which nobody allowed it.

import { matchesGlob } from '../formats/glob.ts';
import { byHandles, type Names } from './engine-names.ts';
import type { View } from './view.ts';

/** Names for which it is remembered which patterns they fit. */
const mostNames = 20_000;

/** Some patterns, and what is known of names, as long as the patterns are in use. */
interface Read {
  readonly exact: ReadonlySet<string>;
  readonly wild: readonly string[];
  /** A name → those that it fits. */
  readonly fitting: Map<string, readonly string[]>;
}

const known = new WeakMap<readonly string[], Read>();

/** A view as rows are matched with it: with its engines' handles in place of their names, and `withPatterns`. */
export function resolveNames(view: View, names: Names, patterns: readonly string[]): View {
  return withPatterns(byHandles(view, names), patterns);
}

/**
 * With those of the allow-list's patterns that its bouncer's name fits. Most fit none. To be taken in the turn of the
 * answer: rows change with the patterns.
 */
export function withPatterns(view: View, patterns: readonly string[]): View {
  const { bouncer } = view;
  if (patterns.length === 0 || bouncer === undefined) return view;
  const fitting = fittingOf(patterns, bouncer);
  return fitting.length === 0 ? view : { ...view, patterns: fitting };
}

/** Whether two lists have the same patterns in the same order. */
export function samePatterns(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((pattern, at) => pattern === b[at]));
}

/** Those of some patterns that a name fits. */
export function fittingOf(patterns: readonly string[], name: string): readonly string[] {
  const { exact, wild, fitting } = known.get(patterns) ?? read(patterns);
  const before = fitting.get(name);
  if (before) return before;
  const found = [
    ...(exact.has(name) ? [name] : []),
    ...wild.filter((pattern) => matchesGlob(pattern, name)),
  ].sort();
  if (fitting.size >= mostNames) fitting.clear();
  fitting.set(name, found);
  return found;
}

function read(patterns: readonly string[]): Read {
  const isWild = (pattern: string): boolean => pattern.includes('*');
  const exact = new Set(patterns.filter((pattern) => !isWild(pattern)));
  const all = { exact, wild: patterns.filter(isWild), fitting: new Map<string, readonly string[]>() };
  known.set(patterns, all);
  return all;
}
