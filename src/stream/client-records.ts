// Clients as they are kept in memory, of which there may be 200,000: a record of numbers for each, in a few large buffers
// (packed-map.ts in runtime). What is read is a copy, and what changed is written back.

import { createTextNumbers } from '../formats/texts.ts';
import { createPackedMap } from '../runtime/packed-map.ts';
import type { Cursor } from './cursor.ts';

export interface Client {
  /** `clientName`. */
  readonly name: string;
  readonly bouncerId: number;
  readonly seenMs: number;
  readonly userAgent: string;
  /** The version of the bouncer's key that was used at `seenMs`. */
  readonly versionId: number;
  /** When other versions were last used from here, two at most, the latest last. */
  readonly earlierUses: readonly Use[];
  /** The one that moved last comes last. */
  readonly cursors: readonly ViewCursor[];
  /** How long it waited before it was last seen (`intervalAfter`); 0: not known. */
  readonly intervalMs: number;
  /** The id of the row that it is stored in. */
  readonly row: number;
}

export type Use = readonly [versionId: number, usedMs: number];

/** A cursor with the key of its view (`requestKey`). */
export interface ViewCursor extends Cursor {
  readonly view: string;
}

export type ClientRecords = ReturnType<typeof createClientRecords>;

/** What a record begins with; five numbers follow for each cursor. Its length changes only with its cursors. */
const bouncerAt = 0;
const seenAt = 1;
const versionAt = 2;
const agentAt = 3;
const rowAt = 4;
/** The earlier uses. Those that there are not were at 0. */
const useAt = [5, 7] as const;
const intervalAt = 9;
const cursorsAt = 10;
const cursorLength = 5;

const noExtra = { others: [], pending: [] };
const noUse: Use = [0, 0];

/** Requests that are closer are one pull: some devices ask whether a list has changed, and then for it. */
const onePullMs = 5_000;

/** The time between the last two pulls, after one more. */
export function intervalAfter(intervalMs: number, beforeMs: number, seenMs: number): number {
  return seenMs - beforeMs < onePullMs ? intervalMs : seenMs - beforeMs;
}

/** `entry`: the number of a client's record as long as it is kept. */
export function createClientRecords() {
  const records = createPackedMap();
  /** User agents and views. */
  const texts = createTextNumbers();
  /** Of the few cursors that have any, by client and view. */
  const extras = new Map<string, Pick<Cursor, 'others' | 'pending'>>();

  const extraKey = (name: string, view: string): string => `${name} ${view}`;

  /** The last use, then the earlier ones. */
  const usesOf = (entry: number): Use[] => {
    const at = (index: number): number => records.numberOf(entry, index);
    const earlier = useAt.map((use): Use => [at(use), at(use + 1)]).filter(([, usedMs]) => usedMs > 0);
    return [[at(versionAt), at(seenAt)], ...earlier];
  };

  const read = (entry: number, name = records.keyOf(entry)): Client => {
    const at = (index: number): number => records.numberOf(entry, index);
    const end = records.countOf(entry);
    const earlierUses = usesOf(entry).slice(1);
    const cursors: ViewCursor[] = [];
    for (let next = cursorsAt; next < end; next += cursorLength) {
      const view = texts.textOf(at(next));
      cursors.push({
        view,
        beforeSequence: at(next + 1),
        beforeBaseline: at(next + 2),
        lastSequence: at(next + 3),
        lastBaseline: at(next + 4),
        ...((extras.size > 0 && extras.get(extraKey(name, view))) || noExtra),
      });
    }
    return {
      name,
      bouncerId: at(bouncerAt),
      seenMs: at(seenAt),
      userAgent: texts.textOf(at(agentAt)),
      versionId: at(versionAt),
      earlierUses,
      cursors,
      intervalMs: at(intervalAt),
      row: at(rowAt),
    };
  };

  /** Holds the texts that it refers to. */
  const numbersOf = (client: Client): number[] => {
    const { bouncerId, seenMs, versionId, userAgent, row, earlierUses, cursors, intervalMs } = client;
    const [[firstId, firstMs] = noUse, [secondId, secondMs] = noUse] = earlierUses;
    const numbers = [bouncerId, seenMs, versionId, texts.hold(userAgent), row];
    numbers.push(firstId, firstMs, secondId, secondMs, intervalMs);
    for (const { view, beforeSequence, beforeBaseline, lastSequence, lastBaseline } of cursors) {
      numbers.push(texts.hold(view), beforeSequence, beforeBaseline, lastSequence, lastBaseline);
    }
    return numbers;
  };

  const letGo = ({ name, userAgent, cursors }: Client): void => {
    texts.letGo(userAgent);
    for (const { view } of cursors) {
      texts.letGo(view);
      extras.delete(extraKey(name, view));
    }
  };

  return {
    find: records.find,
    read,

    /** `before`: the client of that name as it is kept. */
    write(client: Client, before: Client | undefined): number {
      const numbers = numbersOf(client);
      if (before) letGo(before);
      for (const { view, others, pending } of client.cursors) {
        if (others.length + pending.length > 0) extras.set(extraKey(client.name, view), { others, pending });
      }
      return records.set(client.name, numbers);
    },

    delete(client: Client): void {
      const entry = records.find(client.name);
      if (entry === undefined) return;
      letGo(client);
      records.delete(entry);
    },

    /** Notes a poll like the last one. False: it was not. */
    noteSame(entry: number, versionId: number, userAgent: string, seenMs: number): boolean {
      const isSame =
        records.numberOf(entry, versionAt) === versionId &&
        texts.textOf(records.numberOf(entry, agentAt)) === userAgent;
      if (!isSame) return false;
      const beforeMs = records.numberOf(entry, seenAt);
      const intervalMs = records.numberOf(entry, intervalAt);
      records.setNumber(entry, intervalAt, intervalAfter(intervalMs, beforeMs, seenMs));
      records.setNumber(entry, seenAt, Math.max(seenMs, beforeMs));
      return true;
    },

    // Single numbers, for those who look at many clients at once.
    rowOf: (entry: number): number => records.numberOf(entry, rowAt),
    bouncerOf: (entry: number): number => records.numberOf(entry, bouncerAt),
    seenMsOf: (entry: number): number => records.numberOf(entry, seenAt),
    hasCursor: (entry: number): boolean => records.countOf(entry) > cursorsAt,
    usesOf,
    /** Adds the baselines that its cursors refer to. */
    addBaselines(entry: number, to: Set<number>): void {
      const end = records.countOf(entry);
      for (let cursor = cursorsAt; cursor < end; cursor += cursorLength) {
        to.add(records.numberOf(entry, cursor + 2)).add(records.numberOf(entry, cursor + 4));
      }
    },

    /** The baselines that cursors have besides. */
    otherBaselines: (): number[] => [...extras.values()].flatMap(({ others }) => others),

    size: records.size,
  };
}
