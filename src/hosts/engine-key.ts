// A host sends the key under which Lapidary pulls from its engine. Here the key itself travels: D1 has its digest, to know
// it again; the feed is given the key, sealed, when this is written.

import { always } from '../store/audit.sql.ts';
import { isKnown } from '../bouncers/keys.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Answer } from '../operations/mutate.ts';
import { register, type Asked } from './registration.ts';
import { selectHolds } from '../store/facts.ts';
import {
  type HostKey,
  engineSlot,
  selectEngineKey,
  keepEngineKeyStatements,
} from '../bouncers/host-keys.sql.ts';

const digestTaken: Failure = {
  kind: 'conflict',
  field: 'engine_key',
  problem: 'a bouncer has or had this key; the feed needs one that nothing else uses',
};

export async function registerEngineKey(
  env: Env,
  asked: Asked & { readonly engineKey: string },
  nowMs: number,
): Promise<Result<Answer>> {
  const digest = await digestOf(asked.engineKey);
  return register(
    env,
    asked,
    {
      slot: engineSlot,
      reads: (d) => [selectEngineKey(d), selectHolds(d, isKnown(digest))] as const,
      repeated: ([[kept]], { host }) => {
        if (kept?.host !== host.name || kept.digest !== digest) return null;
        const answer = ({ hostKey: { generation } }: { hostKey: HostKey }): Answer => {
          return { status: 200, body: { generation, state: 'unchanged' } };
        };
        return { answer, mayBeBehind: true, again: false };
      },
      register: ([, [known]], { host }, { why }, generation) => {
        if (known?.holds) return fail(digestTaken);
        const detail = { start: digest.slice(0, 8), generation, recovered: why !== 'in-order' };
        return succeed({
          entry: { action: 'host.engine-key', detail },
          unchanged: always,
          statements: (d) => keepEngineKeyStatements(d, { host: host.name, digest, createdMs: nowMs }),
          answer: { status: 200, body: { generation, state: 'registered' } },
          clash: digestTaken,
        });
      },
    },
    nowMs,
  );
}
