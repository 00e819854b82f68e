// A feed of several engines, on one storage over many wakes: each is a restart, with the settings that a test gives it.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import type { EngineStatus } from '../../src/engines/engines.ts';
import { DecisionFeed } from '../../src/feed/object.ts';
import type { Listed } from '../../src/mirror/listing.ts';
import { bouncer, type BouncerOptions } from './bouncer.ts';
import { serveWith } from './edge.ts';
import { waitUntil } from './patience.ts';

/** Names of engines with their hosts. `default` is the one of UPSTREAM_URL. */
export type Engines = Readonly<Record<string, string>>;

/** What most tests begin with. */
export const both: Engines = { default: 'a.example', paris: 'b.example' };

export const hour = 3_600_000;
export const until = () => Date.now() + hour;
/** A fault: nobody answers. */
export const down = () => Promise.reject(new Error('down')) as unknown as Response;

let awake: DecisionFeed | undefined;
let bindings: object | undefined;

export function awakeFeed(): DecisionFeed {
  if (!awake) throw new Error('the feed sleeps: ask inside of wake');
  return awake;
}

/**
 * Wakes the feed with these engines for as long as `use` runs. `sources`: further entries of UPSTREAMS. `others`: any other
 * setting.
 */
export function wake<T>(
  { default: first, ...further }: Engines,
  use: () => Promise<T>,
  sources: readonly object[] = [],
  others: Readonly<Record<string, string>> = {},
): Promise<T> {
  const engines = Object.entries(further).map(([name, host]) => ({
    name,
    url: `http://${host}`,
    key: name,
  }));
  const upstreams = [...engines, ...sources];
  const settings = {
    UPSTREAM_URL: first === undefined ? '' : `http://${first}`,
    UPSTREAMS: JSON.stringify(upstreams),
    ...others,
  };
  // The class is the Worker's own, in the place of the instance that the runtime made with the suite's settings.
  return runInDurableObject(env.DECISION_FEED.getByName('several'), async (_, state) => {
    bindings = { ...env, ...settings, DECISION_FEED: { getByName: awakeFeed } };
    awake = new DecisionFeed(state, { ...env, ...settings } as Env);
    try {
      return await use();
    } finally {
      awake = undefined;
    }
  });
}

/** The answer of a Worker that has the settings of the feed that is awake. */
export function asked(path: string, init?: RequestInit): Promise<Response> {
  if (!bindings) throw new Error('nothing was woken yet');
  return serveWith(bindings, path, init);
}

/** A round with all engines, or with one. */
export async function sync(engine?: string, { full = true, force = false } = {}) {
  return awakeFeed().sync({ engine, full, force });
}

/** A round a minute later, in which the own allow-lists of the engines are read. It needs the time to be a test's own. */
export async function readAllowLists(): Promise<void> {
  const startMs = Date.now() + 60_000;
  vi.setSystemTime(startMs);
  await awakeFeed().alarm();
  const isRead = ({ allowLists }: EngineStatus) => !allowLists || allowLists.readMs >= startMs;
  await waitUntil(() => awakeFeed().status().engines.every(isRead));
}

/** Every active decision with its engine. */
export function listed(): Listed[] {
  return awakeFeed().page(0, 10_000) ?? [];
}

/** Their values, in order. */
export function values(): string[] {
  return listed()
    .map(({ value }) => value)
    .sort();
}

/** Value → id and engine, as operators see it. */
export function shown(): Record<string, Pick<Listed, 'id' | 'engine'>> {
  return Object.fromEntries(listed().map(({ value, id, engine }) => [value, { id, engine }]));
}

export function engineStatus(name: string) {
  return awakeFeed()
    .status()
    .engines.find((engine) => engine.name === name);
}

/** A bouncer that asks whichever feed is awake, over many wakes. */
export function reader(options: BouncerOptions = {}) {
  return bouncer({ asks: awakeFeed, ...options });
}
