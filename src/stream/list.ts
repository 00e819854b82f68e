// The answer to `GET /v1/decisions`: a live look-up, or the whole list.

import { decisionOf, type Decision, type Row } from '../formats/decision.ts';
import { endOf, type Mirror } from '../mirror/memory.ts';
import type { ListQuery } from './query.ts';
import { renderList, smallAnswerRows, streamOf } from './render.ts';
import { activeRows, byStrictness } from './selection.ts';

/** Few decisions, for the isolate to keep and to render. */
export interface ShortList {
  readonly kind: 'short';
  readonly sequence: number;
  readonly decisions: readonly Decision[];
  /** What is allowed depends on the bouncer: another one may be answered otherwise. */
  readonly ofBouncer?: true;
}

/** Many decisions, rendered. */
export interface LongList {
  readonly kind: 'long';
  readonly body: ReadableStream<Uint8Array>;
}

/** The active decisions of a view, or a page of them. Its engines are named by their handles. */
export function answerList(
  mirror: Mirror,
  { view, limit, offset, idGreaterThan }: ListQuery,
  nowMs: number,
): ShortList | LongList {
  const rows = activeRows(mirror, view)
    .filter((row) => row.id > idGreaterThan)
    .slice(offset, limit === null ? undefined : offset + limit);
  if (view.within?.covering) rows.sort(byStrictness);
  const ends = (row: Row): number => endOf(mirror, row);
  if (rows.length > smallAnswerRows) return { kind: 'long', body: streamOf(renderList(rows, nowMs, ends)) };
  const decisions = rows.map((row) => ({ ...decisionOf(row), untilMs: ends(row) }));
  const ofBouncer = mirror.patterns.length > 0 ? ({ ofBouncer: true } as const) : {};
  return { kind: 'short', sequence: mirror.sequence, decisions, ...ofBouncer };
}
