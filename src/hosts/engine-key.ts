// A known host sends the key under which Lapidary pulls from its engine. This key itself travels. D1 keeps its digest, to
// recognise it. The feed's object gets the key, sealed, after D1 has written the registration.

import { keepEngineKeyStatements, keyOfEngine, selectEngineKey } from '../bouncers/host-keys.sql.ts';
import { isKnown } from '../bouncers/keys.sql.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { seal } from '../crypto/seal.ts';
import { digestOf } from '../crypto/secret.ts';
import { askFeed } from '../feed/client.ts';
import { conflict, fail, succeed, type Result } from '../http/failure.ts';
import type { Answer } from '../operations/mutate.ts';
import { always } from '../store/audit.sql.ts';
import { selectHolds } from '../store/facts.ts';
import { register } from './registration.ts';
import type { EngineKeyPayload, KnownRequest } from './signed-request.ts';

const digestTaken = conflict(
  'engine_key',
  'a bouncer has or had this key; the feed needs one that nothing else uses',
);

export async function registerEngineKey(
  env: Env,
  secrets: BootstrapSecrets,
  request: KnownRequest<EngineKeyPayload>,
  nowMs: number,
): Promise<Result<Answer>> {
  const { host, payload } = request;
  const digest = digestOf(payload.engine_key);
  const done = await register(env, request, nowMs, {
    key: keyOfEngine,
    reads: (d) => [selectEngineKey(d), selectHolds(d, isKnown(digest))] as const,
    decide: ([[kept], [known]], { hostKey }) => {
      const isKept = kept?.host === host.name && kept.digest === digest;
      const body = { generation: hostKey.generation, state: 'unchanged' };
      return succeed({
        repeated: isKept ? { answer: { status: 200, body }, mayBeBehind: true, again: false } : null,
        register: ({ reason }, generation) => {
          if (known?.holds) return fail(digestTaken);
          const detail = { start: digest.slice(0, 8), generation, recovered: reason !== 'in-order' };
          return succeed({
            entry: { action: 'host.engine-key', detail },
            unchanged: always,
            statements: (d) => keepEngineKeyStatements(d, { host: host.name, digest, createdMs: nowMs }),
            answer: { status: 200, body: { generation, state: 'registered' } },
            clash: digestTaken,
          });
        },
      });
    },
  });
  if (!done.ok) return done;
  // The feed gets an unchanged key as well: it may not have got it the last time.
  const sealed = await seal(secrets, host.name, payload.engine_key);
  const offered = await askFeed(env, async (feed) => feed.offerEngineKey(host.name, sealed));
  return offered.ok ? done : offered;
}
