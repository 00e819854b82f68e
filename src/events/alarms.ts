// When something that is wrong is said, and when it is said to be over. Pure. What comes and goes is said once: it is over
// only when it was well for a while. What many have at once, or one after the other, is said together: of each type there
// is one message in five minutes at most. A mistake here floods operators, or leaves them in the dark.

import { sinceMs } from '../runtime/clock.ts';
import type { EventType } from './kinds.ts';

/** What may be wrong with something. */
export type AlarmType =
  | 'bouncer.silent'
  | 'engine.stale'
  | 'engine.refused'
  | 'host.clone-suspected'
  | 'host.refused'
  | 'audit.broken';

interface Rule {
  /** How long it must be wrong without a pause. */
  readonly afterMs: number;
  /** How long all must be well. */
  readonly wellMs: number;
  /** What is said then; null: nothing. */
  readonly over: EventType | null;
}

/** An engine that is asked anew after our own outage needs a round to be fresh again. */
const engineRule: Rule = { afterMs: 30_000, wellMs: 300_000, over: 'engine.recovered' };

/** It is over when an operator says so, or after a day (facts.sql.ts); that is not said. */
const hostRule: Rule = { afterMs: 0, wellMs: 0, over: null };

const rules: Readonly<Record<AlarmType, Rule>> = {
  'bouncer.silent': { afterMs: 0, wellMs: 300_000, over: 'bouncer.recovered' },
  'engine.stale': engineRule,
  'engine.refused': engineRule,
  'host.clone-suspected': hostRule,
  'host.refused': hostRule,
  // It is read every minute: a row that was under way may look like a fault once.
  'audit.broken': { afterMs: 90_000, wellMs: 0, over: null },
};

const gatherMs = 300_000;

/** With what something is wrong now. `subject`: `engine main`. */
export interface Wrong {
  readonly type: AlarmType;
  readonly subject: string;
}

/** What was said of a subject and is not over. */
export interface Raised {
  /** Each is said once. */
  readonly types: readonly AlarmType[];
  /** Since when it is well; null: it is not. */
  readonly wellMs: number | null;
}

export interface Alarms {
  readonly raised: ReadonlyMap<string, Raised>;
  /** What was not wrong for long enough yet, or waits for the next message of its type, by type and subject: since when. */
  readonly pending: ReadonlyMap<string, number>;
  /** When something of a type was last said. */
  readonly saidMs: ReadonlyMap<EventType, number>;
}

export const noAlarms: Alarms = { raised: new Map(), pending: new Map(), saidMs: new Map() };

export interface Judged {
  readonly next: Alarms;
  /** What is to be said. */
  readonly begun: readonly Wrong[];
  readonly over: readonly { readonly type: EventType; readonly subject: string }[];
  /** The subjects of which nothing is wrong any more. */
  readonly ended: readonly string[];
}

/** What is to be said of what is `wrong` now. */
export function judge(before: Alarms, wrong: readonly Wrong[], nowMs: number): Judged {
  const raised = new Map(before.raised);
  const pending = new Map<string, number>();
  const begun: Wrong[] = [];
  const over: { type: EventType; subject: string }[] = [];
  const ended: string[] = [];
  const mayBeSaid = (type: EventType): boolean =>
    sinceMs(before.saidMs.get(type) ?? -Infinity, nowMs) >= gatherMs;
  for (const { type, subject } of wrong) {
    const known = raised.get(subject);
    if (known?.wellMs != null) raised.set(subject, { ...known, wellMs: null });
    if (known?.types.includes(type)) continue;
    const key = `${type} ${subject}`;
    const sinceWrongMs = before.pending.get(key) ?? nowMs;
    if (nowMs - sinceWrongMs >= rules[type].afterMs && mayBeSaid(type)) {
      begun.push({ type, subject });
      raised.set(subject, { types: [...(raised.get(subject)?.types ?? []), type], wellMs: null });
    } else {
      pending.set(key, sinceWrongMs);
    }
  }
  const areWrong = new Set(wrong.map(({ subject }) => subject));
  for (const [subject, known] of before.raised) {
    if (areWrong.has(subject)) continue;
    const wellMs = known.wellMs ?? nowMs;
    const rule = rules[known.types[0] as AlarmType];
    if (nowMs - wellMs < rule.wellMs || (rule.over !== null && !mayBeSaid(rule.over))) {
      if (known.wellMs === null) raised.set(subject, { ...known, wellMs });
      continue;
    }
    raised.delete(subject);
    ended.push(subject);
    if (rule.over !== null) over.push({ type: rule.over, subject });
  }
  const saidMs = new Map(before.saidMs);
  for (const { type } of [...begun, ...over]) saidMs.set(type, nowMs);
  return { next: { raised, pending, saidMs }, begun, over, ended };
}

/** After a time in which nobody looked, or with another clock: what is raised stays so, and all waits begin anew. */
export function forgetTimes({ raised }: Alarms): Alarms {
  const anew = [...raised].map(([subject, each]) => [subject, { ...each, wellMs: null }] as const);
  return { ...noAlarms, raised: new Map(anew) };
}
