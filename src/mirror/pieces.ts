// Many rows, a piece after the other, so that they can be looked at in slices. Pure.

import type { Row } from '../formats/decision.ts';
import type { Mirror } from './memory.ts';

/** Some rows after others. `cost`: that of reading one network is 1. */
export type Pieces = Generator<{ readonly rows: readonly Row[]; readonly cost: number }>;

/** Rows that may be served though they are to be withheld by the allow-list, or the other way round (allow-list.ts). */
export interface Unjudged {
  readonly pieces: Pieces[];
  /** Settles when all are judged. Null: nobody judges them. */
  judging: Promise<void> | null;
}

const pieceRows = 50;
/** To see that a row is not likely costs so much of what it costs to read its network. */
const unlikelyCost = 0.05;

/** Active rows in pieces, also those that are added meanwhile. */
export function* allPieces({ byId }: Mirror, isLikely: (row: Row) => boolean = () => true): Pieces {
  let piece: Row[] = [];
  let cost = 0;
  for (const row of byId.values()) {
    const likely = isLikely(row);
    if (likely) piece.push(row);
    cost += likely ? 1 : unlikelyCost;
    if (cost < pieceRows) continue;
    yield { rows: piece, cost };
    piece = [];
    cost = 0;
  }
  yield { rows: piece, cost };
}
