// What an isolate counts: requests of bouncers, and refused callers. Isolates come and go, so the memory of one is no counter: its counts go to the
// feed's object with the next question, as a batch that has a number. A mistake here loses counts or adds them twice.

import { sinceMs } from '../runtime/clock.ts';

/** What is counted of a bouncer. The numbers are in the object's storage, so none may change its meaning. */
export const counted = {
  polls: 0,
  lookUps: 1,
  reports: 2,
  pollHeads: 3,
  lookUpHeads: 4,
  /** Look-ups that found a decision. */
  found: 5,
  /** Look-ups that found none. */
  foundNone: 6,
  /** Lists of appliances. */
  lists: 7,
  listHeads: 8,
  /** Networks that were left out of them. */
  omitted: 9,
} as const;

export type Counted = (typeof counted)[keyof typeof counted];

/** Whom a request came from that was refused. */
export type Face = 'bouncer' | 'operator' | 'host' | 'machine';

/** What an isolate has counted since its batch before. */
export interface Batch {
  /** The next number of its isolate. The object takes none twice. */
  readonly number: number;
  /** Bouncer's id, what (`counted`), how often; and so on. */
  readonly requests: readonly number[];
  /** How often callers were refused, by face and reason with a blank between them. */
  readonly refused?: Readonly<Record<string, number>>;
}

/** As many as the object counts. */
const mostBouncers = 20_000;
/** A question whose client has gone may never end. After this time its batch goes with another one. */
const lostMs = 10_000;

export function createCounting() {
  let requests = new Map<number, number[]>();
  let refused = new Map<string, number>();
  /** What was sent last, until it is known that it arrived. */
  let batch: Batch | null = null;
  let sentMs = -Infinity;
  let lastNumber = 0;

  const take = (nowMs: number): Batch | undefined => {
    if (sinceMs(sentMs, nowMs) < lostMs) return undefined;
    if (!batch && (requests.size > 0 || refused.size > 0)) {
      batch = { number: ++lastNumber, requests: inTriples(requests), refused: Object.fromEntries(refused) };
      requests = new Map();
      refused = new Map();
    }
    if (batch) sentMs = nowMs;
    return batch ?? undefined;
  };

  return {
    count(bouncerId: number, what: Counted, times = 1): void {
      let own = requests.get(bouncerId);
      if (!own) {
        if (requests.size >= mostBouncers) return;
        requests.set(bouncerId, (own = Object.values(counted).map(() => 0)));
      }
      own[what] = (own[what] ?? 0) + times;
    },

    /** `reason`: one of few, in a word. */
    countRefusal(face: Face, reason: string): void {
      const key = `${face} ${reason}`;
      refused.set(key, (refused.get(key) ?? 0) + 1);
    },

    /** Whether there is something to send. */
    isWaiting: (): boolean => batch !== null || requests.size > 0 || refused.size > 0,

    /**
     * Asks a question, and sends with it what was counted. If the question fails, the next one has the same batch. There is
     * one batch under way at a time, so that the object needs to know one number of each isolate.
     */
    async send<T>(nowMs: number, ask: (batch: Batch | undefined) => Promise<T>): Promise<T> {
      const sent = take(nowMs);
      try {
        const answer = await ask(sent);
        if (sent && sent === batch) batch = null;
        return answer;
      } finally {
        if (sent) sentMs = -Infinity;
      }
    },
  };
}

/** Counts by bouncer in one flat list, as `Batch` has them. Plain loops: the object makes 70,000 of 10,000 bouncers in a turn. */
export function inTriples(requests: ReadonlyMap<number, readonly number[]>): number[] {
  const triples: number[] = [];
  for (const [bouncerId, counts] of requests) {
    for (let what = 0; what < counts.length; what++) {
      const count = counts[what] as number;
      if (count > 0) triples.push(bouncerId, what, count);
    }
  }
  return triples;
}

/** Adds counts that are in one flat list. A bouncer that has none yet and may not begin is left out. */
export function addTriples(
  requests: Map<number, number[]>,
  triples: readonly number[],
  mayBegin: (bouncerId: number) => boolean = () => true,
): void {
  for (let at = 0; at < triples.length; at += 3) {
    const bouncerId = triples[at] as number;
    const what = triples[at + 1] as number;
    const own = requests.get(bouncerId) ?? [];
    if (own.length === 0 && !mayBegin(bouncerId)) continue;
    while (own.length <= what) own.push(0);
    own[what] = (own[what] as number) + (triples[at + 2] as number);
    requests.set(bouncerId, own);
  }
}
