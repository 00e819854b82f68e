// Which engine is which, over changes of the settings. An engine is known by its address, and where that is new by its
// name; what it decided is kept under a handle that it has for good: the name that it had first. So another name moves no
// decision and changes no view, and a name that is given to another engine gives that one nothing of the first. Pure. A
// mistake here hands one engine's decisions to another, which then ends them.

import type { EngineSettings } from '../config/engines.ts';
import type { Filters, View } from './view.ts';

/** An engine as the feed has known it. */
export interface KnownEngine {
  readonly handle: string;
  /** Where it was when a full list of it was last believed; empty: kept before addresses were. */
  readonly url: string;
}

/** Names that engines have or had → handles. The name that an engine had last is the last one of its handle. */
export type Names = ReadonlyMap<string, string>;

/** The handle of the engine that has a name, or had it last; the name itself, which matches nothing, where none had. */
export function handleOf(names: Names, name: string): string {
  return names.get(name) ?? name;
}

/** What each engine is called now, or was last, by its handle. */
export function lastNames(names: Names): Map<string, string> {
  return new Map([...names].map(([name, handle]) => [handle, name]));
}

/** The handle of each engine of the settings, by its name. `names`: of before. One that was never known gets a new one. */
export function identify(
  engines: readonly Pick<EngineSettings, 'name' | 'url'>[],
  known: readonly KnownEngine[],
  names: Names,
): Map<string, string> {
  const handles = new Map<string, string>();
  for (const { name, url } of engines) {
    const there = known.find((each) => each.url === url);
    if (there) handles.set(name, there.handle);
  }
  const taken = new Set(handles.values());
  // Those first who have the name now: a former name may be a new engine's.
  const last = lastNames(names);
  const isLast = ({ name }: Pick<EngineSettings, 'name'>): boolean =>
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

/** No name has a `~`, so that no name is another engine's handle. */
function newHandle(name: string, known: readonly KnownEngine[], taken: ReadonlySet<string>): string {
  const isFree = (text: string): boolean => !taken.has(text) && !known.some(({ handle }) => handle === text);
  let handle = name;
  for (let count = 2; !isFree(handle); count++) handle = `${name}~${count}`;
  return handle;
}

/** A view with the handles of the engines that it names: most name none. */
export function byHandles(view: View, names: Names): View {
  if (!view.engines && !view.limits?.engines) return view;
  const limits = view.limits && translated(view.limits, names);
  return { ...translated(view, names), limits };
}

function translated<T extends Filters>(filters: T, names: Names): T {
  if (!filters.engines) return filters;
  return { ...filters, engines: filters.engines.map((name) => handleOf(names, name)) };
}
