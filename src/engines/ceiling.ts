// The most decisions that the feed holds: an object that outgrows its memory dies, and dies again at each wake. What of
// community lists ends soonest stays out, since it is worth least; what an engine or an operator decided on what happened
// to it never does. Pure.

import type { Decision, Row } from '../formats/decision.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Plan } from '../mirror/plan.ts';
import { isOwn } from '../stream/target.ts';

/** The plan without what there is no room for, and how many that are. */
export function withinCeiling(plan: Plan, mirror: Mirror, most: number): { plan: Plan; leftOut: number } {
  if (mirror.byId.size - plan.remove.length + plan.add.length <= most) return { plan, leftOut: plan.leftOut };
  const leaving = new Set<Row>(plan.remove);
  for (const { row } of plan.renew) leaving.add(row);
  const staying = [...mirror.byId.values()].filter((row) => !leaving.has(row));
  const coming = [...plan.renew.map(({ decision }) => decision), ...plan.add];
  const listed: readonly Decision[] = [...staying.filter(isListed), ...coming.filter(isListed)];
  const room = Math.max(0, most - (staying.length + coming.length - listed.length));
  const out = new Set(soonest(listed, listed.length - room));
  return {
    plan: {
      ...plan,
      add: plan.add.filter((decision) => !out.has(decision)),
      renew: plan.renew.filter(({ decision }) => !out.has(decision)),
      remove: [
        ...plan.remove,
        ...staying.filter((row) => out.has(row)),
        ...plan.renew.filter(({ decision }) => out.has(decision)).map(({ row }) => row),
      ],
    },
    leftOut: plan.leftOut + out.size,
  };
}

/** Whether it is of a list, and no engine's or operator's own. */
export function isListed(decision: Decision): boolean {
  return !isOwn(decision);
}

/** The `count` decisions that end first. */
export function soonest(decisions: readonly Decision[], count: number): Decision[] {
  if (count <= 0) return [];
  return decisions.toSorted((a, b) => a.untilMs - b.untilMs || b.id - a.id).slice(0, count);
}
