// Storage that takes no write: a full disk, or an account's limit that is used up. Such an error is recognised by its text,
// since nothing else of it crosses the object's RPC.

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

/** How D1 reports a limit of the account or of its storage. `exceeded` alone may also be a batch that was broken off. */
const fullWords =
  /maximum (?:DB size|account storage)|allowed rows written|daily row (?:read|write) limit|SQLITE_(?:FULL|READONLY)/i;

/** Whether D1 refused a batch because it is full. After any other error the batch may have been written. */
export function isFull(error: unknown): boolean {
  return fullWords.test(causeOf(error).message);
}
