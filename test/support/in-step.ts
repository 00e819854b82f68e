// What a bouncer should hold, by a model that is as simple as it can be: the longest decision of each value under a view.
import { expect, vi } from 'vitest';
import { matcher, type Limits, type View } from '../../src/mirror/view.ts';
import { keyOf, type WireDecision } from './bouncer.ts';
import type { ModelDecision, ModelEngine } from './model-engine.ts';
import { elementOf } from './spellings.ts';

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

/** The decisions that a bouncer is to have. */
function due(rows: readonly Ranked[], view: View): Ranked[] {
  const best = [...winners(rows, view).values()];
  return best
    .sort((a, b) => isListed(a) - isListed(b) || b.untilMs - a.untilMs)
    .slice(0, view.limits?.maxDecisions ?? Infinity);
}

export function expectedKeys(rows: readonly Ranked[], view: View): string[] {
  return due(rows, view).map(keyOf).sort();
}

/** Which of two that end together a cap leaves is the feed's choice: under a cap a decision is told by how good it is. */
function rankOf(rows: readonly Ranked[], view: View): (decision: WireDecision | Ranked) => string {
  const longest = winners(rows, view);
  return (decision) => {
    const row = longest.get(keyOf(decision));
    return row ? `${isListed(row)} ${row.untilMs}` : `not there: ${keyOf(decision)}`;
  };
}

interface Client {
  readonly view: View;
  decisions(): WireDecision[];
  elements(): string[];
  limits(): Limits | null;
}

/** A bouncer of a long history. */
interface Fickle {
  started: boolean;
  /** Its last answer was lost. */
  lost: boolean;
  pull(startup: boolean): Promise<unknown>;
  pullAndLose(): Promise<void>;
}

/**
 * A poll; the first one is a start-up. One answer may be lost; two in a row are more than anybody promises. `before`: runs
 * before a poll whose answer arrives. Returns whether it did.
 */
export async function pullOrLose(
  client: Fickle,
  { lose, startup = false }: { lose: boolean; startup?: boolean },
  before: () => void,
): Promise<boolean> {
  if (lose && client.started && !client.lost) {
    await client.pullAndLose();
    client.lost = true;
    return false;
  }
  before();
  await client.pull(!client.started || startup);
  client.started = true;
  client.lost = false;
  return true;
}

/**
 * Whatever went before, an answer that arrived leaves a bouncer with what the feed has for it, and no more: at once in a
 * kernel's set. By text it may have more: ends that are kept back while the network is banned, or that wait for the next
 * answers since one names each network once.
 */
export async function expectInStep(client: Client, rows: readonly Ranked[]): Promise<void> {
  const view = { ...client.view, limits: client.limits() };
  const what = `view ${JSON.stringify(view)}`;
  const ending = endingAmong(rows);
  const kernel = client.elements().filter((element) => !ending.has(element));
  const held = client.decisions().filter((decision) => kernel.includes(elementOf(decision)));
  const expected = due(rows, view).filter((row) => !ending.has(elementOf(row)));
  expect(elementsOf(held), `in the kernel and by text, ${what}`).toEqual(kernel);
  expect(kernel.length).toBeLessThanOrEqual(view.limits?.maxDecisions ?? Infinity);
  if (!capped(view)) {
    expect(kernel, what).toEqual(elementsOf(expected));
    expect(missing(expected.map(keyOf), held.map(keyOf)), what).toEqual([]);
    return;
  }
  const ranks = rankOf(rows, view);
  const alone = held.filter(
    (one) => held.filter((other) => elementOf(other) === elementOf(one)).length === 1,
  );
  expect(missing(expected.map(ranks), held.map(ranks)), what).toEqual([]);
  expect(missing(alone.map(ranks), expected.map(ranks)), what).toEqual([]);
}

/** When everything is told, a bouncer has no text of a network that is free. */
export async function expectAtRest(
  client: Client & { pullAll(): Promise<void> },
  rows: readonly Ranked[],
): Promise<void> {
  await client.pullAll();
  await expectInStep(client, rows);
  const ending = endingAmong(rows);
  const certain = (elements: readonly string[]) => elements.filter((element) => !ending.has(element));
  expect(certain(elementsOf(client.decisions()))).toEqual(certain(client.elements()));
}

/** In its last second a ban is not announced any more; who has it keeps it to its end. */
function endingAmong(rows: readonly Ranked[]): Set<string> {
  return new Set(rows.filter((row) => row.untilMs - Date.now() < 1000).map(elementOf));
}

function elementsOf(decisions: readonly (WireDecision | Ranked)[]): string[] {
  return [...new Set(decisions.map(elementOf))].sort();
}

/** What is in `part` and not, or not so often, in `whole`. */
function missing(part: readonly string[], whole: readonly string[]): string[] {
  const left = [...whole];
  return part.filter((each) => {
    const at = left.indexOf(each);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
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
