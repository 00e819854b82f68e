// The events that operators can be told of, and the text of a message. Every type here is sent; docs/webhooks.md says when.

/** In the order of the documentation. */
export const eventTypes = [
  'bouncer.silent',
  'bouncer.recovered',
  'engine.stale',
  'engine.refused',
  'engine.recovered',
  'key.expiring',
  'key.expired',
  'host.clone-suspected',
  'host.refused',
  'audit.broken',
] as const;
export type EventType = (typeof eventTypes)[number];

/** What was found: everything of one type at one time goes into one message. */
export interface Found {
  readonly type: EventType;
  readonly items: readonly Item[];
}

/** Of whom, and what is known: names, numbers, times and problems. Never a secret. */
export type Item = Readonly<Record<string, string | number | null>>;

/** What the list of items is called in a message. */
const lists: Readonly<Record<EventType, string>> = {
  'bouncer.silent': 'bouncers',
  'bouncer.recovered': 'bouncers',
  'engine.stale': 'engines',
  'engine.refused': 'engines',
  'engine.recovered': 'engines',
  'key.expiring': 'keys',
  'key.expired': 'keys',
  'host.clone-suspected': 'hosts',
  'host.refused': 'hosts',
  'audit.broken': 'faults',
};

/** More items are counted and not named: a message has some 20 KB at most. */
const mostItems = 100;

/** The body of a message, as the Standard Webhooks specification recommends it. */
export function bodyOf({ type, items }: Found, atMs: number): string {
  const data = { count: items.length, [lists[type]]: items.slice(0, mostItems) };
  return JSON.stringify({ type, timestamp: new Date(atMs).toISOString(), data });
}

/** 0: never. */
export function isoTime(ms: number): string | null {
  return ms === 0 ? null : new Date(ms).toISOString();
}
