// What a restored backup of D1 must not undo. The feed's object remembers beside D1 which digests were taken away and
// the newest audit row (the anchor). A mistake here lets a revoked key open again, or locks good ones out.
//
// An end is written to D1 first, in the batch that makes it, with a row in an outbox; then the object is told; then
// it is acknowledged. A crash between the two leaves the row in the outbox, and whoever next sees that the audit log
// has moved (every isolate, within 5 s) tells it. The other order would leave an end in the object that D1
// never made, and the next restore would lock a good key out for ever.
//
// Every mutation writes an audit row, and each row hashes the one before: D1 that does not have the anchor's row is
// not what it was, whatever its numbers say. So an isolate asks the object only when the newest row is not the one
// that it last found right.

import { askFeed } from '../context.ts';
import { commitAudited } from '../db/audited.ts';
import { readMark, type StoreMark } from '../db/keys.ts';
import * as db from '../db/restore.ts';
import type { AuditAnchor, End } from '../feed/ends.ts';

/** The newest state of D1 that this isolate found right. */
let confirmed: StoreMark | null = null;

/** Each try follows a change of D1 meanwhile, or tells a page of ends. */
const mostTries = 1000;
const endsPage = 2000;

/**
 * Whether what was read together with `mark` may be trusted. If not, D1 had been restored and is put right now: read
 * it again. Throws when D1 or the object are out of reach.
 */
export async function confirmStore(env: Env, mark: StoreMark, nowMs: number): Promise<boolean> {
  if (isConfirmed(mark)) return true;
  const settled = await settle(env, nowMs);
  return settled.reconciledMs === mark.reconciledMs && settled.seq >= mark.seq;
}

/**
 * Reads where D1 is, and sees to it that the object knows of every end so far. Before a mutation: it is decided on
 * what is true. After it: it may be acknowledged.
 */
export async function settleStore(env: Env, nowMs: number): Promise<'same' | 'restored'> {
  for (let attempt = 0; attempt < mostTries; attempt++) {
    if (await confirmStore(env, await readMark(env.DB), nowMs)) return attempt === 0 ? 'same' : 'restored';
  }
  throw new Error(`the key store was restored ${mostTries} times under one request`);
}

function isConfirmed(mark: StoreMark): boolean {
  return confirmed?.hash === mark.hash && confirmed.seq === mark.seq;
}

/** Answers a state of D1 that was found right, with all its ends told, after this was called. */
async function settle(env: Env, nowMs: number): Promise<StoreMark> {
  let anchor = await askFeed(env, async (feed) => feed.auditAnchor());
  let told: StoreMark | null = null;
  let toldAgain = false;
  for (let attempt = 0; attempt < mostTries; attempt++) {
    const { mark, hasAnchor, untold, highestBouncerId } = await db.readStore(env.DB, anchor);
    if (hasAnchor && (told || (untold.length === 0 && mark.seq === anchor.seq))) {
      confirmed = told ?? mark;
      return confirmed;
    }
    if (!hasAnchor && !(await db.isReconciled(env.DB, anchor))) {
      await reconcile(env, mark, anchor, nowMs);
      continue;
    }
    if (anchor.seq === 0 && mark.seq > 0 && !toldAgain) {
      // The object is new, or a new one: what ended before it is told to it as well.
      toldAgain = true;
      await db.tellAllAgain(env.DB);
      continue;
    }
    const report = {
      ends: untold.map(({ digest, endsMs }) => ({ digest, endsMs })),
      head: { seq: mark.seq, hash: mark.hash },
      lost: hasAnchor ? null : anchor,
      highestBouncerId,
    };
    anchor = await askFeed(env, async (feed) => feed.keepEnds(report));
    if (untold.length > 0) await db.forgetTold(env.DB, untold);
    // Read once more: what was told may have been the end of a log that is lost by now.
    told = hasAnchor && untold.length < db.outboxPage ? mark : null;
  }
  throw new Error(`the key store did not come to rest in ${mostTries} tries`);
}

/** Does to a restored D1 what the object remembers. Done again after a crash, and by many at once, it does no more. */
async function reconcile(env: Env, mark: StoreMark, lost: AuditAnchor, nowMs: number): Promise<void> {
  const ending: End[] = [];
  for (let after = 0; ;) {
    const page = await askFeed(env, async (feed) => feed.endsAfter(after, endsPage));
    await db.noteRevoked(
      env.DB,
      page.filter(({ endsMs }) => endsMs <= nowMs),
    );
    ending.push(...page.filter(({ endsMs }) => endsMs > nowMs));
    const last = page.at(-1);
    if (!last || page.length < endsPage) break;
    after = last.rowId;
  }
  const revived = await db.countRevived(env.DB);
  console.warn(`D1 was restored: its audit log ends at row ${mark.seq}, and had come to row ${lost.seq}`);
  const entry = {
    actor: 'lapidary',
    action: db.reconcileAction,
    target: db.lostTarget(lost),
    detail: { log_ended_at: mark.seq, keys_revoked: revived.keys, tokens_revoked: revived.tokens },
  };
  await commitAudited(
    env.DB,
    entry,
    db.notReconciled(lost),
    (d) => db.reconcileStatements(d, ending, nowMs),
    nowMs,
  );
}
