// Storage that takes no write: a full disk, or a limit of the account that is used up. Such an error is known by its
// text, which is all of it that crosses the object's RPC.

import { causeOf } from '../http/failure.ts';

const mark = 'can not be written now';

/** The error of a write that failed, in words for an operator. Nothing was written. */
export function unwritable(what: 'the feed’s storage' | 'the key store', error: unknown): Error {
  return isUnwritable(error)
    ? (error as Error)
    : new Error(`${what} ${mark}: ${causeOf(error).message.replace(/\.$/, '')}`);
}

export function isUnwritable(error: unknown): boolean {
  return error instanceof Error && error.message.includes(mark);
}

/** D1's words for a limit of the account or of its storage. It says `exceeded` also of a batch that it broke off. */
const fullWords =
  /maximum (?:DB size|account storage)|allowed rows written|daily row (?:read|write) limit|SQLITE_(?:FULL|READONLY)/i;

/** Whether D1 says of a batch that it has no room for it. Of any other error it may have been written. */
export function isFull(error: unknown): boolean {
  return fullWords.test(causeOf(error).message);
}
