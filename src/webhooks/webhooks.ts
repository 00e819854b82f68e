// Webhooks as operators make, change and delete them: where messages go, and which. The secret that signs them is shown once
// and kept sealed. An address may have a secret in its path, so the audit log has its host alone.

import { asc, eq, gt, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import type { Settings } from '../config/settings.ts';
import { mintWebhookSecret } from '../crypto/mint.ts';
import { seal } from '../crypto/seal.ts';
import { urlProblem } from '../events/delivery.ts';
import { eventTypes } from '../events/kinds.ts';
import type { Progress } from '../events/sender.ts';
import { targetKey, typesOf, type Target } from '../events/targets.ts';
import { badInput, conflict, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { isoTime, name, time } from '../operations/fields.ts';
import {
  checkRevision,
  mutate,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import { askD1 } from '../store/ask.ts';
import type { RowsOf } from '../store/audit.sql.ts';
import { rowJson } from '../store/facts.ts';
import { webhooks } from '../store/schema.ts';

type Webhook = typeof webhooks.$inferSelect;
/** All but the secret, which no answer and no kept answer has. */
type Shape = Omit<Webhook, 'sealedSecret'>;

const mostWebhooks = 20;

const url = z
  .string('must be an address like https://hooks.example.net/lapidary')
  .max(2000, 'must be at most 2000 characters')
  .meta({ description: 'Of the receiver, by https.', example: 'https://hooks.example.net/lapidary' });
const eventsMustBe = `must be null or a list of some of ${eventTypes.join(', ')}`;
const events = z
  .array(z.enum(eventTypes, eventsMustBe), eventsMustBe)
  .min(1, eventsMustBe)
  .transform((types) => [...new Set(types)])
  .nullable()
  .meta({ description: 'The events that it is sent; null: all, also those of later versions.' });

export const newWebhook = z.strictObject({ name, url, events: events.default(null) });
export const webhookChange = z.strictObject({ url: url.optional(), events: events.optional() });

export const webhookShape = z
  .object({
    name: z.string(),
    url: z.string(),
    events: z.array(z.enum(eventTypes)).nullable().meta({ description: 'Null: all.' }),
    revision: z.int().meta({ description: 'Counts its changes; its ETag.' }),
    created_at: time,
  })
  .meta({ id: 'Webhook' });

export const deliveryShape = z
  .object({
    waiting: z.int().meta({ description: 'Messages that it has not taken yet.' }),
    lost: z.int().meta({ description: 'Messages that were given up: 1,000 are kept.' }),
    failures: z.int().meta({ description: 'Tries in a row that failed.' }),
    last_delivered_at: time.nullable(),
    last_try: z
      .object({
        at: time,
        status: z.int().nullable().meta({ description: 'Null: it did not answer.' }),
        problem: z.string().nullable().meta({ description: 'Null: it took the message.' }),
      })
      .nullable()
      .meta({ description: 'Of its newest try; a test is none. Null: there was none.' }),
  })
  .meta({ id: 'Delivery' });

export const shownWebhook = webhookShape.extend({
  delivery: deliveryShape.nullable().meta({ description: 'Null: the feed has not looked at it yet.' }),
});

export function describeWebhook(webhook: Shape): z.input<typeof webhookShape> {
  const { revision, createdMs } = webhook;
  const created_at = isoTime(createdMs);
  return { name: webhook.name, url: webhook.url, events: typesIn(webhook), revision, created_at };
}

function typesIn(webhook: Shape): z.input<typeof webhookShape>['events'] {
  const types = typesOf(webhook);
  return types && [...types];
}

export function describeProgress(progress: Progress | null): z.input<typeof deliveryShape> | null {
  if (!progress) return null;
  const { waiting, lost, failures, triedMs, status, problem, deliveredMs } = progress;
  return {
    waiting,
    lost,
    failures,
    last_delivered_at: isoTime(deliveredMs),
    last_try: triedMs === null ? null : { at: isoTime(triedMs), status, problem },
  };
}

/** What the feed's object knows a webhook by. */
export function askedOf(webhook: Shape): Pick<Target, 'key' | 'types'> {
  return { key: targetKey(webhook), types: typesOf(webhook) };
}

/** A page by id. */
export function listWebhooks(d1: D1Database, afterId: number, limit: number): Promise<Webhook[]> {
  const { id } = webhooks;
  return askD1(d1, (d) => d.select().from(webhooks).where(gt(id, afterId)).orderBy(asc(id)).limit(limit));
}

export async function findWebhook(d1: D1Database, named: string): Promise<Webhook | undefined> {
  const [found] = await askD1(d1, (d) => selectWebhook(d, named));
  return found;
}

function selectWebhook(d: DrizzleD1Database, named: string) {
  return d.select().from(webhooks).where(eq(webhooks.name, named));
}

/** A webhook as it is answered. */
function shown(named: string): Shown<Shape> {
  return {
    json: sql`(SELECT ${rowJson(webhooks, ['sealedSecret'])} FROM webhooks WHERE name = ${named})`,
    describe: (webhook) => ({ webhook: describeWebhook(webhook) }),
  };
}

const noSecret: Failure = {
  kind: 'unavailable',
  problem: 'webhooks need BOOTSTRAP_SECRET, which seals their secrets: it is not set',
};

export async function createWebhook(
  mutation: Mutation,
  { bootstrap, privateWebhooks }: Settings,
  { name: named, url: address, events: types }: z.output<typeof newWebhook>,
): Promise<Result<Answer>> {
  const wrong = urlProblem(address, privateWebhooks);
  if (wrong !== null) return badInput('url', wrong);
  if (!bootstrap) return fail(noSecret);
  const secret = mintWebhookSecret();
  const row = {
    name: named,
    url: address,
    eventsJson: types && JSON.stringify(types),
    sealedSecret: await seal(bootstrap, named, secret, 'webhook-secret'),
    createdMs: mutation.nowMs,
  };
  const hasRoom = sql`(SELECT count(*) < ${mostWebhooks} FROM webhooks)`;
  const reads = (d: DrizzleD1Database) => [d.select({ name: webhooks.name }).from(webhooks)] as const;
  const taken = conflict('name', `webhook ${named} exists`);
  const decide = ([all]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (all.some((each) => each.name === named)) return fail(taken);
    if (all.length >= mostWebhooks) {
      return fail(
        conflict('name', `there are ${mostWebhooks} webhooks, and no more can be: delete one first`),
      );
    }
    return succeed({
      entry: { action: 'webhook.create', target: named, detail: detailOf(address, types) },
      unchanged: hasRoom,
      statements: (d) => [d.insert(webhooks).values(row)],
      answer: { status: 201, secret: { secret } },
      clash: () => taken,
    });
  };
  return mutate(mutation, reads, decide, shown(named));
}

function detailOf(address: string, types: readonly string[] | null): Readonly<Record<string, unknown>> {
  return { host: new URL(address).host, events: types };
}

export async function changeWebhook(
  mutation: Mutation,
  { privateWebhooks }: Settings,
  named: string,
  change: z.output<typeof webhookChange>,
): Promise<Result<Answer>> {
  const wrong = change.url === undefined ? null : urlProblem(change.url, privateWebhooks);
  if (wrong !== null) return badInput('url', wrong);
  return changeOne(mutation, named, (webhook) => {
    const address = change.url ?? webhook.url;
    const types = change.events === undefined ? typesOf(webhook) : change.events;
    const to = { url: address, eventsJson: types && JSON.stringify(types), revision: webhook.revision + 1 };
    return {
      entry: { action: 'webhook.change', target: named, detail: detailOf(address, types) },
      statements: (d) => [d.update(webhooks).set(to).where(eq(webhooks.id, webhook.id))],
      answer: { status: 200 },
    };
  });
}

export function deleteWebhook(mutation: Mutation, named: string): Promise<Result<Answer>> {
  return changeOne(mutation, named, ({ id, url: address }) => ({
    entry: { action: 'webhook.delete', target: named, detail: { host: new URL(address).host } },
    statements: (d) => [d.delete(webhooks).where(eq(webhooks.id, id))],
    answer: { status: 204, body: {} },
  }));
}

/** A change of a webhook that is there. */
function changeOne(
  mutation: Mutation,
  named: string,
  draftOf: (webhook: Webhook) => Omit<Draft, 'unchanged'>,
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => [selectWebhook(d, named)] as const;
  const decide = ([[webhook]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!webhook) return fail({ kind: 'not-found', what: `webhook ${named}` });
    const expected = checkRevision(mutation, webhook.revision);
    if (!expected.ok) return expected;
    const { id, revision } = webhook;
    const unchanged = sql`EXISTS (SELECT 1 FROM webhooks WHERE id = ${id} AND revision = ${revision})`;
    return succeed({ ...draftOf(webhook), unchanged });
  };
  return mutate(mutation, reads, decide, shown(named));
}
