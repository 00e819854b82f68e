// Which engine is which when the settings change. An engine is recognised by its address, or by its name if the address
// is new. Its decisions are kept under a handle that never changes: the name that it had first. So a new name moves no
// decision and changes no view, and an engine that gets another one's former name gets none of its decisions. Pure. A
// mistake here hands one engine's decisions to another, which then removes them.

import type { UpstreamSettings } from '../config/upstreams.ts';
import type { Filters, View } from './view.ts';

/** An engine that the feed knows. */
export interface KnownEngine {
  readonly handle: string;
  /** Its address at the last full list that was accepted; empty: it was stored before addresses were. */
  readonly url: string;
}

/** Names that engines have or had → handles. The current name of an engine is the last one of its handle. */
export type Names = ReadonlyMap<string, string>;

/** The handle of the engine that has a name, or had it last. If none had, the name itself, which matches nothing. */
export function handleOf(names: Names, name: string): string {
  return names.get(name) ?? name;
}

/** The current or last name of each engine, by its handle. */
export function lastNames(names: Names): Map<string, string> {
  return new Map([...names].map(([name, handle]) => [handle, name]));
}

/**
 * What operators read for an engine's handle: its current or last name. If all of its names are others' by now, the handle
 * with `~1`: the handle alone may read as another engine's name, and no name and no handle has that ending.
 */
export function engineNamer(names: Names): (handle: string) => string {
  const last = lastNames(names);
  return (handle) => last.get(handle) ?? (names.has(handle) ? `${handle}~1` : handle);
}

/** The handle of each configured engine, by its name. A new engine gets a new one. `names`: as stored. */
export function identify(
  engines: readonly Pick<UpstreamSettings, 'name' | 'url'>[],
  known: readonly KnownEngine[],
  names: Names,
): Map<string, string> {
  const handles = new Map<string, string>();
  for (const { name, url } of engines) {
    const there = known.find((each) => each.url === url);
    if (there) handles.set(name, there.handle);
  }
  const taken = new Set(handles.values());
  // Current names before former ones, since a former name may be a new engine's.
  const last = lastNames(names);
  const isLast = ({ name }: Pick<UpstreamSettings, 'name'>): boolean =>
    last.get(handleOf(names, name)) === name;
  const moved = engines.filter((engine) => !handles.has(engine.name));
  for (const { name } of [...moved.filter(isLast), ...moved.filter((engine) => !isLast(engine))]) {
    const before = names.get(name);
    const handle = before !== undefined && !taken.has(before) ? before : newHandle(name, known, taken);
    handles.set(name, handle);
    taken.add(handle);
  }
  return handles;
}

/** No name has a `~`, so no name is another engine's handle. */
function newHandle(name: string, known: readonly KnownEngine[], taken: ReadonlySet<string>): string {
  const isFree = (text: string): boolean => !taken.has(text) && !known.some(({ handle }) => handle === text);
  let handle = name;
  for (let count = 2; !isFree(handle); count++) handle = `${name}~${count}`;
  return handle;
}

/** A view with handles in place of engine names. Most views name none. */
export function byHandles(view: View, names: Names): View {
  if (!view.engines && !view.limits?.engines) return view;
  const limits = view.limits && translated(view.limits, names);
  return { ...translated(view, names), limits };
}

function translated<T extends Filters>(filters: T, names: Names): T {
  if (!filters.engines) return filters;
  return { ...filters, engines: filters.engines.map((name) => handleOf(names, name)) };
}
