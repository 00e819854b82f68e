// The operator API of the feed: the state of the mirror and its engines, and a sync now.

import * as z from 'zod';
import { upstreamKinds } from '../config/upstreams.ts';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import { allowListStates } from '../engines/allow-lists.ts';
import { freshnesses } from '../engines/engines.ts';
import { leftBehindReasons } from '../mirror/local.ts';
import { linkStates } from '../mirror/progress.ts';
import { note } from '../operations/mutate.ts';
import { isoTime, time } from '../operations/fields.ts';
import { mutationOf, operation } from '../operations/operation.ts';
import { describePublicUrls, publicUrlShape } from '../hosts/public-url.ts';

const flag = z.enum(['true', 'false'], 'must be true or false').default('false');

const engineShape = z
  .object({
    name: z.string(),
    kind: z.enum(upstreamKinds).meta({
      description: '`lapi`: an engine; `list`: a public list; `hosted`: a hosted integration of CrowdSec.',
    }),
    decisions: z.int(),
    freshness: z.enum(freshnesses),
    age_seconds: z.int().nullable().meta({ description: 'Since it last answered; null: not known.' }),
    full_age_seconds: z
      .int()
      .nullable()
      .meta({ description: 'Since a full list of it was last accepted; null: not known.' }),
    state: z.enum(linkStates),
    key: z
      .enum(['setting', 'host'])
      .nullable()
      .meta({ description: 'Where the key comes from that Lapidary pulls with. Null: there is none.' }),
    key_pending: z
      .boolean()
      .meta({ description: 'A host has sent another key, which the engine does not accept yet.' }),
    last_sync_at: time.nullable(),
    last_resync_at: time.nullable(),
    last_error: z.string().nullable(),
    skipped: z.int().meta({ description: 'Elements of its newest answers that could not be read.' }),
    skipped_sample: z.string().nullable().meta({ description: 'What is wrong with one of them.' }),
    left_out: z.int().meta({ description: 'Decisions of it for which there is no room (MAX_DECISIONS).' }),
    allowlists: z
      .object({
        state: z.enum(allowListStates).meta({ description: '`none`: the engine knows no allow-lists.' }),
        entries: z.int().meta({ description: 'That hold.' }),
        skipped: z
          .int()
          .meta({ description: 'Entries that were unreadable, or wider than a /8 (IPv6: a /32).' }),
        error: z.string().nullable().meta({ description: 'Why they could not be read: the last ones hold.' }),
        read_at: time.nullable(),
      })
      .nullable()
      .meta({ description: 'The engine’s own allow-lists. Null: they are not read.' }),
  })
  .meta({ id: 'Engine' });

const leftBehindShape = z
  .object({ engine: z.string(), decisions: z.int(), why: z.enum(leftBehindReasons) })
  .meta({
    id: 'LeftBehind',
    description:
      'Decisions that no engine confirms any more: they stay until they expire. `database-replaced`: the engine has ' +
      'another database than when it made them. `engine-removed`: it is not in the settings any more.',
  });

const feedShape = z
  .object({
    sequence: z.int().meta({ description: 'Counts the changes of what is mirrored.' }),
    decisions: z.int(),
    tombstones: z.int().meta({ description: 'Ended decisions that are still remembered.' }),
    cursors: z.int(),
    freshness: z.enum(freshnesses).meta({
      description:
        'The worst of all engines. Where there is an engine, another source makes it `stale`, but never `cold`.',
    }),
    age_seconds: z.int().nullable().meta({ description: 'The oldest of all engines; null: not known.' }),
    full_age_seconds: z.int().nullable().meta({ description: 'The oldest of all engines; null: not known.' }),
    engines: z.array(engineShape),
    left_behind: z.array(leftBehindShape),
    public_urls: z.array(publicUrlShape).nullable().meta({
      description:
        'By which addresses hosts know this broker. None: no host can register; null: the key store is out of reach.',
    }),
  })
  .meta({ id: 'Feed' });

export type FeedBody = z.input<typeof feedShape>;

const roundShape = z
  .object({
    ok: z.boolean(),
    added: z.int(),
    removed: z.int(),
    error: z.string().nullable(),
    warning: z.string().nullable().meta({
      description: 'Why another full list has to confirm this one, or why a list was not asked again.',
    }),
  })
  .meta({ id: 'Round' });

export const feedOperations = [
  operation({
    method: 'GET',
    path: '/feed',
    needs: 'viewer',
    summary: 'How the mirror stands, and how the engines are doing',
    answers: { 200: { description: 'As of now.', body: feedShape } },
    reply: async (c) => {
      const status = await askFeed(c.env, async (feed) => feed.status());
      const { sequence, decisions, tombstones, cursors, freshness, engines } = status;
      const leftBehind = await askFeed(c.env, async (feed) => feed.leftBehind());
      return c.json({
        sequence,
        decisions,
        tombstones,
        cursors,
        freshness,
        age_seconds: status.ageSeconds,
        full_age_seconds: status.fullAgeSeconds,
        engines: engines.map((engine) => ({
          name: engine.name,
          kind: engine.kind,
          decisions: engine.decisions,
          freshness: engine.freshness,
          age_seconds: engine.ageSeconds,
          full_age_seconds: engine.fullAgeSeconds,
          state: engine.link,
          key: engine.key,
          key_pending: engine.keyPending,
          last_sync_at: isoTime(engine.lastSyncMs || null),
          last_resync_at: isoTime(engine.lastResyncMs || null),
          last_error: engine.lastError,
          skipped: engine.skipped,
          skipped_sample: engine.skippedSample,
          left_out: engine.leftOut,
          allowlists: engine.allowLists && {
            state: engine.allowLists.state,
            entries: engine.allowLists.entries,
            skipped: engine.allowLists.skipped,
            error: engine.allowLists.error,
            read_at: isoTime(engine.allowLists.readMs || null),
          },
        })),
        left_behind: [...leftBehind],
        public_urls: await describePublicUrls(c.env.DB, c.get('settings')),
      } satisfies z.input<typeof feedShape>);
    },
  }),
  operation({
    method: 'POST',
    path: '/feed/sync',
    needs: 'operator',
    summary: 'One round with the engines now',
    query: z.strictObject({
      engine: z.string().optional().meta({ description: 'With this one only.' }),
      full: flag.meta({ description: 'Compare the whole list.' }),
      force: flag.meta({
        description:
          'Compare the whole list, and accept it even where it is doubtful. Without `engine`: also remove the ' +
          'decisions of engines that are no longer configured.',
      }),
    }),
    answers: {
      200: { description: 'What came of it.', body: roundShape },
      502: { description: 'An engine did not answer, or not in a valid way.', body: roundShape },
    },
    reply: async (c, { query }) => {
      const force = query.force === 'true';
      const full = force || query.full === 'true';
      const { engine } = query;
      const { upstreams } = c.get('settings');
      if (engine !== undefined && !upstreams.some(({ name }) => name === engine)) {
        const names = upstreams.map(({ name }) => name).join(', ');
        const why = `is no engine's name; configured: ${names || 'none'}`;
        return problem({ kind: 'bad-input', field: 'engine', problem: why });
      }
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      // `believe`: the audit log keeps the name that its first rows have.
      const detail = { full, believe: force, ...(engine === undefined ? {} : { engine }) };
      const noted = await note({ ...asked.value, idempotency: null }, 'feed.sync', 'feed', detail);
      if (!noted.ok) return problem(noted.failure);
      const round = await askFeed(c.env, async (feed) => feed.sync({ engine, full, force }));
      return c.json(round, round.ok ? 200 : 502);
    },
  }),
];
