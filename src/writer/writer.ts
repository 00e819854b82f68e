// The one way into the key store (D1): every mutation is written from here, and what must outlive a restored backup of D1
// is remembered here before it is acknowledged: which keys and tokens ended, and how far the audit log had come (the
// head). A mistake here lets a revoked key open again, or locks good ones out.
//
// D1 comes first. An end stands in an outbox that its own batch writes and reads; then it is kept here. A crash between
// the two leaves it in the outbox, and the next batch, or whoever next sees that the log has moved, brings it. The other
// order would leave an end here that D1 never made, and the next restore would lock a good key out for ever.
//
// Each batch begins with the head's row: D1 that does not have it is not what it was, whatever its numbers say, and
// writes nothing. What it brought back is put right first.

import { askD1, statementBuilder, workMs } from '../store/ask.ts';
import {
  appendStatement,
  hasRowStatement,
  lastSealed,
  newestSeq,
  notWrittenStatement,
  readStart,
  refusalOf,
  seqOf,
  statementOf,
  textOf,
  type AuditHead,
} from '../store/audit.sql.ts';
import { endsKeptMs } from '../store/ages.sql.ts';
import { selectChanges, selectEpoch, selectMark, type StoreMark } from '../store/epoch.sql.ts';
import * as db from './restore.sql.ts';
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
import * as log from './revocations.sql.ts';
import type { NewKey } from '../stream/new-keys.sql.ts';
import type { RememberedKeys } from './remembered-keys.ts';
import { createSealing } from './sealing.ts';
import { shared } from '../runtime/shared.ts';

export interface KeyStore {
  /** Writes a mutation; once this answers, no restore undoes its ends. */
  commit(ask: CommitAsk): Promise<Commit>;
  /** The newest row of the audit log that was seen: D1 whose newest row it is has not been restored. Asks nobody. */
  head(): AuditHead;
  /** Where D1 is, found right and with all its ends kept here after this was called; null: it is out of reach. */
  settle(): Promise<StoreMark | null>;
  /** Gives every row its place in the chain, if it can; answers the last that has one. */
  seal(): Promise<AuditHead>;
}

/** Each try follows a restore meanwhile, or keeps a page of ends. */
const mostTries = 1000;
const endsPage = 2000;

interface Settled {
  readonly mark: StoreMark;
  /** Whether all ends are kept here, too. */
  readonly isKept: boolean;
}

/** What the feed remembers of bouncers and hosts. */
export interface Memory {
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
}

export function createKeyStore(sql: SqlStorage, d1: D1Database, memory: Memory): KeyStore {
  let head = log.readHead(sql);
  /** Rows of the outbox up to this one are kept here. */
  let keptUpTo = 0;

  const keep = (untold: readonly db.Untold[], seen: AuditHead): void => {
    for (const { digest, endsMs } of untold) log.writeEnd(sql, digest, endsMs);
    keptUpTo = Math.max(keptUpTo, untold.at(-1)?.id ?? 0);
    if (seen.seq === 0) return;
    log.writeUnsealed(sql, seen);
    if (seen.seq > head.seq) head = seen;
  };

  const settle = shared(() => answerWithin(comeToRest(), workMs));

  const comeToRest = async (): Promise<Settled> => {
    let toldAgain = false;
    for (let attempt = 0; attempt < mostTries; attempt++) {
      const before = head;
      const since = memory.keys.since();
      const askedMs = Date.now();
      const read = await db.readStore(d1, before, since);
      const { mark, hasHead, changes, untold, highestBouncerId } = read;
      if (!hasHead) {
        memory.keys.forgetAll();
        if (!(await db.isReconciled(d1, before))) await reconcile(mark, before);
        else await startAnew(before, mark, highestBouncerId);
        continue;
      }
      try {
        if (before.seq === 0 && mark.seq > 0 && !toldAgain) {
          log.demandWritable(sql);
          // This object remembers nothing: D1 tells it all ends again, and it takes over how far the log was sealed.
          toldAgain = true;
          await db.tellAllAgain(d1);
          log.startAnew(sql, await readExtent(), before);
          continue;
        }
        log.demandWritten(() => {
          memory.keys.follow({ since, epoch: mark.epoch, changes }, askedMs);
          keep(untold, mark);
        });
      } catch (error) {
        if (!isUnwritable(error)) throw error;
        // D1 is right, which is all that who reads it asks. Its outbox has what could not be kept until it can.
        console.error(`ends of keys wait to be kept: ${causeOf(error).message}`);
        return { mark, isKept: false };
      }
      if (untold.length > 0) await db.forgetTold(d1, untold);
      if (untold.length < db.outboxPage) return { mark, isKept: true };
    }
    throw new Error(`the key store did not come to rest in ${mostTries} tries`);
  };

  /** Does to a restored D1 what is remembered here. Done again after a crash it does no more. */
  const reconcile = async (mark: StoreMark, lost: AuditHead): Promise<void> => {
    const nowMs = Date.now();
    if (await db.isForgotten(d1, nowMs - endsKeptMs)) {
      throw new Error(
        `D1 was restored from a backup of more than ${endsKeptMs / 86_400_000} days ago: which of its keys ended since ` +
          `nobody remembers. Put back a newer one, or remove the keys from it (docs/backup.md)`,
      );
    }
    const ending: log.KeptEnd[] = [];
    for (let after = 0; ;) {
      const page = log.readEnds(sql, after, endsPage);
      await db.noteRevoked(
        d1,
        page.filter(({ endsMs }) => endsMs <= nowMs),
      );
      ending.push(...page.filter(({ endsMs }) => endsMs > nowMs));
      const last = page.at(-1);
      if (!last || page.length < endsPage) break;
      after = last.rowId;
    }
    const revived = await db.countRevived(d1);
    console.warn(`D1 was restored: its audit log ends at row ${mark.seq}, and had come to row ${lost.seq}`);
    const text = await textOf(
      {
        actor: 'lapidary',
        action: db.reconcileAction,
        target: db.lostTarget(lost),
        detail: { log_ended_at: mark.seq, keys_revoked: revived.keys, tokens_revoked: revived.tokens },
      },
      nowMs,
    );
    await askD1(
      d1,
      (d) =>
        d.batch([
          appendStatement(d, text, db.notReconciled(lost)),
          ...db.reconcileStatements(d, ending, nowMs),
        ]),
      workMs,
    );
  };

  /** Goes on with a restored D1 that was put right. */
  const startAnew = async (lost: AuditHead, mark: StoreMark, highestBouncerId: number): Promise<void> => {
    const extent = await readExtent();
    // An answer that was given up may come later.
    if (head !== lost) return;
    log.startAnew(sql, extent, mark);
    log.writeLostTail(sql, { ...lost, goesOnAt: mark.seq, foundMs: Date.now() });
    head = { seq: mark.seq, hash: mark.hash };
    keptUpTo = 0;
    memory.forgetBouncersAfter(highestBouncerId);
  };

  const readExtent = async (): Promise<log.Extent> => {
    const [start, sealed] = await Promise.all([readStart(d1), lastSealed(d1)]);
    return { start, sealed };
  };

  const seal = createSealing(sql, d1, async () => {
    if (head.seq === 0) await settle.next();
  });

  /** Throws what `isUnwritable` knows as long as nothing was written, and no more from then on. */
  const commit = async ({ digest, statements, news, again }: CommitAsk): Promise<Commit> => {
    log.demandWritable(sql);
    const imported = news.imported ?? [];
    if (imported.length > 0) {
      const own = await memory.keyDigests();
      if (imported.some((each) => own.includes(each.digest))) return { kind: 'clash', column: 'feed.key' };
    }
    // A new object: it may not know what ended before it.
    if (head.seq === 0) await allKept();
    const d = statementBuilder(d1);
    const since = memory.keys.since();
    const askedMs = Date.now();
    const before = [
      ...(head.seq === 0 ? [] : [hasRowStatement(d, head)]),
      ...(again ? [notWrittenStatement(d, digest)] : []),
      db.forgetUpToStatement(d, keptUpTo),
      selectEpoch(d),
    ].map(statementOf);
    const queries = {
      mark: selectMark(d),
      untold: db.selectUntold(d),
      changes: selectChanges(d, since),
      ...selectDone(d, newestSeq, news),
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
    const { mark: marks, untold, changes, ...read } = byName(queries, rows.slice(-after.length));
    const [mark] = marks as [StoreMark];
    const [row] = rows[before.length] as { seq: number }[];
    const [said] = (rows.at(-after.length - 1) ?? []) as { body_json?: string }[];
    if (!row) throw new Error('a mutation without its audit row');
    memory.keys.follow({ since, epoch: mark.epoch, changes }, askedMs);
    keep(untold, { seq: row.seq, hash: digest });
    if (untold.length === db.outboxPage) await allKept();
    void seal();
    note(news, read);
    const { bouncerIds, blockedMachines } = changedOf(read);
    return {
      kind: 'done',
      mark,
      changed: { bouncerIds: mark.epoch === epochBefore.epoch ? [] : bouncerIds, blockedMachines },
      bodyJson: said?.body_json ?? null,
      clients: clientsOf(news),
    };
  };

  const note = (
    { gone, noEngineOn, imported }: News,
    { newKeys = [], ids = [] }: Pick<RowsDone, 'newKeys' | 'ids'>,
  ): void => {
    for (const key of newKeys) memory.noteNewKey(key);
    if (gone !== undefined) memory.forgetBouncer(gone);
    if (noEngineOn !== undefined) memory.forgetEngineKey(noEngineOn);
    const idsOf = new Map(ids.map(({ name, ...own }) => [name, own]));
    for (const { name, uses } of imported ?? []) {
      const own = idsOf.get(name);
      if (own) memory.note(uses.map((use) => ({ ...own, ...use })));
    }
  };

  const clientsOf = ({ clientsOf: ids }: News): Done['clients'] => (ids?.length ? memory.clientsOf(ids) : []);

  /** Does what is left of a commit that D1 has. */
  const goOn = async ({ digest, news }: CommitAsk): Promise<Commit> => {
    try {
      const mark = await allKept();
      const read = await askD1(d1, async (d) => {
        const queries = selectDone(d, seqOf(digest), news);
        const { changed, ...rest } = queries;
        return byName(queries, await d.batch([changed, ...Object.values(rest)]));
      });
      note(news, read);
      return { kind: 'done', mark, changed: changedOf(read), bodyJson: null, clients: clientsOf(news) };
    } catch (error) {
      return outOfReach(error);
    }
  };

  const outOfReach = (error: unknown): Commit => {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return { kind: 'unreachable' };
  };

  const allKept = async (): Promise<StoreMark> => {
    const { mark, isKept } = await settle.next();
    if (!isKept) throw new Error('ends of keys can not be kept now');
    return mark;
  };

  return {
    async commit(ask) {
      try {
        return await commit(ask);
      } catch (error) {
        // Of what is sent again the try before may have been written.
        if (isUnwritable(error) && !ask.again)
          return { kind: 'unwritable', problem: (error as Error).message };
        const refusal = refusalOf(error);
        if (refusal?.kind === 'restored') await settle.next().catch(() => null);
        if (refusal?.kind === 'written') return goOn(ask);
        return refusal ?? outOfReach(error);
      }
    },
    head: () => head,
    async settle() {
      try {
        return (await settle.next()).mark;
      } catch (error) {
        console.error(`the key store is out of reach: ${causeOf(error).message}`);
        return null;
      }
    },
    seal,
  };
}
