// Whether D1 is what it was. The feed's object knows how far its audit log had come (writer/writer.ts), and an isolate
// asks it only when the newest row is not the one that it last found right.

import { askFeed } from '../feed/client.ts';
import type { AuditHead } from '../store/audit.sql.ts';
import { isAt, readMark, type StoreMark } from '../store/epoch.sql.ts';

/** The newest state of D1 that this isolate found right. */
let confirmed: StoreMark | null = null;

/** Each follows a restore. */
const mostTries = 100;

/** Whether this isolate has found no state of D1 right yet: it will have to ask the object. */
export function isUnconfirmed(): boolean {
  return confirmed === null;
}

/** How far the object has seen the audit log come; null: it can't say now. Does not ask D1. */
export async function askHead(env: Env): Promise<AuditHead | null> {
  try {
    return await askFeed(env, async (feed) => feed.storeHead());
  } catch {
    // An object that is out of reach, or still of the release before this one, says so when it is to settle the store.
    return null;
  }
}

/**
 * Whether what was read together with `mark` may be trusted. If not, D1 had been restored and is put right now: read
 * it again. Throws when D1 or the object are out of reach. `asked`: what the object was asked beside D1.
 */
export async function confirmStore(
  env: Env,
  mark: StoreMark,
  asked?: Promise<AuditHead | null>,
): Promise<boolean> {
  if (confirmed?.hash === mark.hash && confirmed.seq === mark.seq) return true;
  const head = await (asked ?? askHead(env));
  if (head && isAt(mark, head)) {
    confirmed = mark;
    return true;
  }
  const settled = await askFeed(env, async (feed) => feed.settleStore());
  if (!settled) throw new Error('the feed’s object can not reach D1');
  confirmed = settled;
  return settled.reconciledMs === mark.reconciledMs && settled.seq >= mark.seq;
}

/** What this isolate wrote itself is right. */
export function foundRight(mark: StoreMark): void {
  confirmed = mark;
}

/** When the restored backup was put right that D1 goes on from, as far as this isolate knows; 0: never. */
export function lastReconciledMs(): number {
  return confirmed?.reconciledMs ?? 0;
}

/** Reads where D1 is, and sees to it that what is read from now on is true. */
export async function settleStore(env: Env): Promise<'same' | 'restored'> {
  for (let attempt = 0; attempt < mostTries; attempt++) {
    if (await confirmStore(env, await readMark(env.DB))) return attempt === 0 ? 'same' : 'restored';
  }
  throw new Error(`the key store was restored ${mostTries} times under one request`);
}
