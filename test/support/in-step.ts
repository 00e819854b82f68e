// What a bouncer should hold, by a model that is as simple as it can be: the longest decision of each value under a view.
import { expect, vi } from 'vitest';
import { matcher, type Limits, type View } from '../../src/feed/view.ts';
import { keyOf } from './bouncer.ts';
import type { ModelDecision, ModelEngine } from './model-engine.ts';

/** Which of several decisions a cap leaves depends on ends that the engine gives in whole seconds: the feed's count. */
export type Ranked = Pick<
  ModelDecision,
  'origin' | 'scenario' | 'scope' | 'type' | 'value' | 'untilMs' | 'id'
> & {
  /** Null: it was decided here. */
  engine: string | null;
};

/** What is active at an engine, which the feed knows by this name. */
export function activeAt(engine: ModelEngine, name = 'default'): Ranked[] {
  return engine.active().map((row) => ({ ...row, engine: name }));
}

export const capped = (view: View): boolean => view.limits?.maxDecisions != null;

/** The decision that stands for each key: the one that lasts longest. */
function winners(rows: readonly Ranked[], view: View): Map<string, Ranked> {
  const matches = matcher(view);
  const longest = new Map<string, Ranked>();
  for (const row of rows.filter((each) => matches({ ...each, engine: each.engine ?? '' }))) {
    const other = longest.get(keyOf(row));
    const wins =
      !other || row.untilMs > other.untilMs || (row.untilMs === other.untilMs && row.id < other.id);
    if (wins) longest.set(keyOf(row), row);
  }
  return longest;
}

const isListed = ({ origin }: Ranked): number => Number(origin === 'CAPI' || origin === 'lists');

export function expectedKeys(rows: readonly Ranked[], view: View): string[] {
  const best = [...winners(rows, view).values()];
  return best
    .sort((a, b) => isListed(a) - isListed(b) || b.untilMs - a.untilMs)
    .slice(0, view.limits?.maxDecisions ?? Infinity)
    .map(keyOf)
    .sort();
}

/** Which of two that end together a cap leaves is the feed's choice: a key, or under a cap how good its decision is. */
export function rankOf(rows: readonly Ranked[], view: View): (key: string) => string {
  if (!capped(view)) return (key) => key;
  const longest = winners(rows, view);
  return (key) => {
    const row = longest.get(key);
    return row ? `${isListed(row)} ${row.untilMs}` : `not there: ${key}`;
  };
}

interface Client {
  readonly view: View;
  keys(): string[];
  limits(): Limits | null;
}

/** Whatever went before, an answer that arrived leaves a bouncer with what the feed has for it, and no more. */
export async function expectInStep(client: Client, rows: readonly Ranked[]): Promise<void> {
  const view = { ...client.view, limits: client.limits() };
  // In its last second a ban is not announced any more; who has it keeps it to its end.
  const ending = new Set(rows.filter((row) => row.untilMs - Date.now() < 1000).map(keyOf));
  const certain = (keys: string[]) => keys.filter((key) => !ending.has(key));
  const ranks = rankOf(rows, view);
  const ranked = (keys: string[]) => certain(keys).map(ranks).sort();
  expect(ranked(client.keys()), `view ${JSON.stringify(view)}`).toEqual(ranked(expectedKeys(rows, view)));
  expect(client.keys().length).toBeLessThanOrEqual(view.limits?.maxDecisions ?? Infinity);
}

/** Durations are rounded, and the last second of a ban is nobody's: no row may be within it at the end. */
export function letEndWhatIsEnding(engines: readonly ModelEngine[]): void {
  for (;;) {
    const rows = engines.flatMap((engine) => engine.active());
    const ending = rows.find((row) => row.untilMs - Date.now() < 3000);
    if (!ending) return;
    vi.setSystemTime(ending.untilMs + 1000);
  }
}

/** What LAPI's own pull does to older rows of the same origin and value (apic.go). */
export function replaceLikeAPull(engine: ModelEngine, row: { origin: string; value: string }): void {
  if (row.origin !== 'CAPI' && row.origin !== 'lists') return;
  for (const old of engine.active()) {
    if (old.origin === row.origin && old.value === row.value) engine.drop(old.id);
  }
}
