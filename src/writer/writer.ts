// The one writer of D1: every mutation of the key store is written from here. What a restored backup of D1 must not undo
// is recorded in the object's storage before the mutation is acknowledged: which keys and tokens are revoked, and the
// newest row of the audit log (the head). A mistake here makes a revoked key valid again, or locks good ones out.
//
// D1 is written first. A batch that revokes a key adds that to an outbox in D1, and reads the outbox. The object records
// what it read; the next batch deletes it from the outbox. After a crash in between the revocation is still in the outbox,
// and is recorded with the next batch or comparison. The other order could record a revocation that D1 never made, and the
// next restore would lock a good key out for ever.
//
// Each batch begins with a check that D1 has the head's row. Where it has not, D1 was restored: the batch writes nothing,
// and D1 is put right first.

import { askD1, statementBuilder, workMs } from '../store/ask.ts';
import {
  hasRowStatement,
  newestSeq,
  notWrittenStatement,
  refusalOf,
  seqOf,
  statementOf,
  type AuditHead,
} from '../store/audit.sql.ts';
import { selectChanges, selectEpoch, selectMark, type StoreMark } from '../store/epoch.sql.ts';
import * as restore from './restore.ts';
import { causeOf } from '../http/failure.ts';
import { isFull, isUnwritable, unwritable } from '../store/unwritable.ts';
import { answerWithin } from '../runtime/wait.ts';
import type { SeenClient, Sighting } from '../stream/clients.ts';
import {
  byName,
  changedOf,
  selectDone,
  type Commit,
  type CommitAsk,
  type Done,
  type News,
  type RowsDone,
} from './commit.ts';
import * as recorded from './revocations.sql.ts';
import type { NewKey } from '../stream/new-keys.sql.ts';
import type { AllowListCopy } from './allow-list.ts';
import type { RememberedKeys } from './remembered-keys.ts';
import { createSealing } from './sealing.ts';
import { shared } from '../runtime/shared.ts';

/** Each try follows a restore meanwhile, or records a page of revocations. */
const mostTries = 1000;

/** What the feed remembers of bouncers and hosts, and has to learn of their changes. */
export interface FeedMemory {
  /** A restored D1 gives the ids above this one again, to other bouncers. */
  readonly forgetBouncersAfter: (bouncerId: number) => void;
  readonly forgetBouncer: (bouncerId: number) => void;
  readonly noteNewKey: (key: NewKey) => void;
  readonly forgetEngineKey: (host: string) => void;
  /** The SHA-512 of each key that the feed pulls with. */
  readonly keyDigests: () => Promise<readonly string[]>;
  readonly note: (sightings: readonly Sighting[]) => void;
  readonly clientsOf: (bouncerIds: readonly number[]) => readonly (readonly SeenClient[])[];
  readonly keys: RememberedKeys;
  readonly allowList: AllowListCopy;
}

export type KeyStore = ReturnType<typeof createKeyStore>;

export function createKeyStore(sql: SqlStorage, d1: D1Database, feed: FeedMemory) {
  let head = recorded.readHead(sql);
  /** Rows of the outbox up to this one are recorded here. */
  let recordedUpTo = 0;

  const record = (pending: readonly restore.PendingRevocation[], seen: AuditHead): void => {
    for (const revocation of pending) recorded.writeRevocation(sql, revocation);
    recordedUpTo = Math.max(recordedUpTo, pending.at(-1)?.id ?? 0);
    if (seen.seq === 0) return;
    recorded.writeUnsealed(sql, seen);
    if (seen.seq > head.seq) head = seen;
  };

  const settling = shared(() => answerWithin(compare(), workMs));

  /** Compares D1 with what is recorded here, until they agree. `isRecorded`: all revocations are recorded here, too. */
  const compare = async (): Promise<{ mark: StoreMark; isRecorded: boolean }> => {
    let isRepublished = false;
    for (let attempt = 0; attempt < mostTries; attempt++) {
      const before = head;
      const since = feed.keys.since();
      const askedMs = Date.now();
      const { mark, hasHead, ...read } = await restore.readStore(d1, before, since);
      const { changes, pending, highestBouncerId } = read;
      if (!hasHead) {
        feed.keys.forgetAll();
        if (await restore.isReconciled(d1, before)) await adopt(before, mark, highestBouncerId);
        else await restore.reconcile(sql, d1, mark, before);
        continue;
      }
      try {
        if (before.seq === 0 && mark.seq > 0 && !isRepublished) {
          recorded.requireWritable(sql);
          // This object has lost its storage: it takes all revocations and the extent of the log from D1.
          isRepublished = true;
          await restore.republish(d1);
          recorded.replaceLog(sql, await restore.readExtent(d1), before);
          feed.allowList.lose();
          continue;
        }
        recorded.requireWritten(() => {
          feed.keys.follow({ since, epoch: mark.epoch, changes }, askedMs);
          record(pending, mark);
        });
      } catch (error) {
        if (!isUnwritable(error)) throw error;
        // Readers need no more than that D1 is right. The revocations wait in its outbox.
        console.error(`revocations wait to be recorded: ${causeOf(error).message}`);
        return { mark, isRecorded: false };
      }
      if (pending.length > 0) await restore.deleteReported(d1, pending);
      if (pending.length < restore.pageRows) return { mark, isRecorded: true };
    }
    throw new Error(`D1 and the feed's object still differ after ${mostTries} comparisons`);
  };

  /** Goes on with a restored D1 that was put right. */
  const adopt = async (lost: AuditHead, mark: StoreMark, highestBouncerId: number): Promise<void> => {
    const extent = await restore.readExtent(d1);
    // A comparison that was given up may still be under way.
    if (head !== lost) return;
    recorded.replaceLog(sql, extent, mark);
    recorded.writeLostTail(sql, { ...lost, goesOnAt: mark.seq, foundMs: Date.now() });
    head = { seq: mark.seq, hash: mark.hash };
    recordedUpTo = 0;
    feed.forgetBouncersAfter(highestBouncerId);
    feed.allowList.lose();
  };

  const settleAndRecord = async (): Promise<StoreMark> => {
    const { mark, isRecorded } = await settling.next();
    if (!isRecorded) throw new Error('revocations can not be recorded now');
    return mark;
  };

  const seal = createSealing(sql, d1, async () => {
    if (head.seq === 0) await settling.next();
  });

  /** Throws what `isUnwritable` knows as long as nothing was written, and no more from then on. */
  const write = async ({ digest, statements, news, again }: CommitAsk): Promise<Commit> => {
    recorded.requireWritable(sql);
    const ownDigests = news.imported?.length ? await feed.keyDigests() : [];
    if (news.imported?.some((each) => ownDigests.includes(each.digest))) {
      return { kind: 'clash', column: 'feed.key' };
    }
    // A new object may not know yet what was revoked before it.
    if (head.seq === 0) await settleAndRecord();
    const d = statementBuilder(d1);
    const since = feed.keys.since();
    const askedMs = Date.now();
    const before = [
      ...(head.seq === 0 ? [] : [hasRowStatement(d, head)]),
      ...(again ? [notWrittenStatement(d, digest)] : []),
      restore.deleteReportedStatement(d, recordedUpTo),
      selectEpoch(d),
    ].map(statementOf);
    const isKnown = news.changed !== undefined;
    const queries = {
      mark: selectMark(d),
      pending: restore.selectPending(d),
      changes: selectChanges(d, since, isKnown),
      ...selectDone(d, newestSeq, news, isKnown),
    };
    const after = Object.values(queries).map(statementOf);
    const prepared = [...before, ...statements, ...after].map(({ sql: text, params }) =>
      d1.prepare(text).bind(...params),
    );
    const results = await d1.batch(prepared).catch((error: unknown) => {
      throw isFull(error) ? unwritable('the key store', error) : error;
    });
    const rows = results.map((result) => result.results);
    const [epochBefore] = rows[before.length - 1] as [{ epoch: number }];
    const [row] = rows[before.length] as { seq: number }[];
    const [answer] = (rows.at(-after.length - 1) ?? []) as { body_json?: string }[];
    const { mark: marks, pending, changes, ...done } = byName(queries, rows.slice(-after.length));
    const [mark] = marks as [StoreMark];
    if (!row) throw new Error('a mutation without its audit row');
    const own = (news.changed ?? []).map((bouncerId) => ({ epoch: mark.epoch, bouncerId }));
    feed.keys.follow({ since, epoch: mark.epoch, changes: [...changes, ...own] }, askedMs);
    record(pending, { seq: row.seq, hash: digest });
    if (pending.length === restore.pageRows) await settleAndRecord();
    void seal();
    await inform(news, done, row.seq);
    const { bouncerIds, blockedMachines } = changedOf(done, news.changed);
    return {
      kind: 'done',
      mark,
      changed: { bouncerIds: mark.epoch === epochBefore.epoch ? [] : bouncerIds, blockedMachines },
      bodyJson: answer?.body_json ?? null,
      clients: clientsOf(news),
    };
  };

  const inform = async (
    { gone, noEngineOn, imported }: News,
    { newKeys = [], ids = [], allowed }: Pick<RowsDone, 'newKeys' | 'ids' | 'allowed'>,
    seq: number,
  ): Promise<void> => {
    for (const key of newKeys) feed.noteNewKey(key);
    if (gone !== undefined) feed.forgetBouncer(gone);
    if (noEngineOn !== undefined) feed.forgetEngineKey(noEngineOn);
    const idsOf = new Map(ids.map(({ name, ...own }) => [name, own]));
    for (const { name, uses } of imported ?? []) {
      const own = idsOf.get(name);
      if (own) feed.note(uses.map((use) => ({ ...own, ...use })));
    }
    if (allowed) await feed.allowList.learn(allowed, seq);
  };

  const clientsOf = ({ clientsOf: ids }: News): Done['clients'] => (ids?.length ? feed.clientsOf(ids) : []);

  /** Does the rest of a mutation that an earlier try wrote to D1. */
  const finish = async ({ digest, news }: CommitAsk): Promise<Commit> => {
    try {
      const mark = await settleAndRecord();
      const done = await askD1(d1, async (d) => {
        const { blocked, ...rest } = selectDone(d, seqOf(digest), news);
        return byName({ blocked, ...rest }, await d.batch([blocked, ...Object.values(rest)]));
      });
      await inform(news, done, mark.seq);
      return { kind: 'done', mark, changed: changedOf(done), bodyJson: null, clients: clientsOf(news) };
    } catch (error) {
      return unreachable(error);
    }
  };

  const unreachable = (error: unknown): { kind: 'unreachable' } => {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return { kind: 'unreachable' };
  };

  const writeOrFinish = async (ask: CommitAsk): Promise<Commit> => {
    try {
      return await write(ask);
    } catch (error) {
      // Of a mutation that is sent again the first try may have been written.
      if (isUnwritable(error) && !ask.again) return { kind: 'unwritable', problem: (error as Error).message };
      const refusal = refusalOf(error);
      if (refusal?.kind === 'restored') await settling.next().catch(() => null);
      if (refusal?.kind === 'written') return finish(ask);
      return refusal ?? unreachable(error);
    }
  };

  return {
    /** Writes a mutation; once this answers, no restore undoes its revocations. */
    async commit(ask: CommitAsk): Promise<Commit> {
      const written = await writeOrFinish(ask);
      if (written.kind === 'unreachable' && ask.news.allowList) feed.allowList.lose();
      return written;
    },
    /** The newest row of the audit log that was seen. D1 with the same newest row was not restored. Asks nobody. */
    head: (): AuditHead => head,
    /** Where D1 is, compared after this was called; null: it is out of reach. */
    async settle(): Promise<StoreMark | null> {
      try {
        return (await settling.next()).mark;
      } catch (error) {
        unreachable(error);
        return null;
      }
    },
    /** Gives every row its place in the chain, if it can; answers the last that has one. */
    seal,
  };
}
