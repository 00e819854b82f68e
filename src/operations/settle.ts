// Whether D1 is what it was, or was restored from a backup. The feed's object knows how far D1's audit log had come
// (writer/writer.ts). An isolate asks it only when the newest row is not the one that this isolate last confirmed.

import { askFeed } from '../feed/client.ts';
import type { AuditHead } from '../store/audit.sql.ts';
import { isAt, readMark, type StoreMark } from '../store/epoch.sql.ts';

/** The newest state of D1 that this isolate has confirmed. */
let confirmed: StoreMark | null = null;

/** Each try follows a restore. */
const mostTries = 100;

/** Whether this isolate has confirmed no state of D1 yet: it will have to ask the object. */
export function isUnconfirmed(): boolean {
  return confirmed === null;
}

/** How far the object has seen the audit log come; null: it can not be asked now. Does not ask D1. */
export async function askHead(env: Env): Promise<AuditHead | null> {
  try {
    return await askFeed(env, async (feed) => feed.storeHead());
  } catch {
    // Whoever needs the object asks it to settle the store next, and hears of the error then.
    return null;
  }
}

/**
 * Whether what was read together with `mark` may be trusted. If not, D1 had been restored and has been put right: read
 * it again. Throws when D1 or the object is out of reach. `asked`: the object's head, where it was asked for already.
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

/** Notes the state of D1 that this isolate wrote itself. */
export function noteConfirmed(mark: StoreMark): void {
  confirmed = mark;
}

/** When D1 was last put right after a restore, as far as this isolate knows; 0: never. */
export function lastReconciledMs(): number {
  return confirmed?.reconciledMs ?? 0;
}

/** For what reads and does not write: confirms D1, and has it put right first where it was restored. */
export async function settleStore(env: Env): Promise<'same' | 'restored'> {
  for (let attempt = 0; attempt < mostTries; attempt++) {
    if (await confirmStore(env, await readMark(env.DB))) return attempt === 0 ? 'same' : 'restored';
  }
  throw new Error(`the key store was restored ${mostTries} times under one request`);
}
