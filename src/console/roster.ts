// All bouncers at once, as far as a list sorts and filters by it: name, key, when each was last seen. One question to D1, two
// rows for each bouncer, and the pages of the feed's object: 10,000 are read in less than a quarter of a second.

import { eq } from 'drizzle-orm';
import type { Tone } from './parts.tsx';
import { agoOf } from './words.ts';
import { typeAndVersion } from '../bouncers/bouncers.ts';
import { endOf, isLive } from '../bouncers/versions.ts';
import { changesHere, report } from '../feed/client.ts';
import { readSeen } from '../metrics/read.ts';
import { sinceMs } from '../runtime/clock.ts';
import { askD1 } from '../store/ask.ts';
import { bouncers, keyVersions } from '../store/schema.ts';
import { lagOf } from '../stream/behind.ts';

export const bouncerStates = ['seen', 'silent', 'unseen', 'paused', 'keyless'] as const;
export type BouncerState = (typeof bouncerStates)[number];

export interface RosterRow {
  readonly name: string;
  readonly state: BouncerState;
  /** When the key that is in use expires; `Infinity`: never. Null: it has none. */
  readonly keyEndMs: number | null;
  /** When that key was made. Null: it has none. */
  readonly keyMadeMs: number | null;
  readonly seenMs: number | null;
  readonly type: string;
  readonly version: string;
  /** What its client that was seen last asks for (`requestKey`); null: not known. */
  readonly view: string | null;
  /** Changes of the feed since the last answer to its client that is furthest behind; null: not known. */
  readonly lag: number | null;
}

/** No bouncer of CrowdSec's polls less often by default. One that only looks up may be silent for longer. */
export const silentMs = 3_600_000;

/** A page of many bouncers that somebody leaves open asks again and again: of D1 at most 200 rows a second. */
const keptMsEach = 10;
let kept:
  | { readonly env: Env; readonly changes: number; readonly atMs: number; readonly rows: RosterRow[] }
  | undefined;

/** In the order of their names. Of 10,000 it may be 100 s old, but has what was changed through this isolate. */
export async function readRoster(env: Env, nowMs: number): Promise<RosterRow[]> {
  const changes = changesHere();
  if (kept?.env === env && kept.changes === changes) {
    if (sinceMs(kept.atMs, nowMs) < keptMsEach * kept.rows.length) return kept.rows;
  }
  const rows = await readAll(env, nowMs);
  kept = { env, changes, atMs: nowMs, rows };
  return rows;
}

async function readAll(env: Env, nowMs: number): Promise<RosterRow[]> {
  const { id, name, pausedMs } = bouncers;
  const { state, createdMs, expiresMs, deadlineMs } = keyVersions;
  const columns = { id, name, pausedMs, state, createdMs, expiresMs, deadlineMs };
  const readings = [
    askD1(env.DB, (db) =>
      db.select(columns).from(bouncers).leftJoin(keyVersions, eq(keyVersions.bouncerId, id)).orderBy(name),
    ),
    report(env).then(() => readSeen(env)),
  ] as const;
  // Where one fails, no page is read behind the answer.
  await Promise.allSettled(readings);
  const [rows, byId] = await Promise.all(readings);
  return [...Map.groupBy(rows, (row) => row.id)].map(([bouncerId, versions]) => {
    const known = byId.get(bouncerId);
    const inUse = inUseOf(versions, nowMs);
    const keyEndMs = keyEndOf(versions, nowMs);
    const isPaused = typeof versions[0]?.pausedMs === 'number';
    const { type, version } = known ? typeAndVersion(known.userAgent) : { type: '', version: '' };
    return {
      name: versions[0]?.name ?? '',
      state: stateOf({ isPaused, keyEndMs, seenMs: known?.seenMs ?? null }, nowMs),
      keyEndMs,
      keyMadeMs: inUse.length === 0 ? null : Math.max(...inUse.map(({ createdMs }) => createdMs ?? 0)),
      seenMs: known?.seenMs ?? null,
      type,
      version,
      view: known?.view ?? null,
      lag: known ? lagOf(known) : null,
    };
  });
}

export function stateOf(
  of: { readonly isPaused: boolean } & Pick<RosterRow, 'keyEndMs' | 'seenMs'>,
  nowMs: number,
): BouncerState {
  const { isPaused, keyEndMs, seenMs } = of;
  if (keyEndMs === null || nowMs >= keyEndMs) return 'keyless';
  if (isPaused) return 'paused';
  return seenMs === null ? 'unseen' : nowMs - seenMs > silentMs ? 'silent' : 'seen';
}

interface Version {
  /** Null: the bouncer has no version. */
  readonly state: 'next' | 'current' | 'previous' | null;
  readonly expiresMs: number | null;
  readonly deadlineMs: number | null;
}

/** When the key ends: the version in use, or what there is instead. */
export function keyEndOf(versions: readonly Version[], nowMs: number): number | null {
  const ends = inUseOf(versions, nowMs).map(endOf);
  return ends.length === 0 ? null : Math.max(...ends);
}

/** The version in use, or what there is instead. */
function inUseOf<T extends Version>(versions: readonly T[], nowMs: number): T[] {
  const there = versions.filter(({ state }) => state !== null);
  const current = there.filter((version) => version.state === 'current' && isLive(version, nowMs));
  return current.length > 0 ? current : there;
}

/** A bouncer's state in a word, and why. */
export function describeState(
  { state, keyEndMs, seenMs }: Pick<RosterRow, 'state' | 'keyEndMs' | 'seenMs'>,
  nowMs: number,
): { tone: Tone; word: string; why: string } {
  switch (state) {
    case 'seen':
      return { tone: 'ok', word: 'seen', why: '' };
    case 'silent':
      return { tone: 'bad', word: 'silent', why: `last seen ${agoOf(seenMs ?? 0, nowMs)}` };
    case 'unseen':
      return { tone: 'off', word: 'never seen', why: 'its key was not used yet' };
    case 'paused':
      return { tone: 'off', word: 'paused', why: 'an operator paused it: its requests are refused' };
    case 'keyless':
      return {
        tone: 'bad',
        word: 'no key',
        why: keyEndMs === null ? 'it has no key: it is refused' : `its key ended ${agoOf(keyEndMs, nowMs)}`,
      };
    default:
      return state satisfies never;
  }
}
