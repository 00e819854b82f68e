// Tables that came with a release whose first start may find a full disk. The object starts without them, and they are made when
// there is room.

import { causeOf } from '../http/failure.ts';
import { createMissing } from '../mirror/decisions.sql.ts';

/** `statement`: a `CREATE TABLE`. */
export function openTable(sql: SqlStorage, statement: string) {
  let exists = false;
  /** Throws if it can't be made. */
  const make = (): void => {
    if (!exists) createMissing(sql, [statement]);
    exists = true;
  };
  try {
    make();
  } catch (error) {
    console.error(`a table can not be made, and waits: ${causeOf(error).message}`);
  }
  const isThere = (): boolean => {
    try {
      make();
    } catch {
      // As was logged at the start.
    }
    return exists;
  };
  return { make, isThere };
}
