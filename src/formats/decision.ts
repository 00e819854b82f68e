// A decision, and its row in the log of decisions.

/**
 * A decision as an engine (or an operator) gave it; `untilMs` is our clock. LAPI: pkg/models/decision.go. Read from an
 * engine its `id` is the engine's; in the log and in answers it is the one that bouncers know it by.
 */
export interface Decision {
  readonly id: number;
  /** Only in stream answers of engines since 1.5, and not for community or list decisions. */
  readonly uuid?: string;
  readonly origin: string;
  readonly scenario: string;
  readonly scope: string;
  readonly type: string;
  readonly value: string;
  readonly untilMs: number;
}

/** From whom a decision is withheld: from all bouncers, or from those whose names fit one of these patterns (sorted, each once). */
export type Withheld = true | readonly string[];

/**
 * A decision in the log. Only its removal changes a row: `removedSeq` is 0 while it is active; afterwards the row is a
 * tombstone. A renewed row is replaced by another `Row` with the same `rowId`.
 */
export interface Row extends Decision {
  readonly rowId: number;
  /** The engine that decided, by its handle (engine-names.ts); empty: it was decided here. */
  readonly engine: string;
  /** Its id at that engine; 0: no engine knows it. */
  readonly engineId: number;
  /** The value in one spelling (canonical.ts): the same text where there is no other. */
  readonly canonicalValue: string;
  readonly addedSeq: number;
  removedSeq: number;
  removedMs: number;
  /** It touches the allow-list (mirror/allowed.ts). Absent: it is served to all. */
  readonly withheld?: Withheld;
  /** When it was added before the allow-list withheld it, or served it again; absent: it did neither since the start. */
  readonly provenSeq?: number;
}

/** The sequence at which the engine had added it, whatever the allow-list did to it since. */
export function knownSince({ provenSeq, addedSeq }: Row): number {
  return provenSeq ?? addedSeq;
}

/**
 * Ids from here up are given by us: to local decisions, to those of all engines but the one that was there first, and to
 * those of that one whose own ids are not below. All stay below 2^31 for .NET bouncers.
 */
export const firstLocalId = 2 ** 30;

/** The ids that we give, one for each count from `firstLocalId` on: after 2^30 of them they begin again. */
export function givenId(count: number): number {
  return firstLocalId + ((count - firstLocalId) % firstLocalId);
}

/** The origin of decisions made here. */
export const localOrigin = 'lapidary';

/** What a decision says, whoever numbers it and however long it lasts. */
export type Said = Omit<Decision, 'id' | 'uuid' | 'untilMs'>;

/** A row without the log's own columns: what may leave the feed. */
export function decisionOf({ id, origin, scenario, scope, type, value, untilMs }: Decision): Decision {
  return { id, origin, scenario, scope, type, value, untilMs };
}

/** Whether no engine knows a row: it was decided here, or its engine's database is lost. */
export function isLocal(row: Row): boolean {
  return row.engineId === 0;
}

/** Whether two decisions are the same for a bouncer that compares texts. */
export function sameText(a: Said, b: Said): boolean {
  return a.value === b.value && a.scope === b.scope && a.type === b.type;
}

/** Whether bouncers and views can tell two decisions apart only by their ids. */
export function sameContent(a: Said, b: Said): boolean {
  return sameText(a, b) && a.origin === b.origin && a.scenario === b.scenario;
}

/** Equal for rows of one content and engine: each view has all of them or none. */
export function contentKey({
  scope,
  type,
  value,
  origin,
  scenario,
  engine,
}: Said & Pick<Row, 'engine'>): string {
  return JSON.stringify([scope, type, value, origin, scenario, engine]);
}
