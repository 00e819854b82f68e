// What is wrong with engines and hosts, and what is said of them. Pure.

import type { EngineStatus } from '../engines/engines.ts';
import type { Wrong } from './alarms.ts';
import type { ExpiringKey, HostTrouble } from './facts.sql.ts';
import { isoTime, type Item } from './kinds.ts';

/** What is wrong, and what is said of each subject if it comes to that. */
export interface Trouble {
  readonly wrong: readonly Wrong[];
  readonly items: ReadonlyMap<string, Item>;
}

export function engineTrouble(states: readonly EngineStatus[]): Trouble {
  return {
    wrong: states.flatMap(wrongWith),
    items: new Map(states.map((state) => [engineSubject(state), describeEngine(state)])),
  };
}

function engineSubject({ name }: EngineStatus): string {
  return `engine ${name}`;
}

/** One that refuses our key is stale soon, too: that is not said besides. */
function wrongWith(state: EngineStatus): Wrong[] {
  const { link, freshness } = state;
  const subject = engineSubject(state);
  if (link === 'refused') return [{ type: 'engine.refused', subject }];
  const isStale = freshness === 'stale' || (freshness === 'cold' && link === 'failing');
  return isStale ? [{ type: 'engine.stale', subject }] : [];
}

function describeEngine({ name, lastSyncMs, lastResyncMs, lastError }: EngineStatus): Item {
  return {
    name,
    last_sync_at: isoTime(lastSyncMs),
    last_full_list_at: isoTime(lastResyncMs),
    error: lastError,
  };
}

/** Apart, though one host may have both: each ends by itself. */
export function hostTrouble({ suspected, refused }: HostTrouble): Trouble {
  const copies = suspected.map(({ name, atMs }) => {
    return ['host.clone-suspected', `copied ${name}`, { name, suspected_at: isoTime(atMs) }] as const;
  });
  const refusals = refused.map(({ name, atMs, why }) => {
    return ['host.refused', `refused ${name}`, { name, refused_at: isoTime(atMs), why }] as const;
  });
  const all = [...copies, ...refusals];
  return {
    wrong: all.map(([type, subject]) => ({ type, subject })),
    items: new Map(all.map(([, subject, item]) => [subject, item])),
  };
}

export function describeKey({ bouncer, number, expiresMs }: ExpiringKey): Item {
  return { bouncer, version: number, expires_at: isoTime(expiresMs) };
}
