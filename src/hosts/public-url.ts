// The address by which hosts know this broker, where PUBLIC_URL does not set it: the Host header of an operator's first
// request, since no other Host header is trusted. It holds until an operator sets another, or PUBLIC_URL is set.

import { sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { Context } from 'hono';
import * as z from 'zod';
import { publicUrls } from './audience.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { always } from '../store/audit.sql.ts';
import { answerMs, askD1 } from '../store/ask.ts';
import { publicUrl } from '../store/schema.ts';
import { causeOf, conflict, fail, succeed, type Result } from '../http/failure.ts';
import { parsed } from '../config/fields.ts';
import { mayAct } from '../config/roles.ts';
import type { Settings } from '../config/settings.ts';
import { withinMs } from '../runtime/wait.ts';
import { isoTime, time } from '../operations/fields.ts';
import { mutate, mutationBy, nothingRead, type Answer, type Mutation } from '../operations/mutate.ts';
import { lastReconciledMs } from '../operations/settle.ts';
import { parsePublicUrl, publicUrlMustBe, isLoopback, isLoopbackUrl } from '../config/public-url.ts';

export const publicUrlFields = z.strictObject({
  url: parsed(`must be ${publicUrlMustBe}`, parsePublicUrl).meta({
    description: 'PATH_PREFIX included.',
    example: 'https://lapidary.example.net',
  }),
});

export const publicUrlShape = z
  .object({
    url: z
      .string()
      .meta({ description: '`//host`: with http and https.', example: '//lapidary.example.net' }),
    local: z.boolean().meta({ description: 'It works for hosts on the broker’s own machine only.' }),
    fixed_by: z
      .string()
      .nullable()
      .meta({ description: 'The operator whose request fixed it; null: PUBLIC_URL.' }),
    fixed_at: time.nullable(),
  })
  .meta({ id: 'PublicUrl', description: 'An address by which hosts know this broker: they sign it.' });

type FixedUrl = Omit<typeof publicUrl.$inferSelect, 'id'>;

/** The address that is fixed in D1, if one is. */
export function selectFixedUrl(db: DrizzleD1Database) {
  return db.select().from(publicUrl);
}

function fixUrlStatements(db: DrizzleD1Database, fixed: FixedUrl) {
  const row = { id: 0, ...fixed };
  return [db.insert(publicUrl).values(row).onConflictDoUpdate({ target: publicUrl.id, set: fixed })];
}

/** A request's Host header, in lower case. */
function hostOf(request: Request): string {
  return (request.headers.get('host') ?? new URL(request.url).host).toLowerCase();
}

/**
 * Whether a request comes from this very machine. A local proxy that forwards others' requests is recognised by the headers
 * that it adds; one that adds none is not.
 */
export function isFromLoopback(request: Request, settings: Settings): boolean {
  const forwarded = ['x-forwarded-for', 'forwarded'].some((name) => request.headers.has(name));
  if (settings.clientAddressHeader === '' && forwarded) return false;
  return isLoopback(clientAddress(request, settings));
}

function describe(settings: Settings, fixed: FixedUrl | null) {
  return publicUrls(settings, fixed?.url ?? null).map((url) => {
    const by = url === settings.publicUrl ? null : fixed;
    const fixing = { fixed_by: by?.actor ?? null, fixed_at: isoTime(by?.fixedMs ?? null) };
    return { url, local: isLoopbackUrl(url), ...fixing } satisfies z.input<typeof publicUrlShape>;
  });
}

/** For the status, which is answered without D1 as well. Null: D1 is out of reach. */
export async function describePublicUrls(d1: D1Database, settings: Settings) {
  try {
    const [fixed] = await askD1(d1, selectFixedUrl, answerMs);
    return describe(settings, fixed ?? null);
  } catch (error) {
    console.error(`the address of this broker could not be read: ${causeOf(error).message}`);
    return null;
  }
}

/**
 * For an isolate's settings: the time of the last restore after which an address was seen to be fixed. It may be replaced,
 * but is never removed, so it need not be looked for again until D1 is restored.
 */
const knownFixed = new WeakMap<Settings, number>();

/**
 * Fixes the address of an operator's request, if none is fixed yet. A loopback address is not taken, since no other machine
 * reaches it, nor a viewer's request. It never throws: the request goes on without.
 */
export async function fixPublicUrl(c: Context<AppEnv>, nowMs: number): Promise<void> {
  const settings = c.get('settings');
  const host = hostOf(c.req.raw);
  if (settings.bootstrap === null || isSet(settings)) return;
  if (isLoopbackUrl(host) || !mayAct(c.get('role'), 'operator')) return;
  if (knownFixed.get(settings) === lastReconciledMs()) return;
  const fixing = fix(c, `//${host}`, nowMs);
  c.executionCtx.waitUntil(fixing);
  await withinMs(fixing, answerMs);
}

async function fix(c: Context<AppEnv>, url: string, nowMs: number): Promise<void> {
  const fixed = { url, fixedMs: nowMs, actor: c.get('actor') };
  const mutation = { ...mutationBy(c.env, fixed.actor, nowMs), breakGlass: c.get('breakGlass') };
  const reads = (d: DrizzleD1Database) => [selectFixedUrl(d)] as const;
  try {
    const answer = await mutate(mutation, reads, ([[there]]) => {
      if (there) return succeed({ as: { status: 200, body: {} } });
      return succeed({
        entry: { action: 'public-url.fix', target: fixed.url, detail: {} },
        unchanged: sql`NOT EXISTS (SELECT 1 FROM public_url)`,
        statements: (d) => fixUrlStatements(d, fixed),
        answer: { status: 200, body: {} },
      });
    });
    if (answer.ok) knownFixed.set(c.get('settings'), lastReconciledMs());
  } catch (error) {
    console.error(`the address of this broker was not fixed: ${causeOf(error).message}`);
  }
}

/** Sets the address, for an operator. */
export async function changePublicUrl(
  mutation: Mutation,
  settings: Settings,
  url: string,
): Promise<Result<Answer>> {
  if (isSet(settings)) return fail(conflict('url', 'the setting PUBLIC_URL sets it; change it there'));
  const fixed = { url, fixedMs: mutation.nowMs, actor: mutation.actor };
  return mutate(mutation, nothingRead, () =>
    succeed({
      entry: { action: 'public-url.change', target: url, detail: {} },
      unchanged: always,
      statements: (d) => fixUrlStatements(d, fixed),
      answer: { status: 200, body: { public_urls: describe(settings, fixed) } },
    }),
  );
}

/** Whether PUBLIC_URL is an address that other machines reach. If so, it is the only one. */
function isSet({ publicUrl }: Settings): boolean {
  return publicUrl !== '' && !isLoopbackUrl(publicUrl);
}
