// What an answer of an engine changes, as it is written: made by engines/plan.ts, applied by mirror.ts.

import type { Decision, Row } from '../formats/decision.ts';

export interface Plan {
  readonly add: readonly Decision[];
  /** The same decision under a new id: a community pull replaced it, or its database came back. */
  readonly renew: readonly Renewal[];
  readonly remove: readonly Row[];
  /** Rows of a database that is gone: no engine knows them any more, and they live to their own end. */
  readonly orphan: readonly Row[];
  /** The engine's ids that the full list misses and that are kept until another full list misses them too. */
  readonly held: ReadonlySet<number>;
  /** Why the answer needs a (further) full list to be believed; undefined when it is plain. */
  readonly doubt: string | undefined;
  /** How many of the answer were not kept, since there would be no room for them (ceiling.ts). */
  readonly leftOut: number;
  /** The highest of the engine's ids in the answer, those without room included; 0: it had none. */
  readonly highestId: number;
}

export interface Renewal {
  readonly row: Row;
  readonly decision: Decision;
}

/** Sequence and the engine's highest id as of the last believed full list: what is newer may be another database's. */
export interface Trusted {
  readonly sequence: number;
  readonly highestId: number;
}
