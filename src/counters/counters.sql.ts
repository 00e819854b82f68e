// Counters that the feed's object keeps, for all isolates. They are held in memory and written behind as one row, once in
// 10 s: a crash loses what was counted since. A reader sees nothing that is not stored, since Prometheus takes a counter that
// goes back a little for one that began anew, and would count all of it again.

import { causeOf } from '../http/failure.ts';
import type { Mirror } from '../mirror/memory.ts';
import { sinceMs } from '../runtime/clock.ts';
import { addTriples, counted, inTriples, type Batch } from './counting.ts';
import { createDeleted } from './deleted.ts';
import { noSteps, withNow, type Step } from './steps.ts';
import { openTable } from './tables.ts';

const createTable = `CREATE TABLE IF NOT EXISTS counters (id INTEGER PRIMARY KEY CHECK (id = 0), body TEXT NOT NULL)`;

const writeIntervalMs = 10_000;
/** Those that come later are not counted until others are deleted: the row has some 40 bytes for each. */
const mostBouncers = 20_000;
/** The number of an isolate that was silent for longest is forgotten first. */
const mostIsolates = 1_000;

/** The row. The numbers of batches are in it, so a batch that is sent again after a crash is added if it was lost. */
interface Body {
  /** By bouncer, as in a batch. */
  readonly requests?: readonly number[];
  /** Isolates and their newest batches. */
  readonly batches?: readonly (readonly [isolate: string, number: number])[];
  /** As in a batch. */
  readonly refused?: Readonly<Record<string, number>>;
  readonly audited?: Audited;
  readonly steps?: typeof noSteps;
}

/** How many rows of the audit log there are of each action, up to one row. */
export interface Audited {
  readonly seq: number;
  readonly byAction: Readonly<Record<string, number>>;
}

const nothingAudited: Audited = { seq: 0, byAction: {} };

/** What a scrape reads. */
export interface Counts {
  /** By bouncer, as in a batch. */
  readonly requests: readonly number[];
  readonly refused: Readonly<Record<string, number>>;
  /** As a scrape left it: the next one counts from there. */
  readonly audited: Audited;
}

export type Counters = ReturnType<typeof openCounters>;

/** Nothing here keeps the object from its start: a full disk has no table yet, and a row that can't be read counts anew. */
export function openCounters(sql: SqlStorage, mirror: Pick<Mirror, 'byId' | 'sequence'>) {
  const table = openTable(sql, createTable);
  let isReadable = true;
  const readStored = (): Body => {
    if (!isReadable || !table.isThere()) return {};
    try {
      const [row] = sql.exec<{ body: string }>(`SELECT body FROM counters`).toArray();
      return JSON.parse(row?.body ?? '{}') as Body;
    } catch (error) {
      isReadable = false;
      console.error(`counters can not be read, and begin anew: ${causeOf(error).message}`);
      return {};
    }
  };

  const kept = readStored();
  const requests = new Map<number, number[]>();
  addTriples(requests, kept.requests ?? []);
  const deleted = createDeleted();
  const mayBegin = (bouncerId: number): boolean => {
    return requests.size < mostBouncers && !deleted.has(bouncerId);
  };
  /** The one that was heard last comes last. */
  const batches = new Map(kept.batches ?? []);
  const refused = new Map(Object.entries(kept.refused ?? {}));
  let audited: Audited = kept.audited ?? nothingAudited;
  let steps = kept.steps ?? noSteps;
  let polls = 0;
  /** Since the newest step was last brought up to now. */
  let newlyRefused = new Map<string, number>();
  let isStored = true;
  let writtenMs = -Infinity;

  const countsNow = (): Counts => {
    return { requests: inTriples(requests), refused: Object.fromEntries(refused), audited };
  };

  const write = (counts: Counts, nowMs: number): void => {
    // What fails is tried again as late as what succeeds.
    writtenMs = nowMs;
    const body = JSON.stringify({ ...counts, batches: [...batches], steps } satisfies Body);
    const insert = `INSERT INTO counters VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body`;
    try {
      table.make();
      sql.exec(insert, body);
      isStored = true;
      isReadable = true;
    } catch (error) {
      console.error(`counters can not be written, and wait: ${causeOf(error).message}`);
    }
  };

  const noteNow = (nowMs: number): void => {
    const before = steps;
    const now = { decisions: mirror.byId.size, sequence: mirror.sequence, polls, refused: newlyRefused };
    steps = withNow(steps, now, nowMs);
    polls = 0;
    newlyRefused = new Map();
    if (steps !== before) isStored = false;
  };

  const forget = (isForgotten: (bouncerId: number) => boolean): void => {
    for (const bouncerId of requests.keys()) if (isForgotten(bouncerId)) requests.delete(bouncerId);
    isStored = false;
  };

  return {
    isDeleted: deleted.has,
    /** Adds what an isolate has counted, once. A question of the release before has neither. */
    take(isolate: string | undefined, batch: Batch | undefined): void {
      if (isolate === undefined || batch === undefined) return;
      if (batch.number <= (batches.get(isolate) ?? 0)) return;
      batches.delete(isolate);
      batches.set(isolate, batch.number);
      for (const oldest of batches.keys()) {
        if (batches.size <= mostIsolates) break;
        batches.delete(oldest);
      }
      addTriples(requests, batch.requests, mayBegin);
      polls += pollsIn(batch.requests);
      for (const [what, count] of Object.entries(batch.refused ?? {})) {
        refused.set(what, (refused.get(what) ?? 0) + count);
        newlyRefused.set(what, (newlyRefused.get(what) ?? 0) + count);
      }
      isStored = false;
    },
    /** Takes what a scrape has counted of the audit log. It is right by itself: the last one counts. */
    noteAudited(to: Audited): void {
      audited = to;
      isStored = false;
    },
    forgetBouncer(bouncerId: number): void {
      deleted.add(bouncerId);
      forget((id) => id === bouncerId);
    },
    /** D1 was restored: so is its audit log. */
    forgetBouncersAfter(bouncerId: number): void {
      audited = nothingAudited;
      deleted.forgetAfter(bouncerId);
      forget((id) => id > bouncerId);
    },
    /** For every round. */
    keep(nowMs: number): void {
      noteNow(nowMs);
      if (!isStored && sinceMs(writtenMs, nowMs) >= writeIntervalMs) write(countsNow(), nowMs);
    },
    /** The last 24 hours up to now. */
    steps(nowMs: number): readonly Step[] {
      noteNow(nowMs);
      return steps.steps;
    },
    /** What is stored. Of the audit log also what is not yet: after a restart it is counted again from D1. */
    read(nowMs: number): Counts {
      const counts = countsNow();
      if (!isStored) write(counts, nowMs);
      if (isStored) return counts;
      const { requests = [], refused = {} } = readStored();
      return { requests, refused, audited };
    },
  };
}

/** Polls and look-ups. */
function pollsIn(triples: readonly number[]): number {
  let polls = 0;
  for (let at = 0; at < triples.length; at += 3) {
    const isPoll = triples[at + 1] === counted.polls || triples[at + 1] === counted.lookUps;
    if (isPoll) polls += triples[at + 2] as number;
  }
  return polls;
}
