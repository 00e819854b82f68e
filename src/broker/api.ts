// The operator API's routes: bouncers and their keys, local decisions, the feed. JSON in and out, problem+json
// for every failure; input is checked whole before anything is written.

import { Hono } from 'hono';
import type { Context } from 'hono';
import { askFeed, type AppEnv } from '../context.ts';
import * as db from '../db/bouncers.ts';
import { badInput, fail, problem, succeed, type Result } from '../failure.ts';
import type { Decision } from '../feed/decision.ts';
import type { SeenClient } from '../feed/clients.ts';
import { readJson } from '../lapi/body.ts';
import { formatDuration } from '../lapi/duration.ts';
import { forgetHead } from '../lapi/quiet.ts';
import { digestOf, mintSecret } from '../secret.ts';
import { parseDecisionMatch, parseNewBouncer, parseNewDecision, parsePage } from './input.ts';
import { authenticateOperator } from './operators.ts';

export const operatorRoutes = new Hono<AppEnv>();

const bodyLimitBytes = 64 * 1024;

operatorRoutes.use(async (c, next) => {
  const operator = await authenticateOperator(c.get('settings'), c.req.header('authorization'));
  if (!operator.ok) return problem(operator.failure);
  await next();
  // What an operator changed here, this isolate's next poll sees.
  if (c.req.method !== 'GET') forgetHead();
});

operatorRoutes.all('/bouncers', (c) => route(c, { GET: listBouncers, POST: createBouncer }));
operatorRoutes.all('/bouncers/:name', (c) => route(c, { GET: showBouncer, DELETE: deleteBouncer }));
operatorRoutes.all('/decisions', (c) => route(c, { GET: listDecisions, POST: ban, DELETE: unban }));
operatorRoutes.all('/feed', (c) => route(c, { GET: showFeed }));
operatorRoutes.all('/feed/sync', (c) => route(c, { POST: syncFeed }));

type Reply = (c: Context<AppEnv>) => Promise<Response>;

async function route(c: Context<AppEnv>, replies: Readonly<Record<string, Reply>>): Promise<Response> {
  const reply = replies[c.req.method];
  return reply ? reply(c) : problem({ kind: 'method-not-allowed', allow: Object.keys(replies) });
}

async function createBouncer(c: Context<AppEnv>): Promise<Response> {
  const input = await read(c, parseNewBouncer);
  if (!input.ok) return problem(input.failure);
  const { name, digest } = input.value;
  const key = digest === null ? mintSecret('csb_') : null;
  const stored = digest ?? (await digestOf(key as string));
  try {
    const bouncer = await db.insertBouncer(c.env.DB, name, stored, Date.now());
    return c.json({ bouncer: describeBouncer(bouncer, []), ...(key === null ? {} : { key }) }, 201);
  } catch (error) {
    // The unique indexes decide, not a look beforehand: two requests at once leave one bouncer.
    const clash = await db.clashOf(c.env.DB, name, stored);
    if (clash === 'name') return problem({ kind: 'conflict', problem: `name: bouncer ${name} exists` });
    if (clash === 'digest') {
      return problem({ kind: 'conflict', problem: 'key_sha512: this key is registered already' });
    }
    throw error;
  }
}

async function listBouncers(c: Context<AppEnv>): Promise<Response> {
  const page = parsePage(c.req.query());
  if (!page.ok) return problem(page.failure);
  const { after, limit } = page.value;
  const rows = await db.listBouncers(c.env.DB, after, limit);
  const ids = rows.map((row) => row.id);
  const clients = await askFeed(c.env, async (feed) => feed.clientsOf(ids));
  const bouncers = rows.map((row, index) => describeBouncer(row, clients[index] ?? []));
  return c.json({ bouncers, next: rows.length === limit ? (rows.at(-1)?.id ?? null) : null });
}

async function showBouncer(c: Context<AppEnv>): Promise<Response> {
  const bouncer = await find(c);
  if (!bouncer.ok) return problem(bouncer.failure);
  const { metricsJson, metricsMs } = bouncer.value;
  const metrics: unknown = metricsJson === null ? null : JSON.parse(metricsJson);
  const [clients] = await askFeed(c.env, async (feed) => feed.clientsOf([bouncer.value.id]));
  return c.json({
    ...describeBouncer(bouncer.value, clients ?? []),
    metrics,
    metrics_at: isoTime(metricsMs),
  });
}

async function deleteBouncer(c: Context<AppEnv>): Promise<Response> {
  const bouncer = await find(c);
  if (!bouncer.ok) return problem(bouncer.failure);
  await db.deleteBouncer(c.env.DB, bouncer.value.id);
  await askFeed(c.env, async (feed) => feed.forgetBouncer(bouncer.value.id));
  return c.body(null, 204);
}

async function find(c: Context<AppEnv>): Promise<Result<db.Bouncer>> {
  const name = c.req.param('name') ?? '';
  const bouncer = await db.findBouncer(c.env.DB, name);
  return bouncer ? succeed(bouncer) : fail({ kind: 'not-found', what: `bouncer ${name}` });
}

/** `type` and `version` are the two halves of the User-Agent, as LAPI takes it apart (middlewares/v1/api_key.go). */
function describeBouncer(bouncer: db.Bouncer, clients: readonly SeenClient[]) {
  const newest = clients[0];
  const [type, version, ...rest] = (newest?.userAgent ?? '').split('/');
  const twoParts = version !== undefined && rest.length === 0;
  return {
    name: bouncer.name,
    created_at: isoTime(bouncer.createdMs),
    last_pull: isoTime(newest?.seenMs ?? null),
    address: newest?.address ?? null,
    type: newest ? (twoParts ? type : newest.userAgent) : null,
    version: newest ? (twoParts ? version : 'N/A') : null,
    clients: clients.map(({ address, seenMs }) => ({ address, last_pull: isoTime(seenMs) })),
  };
}

async function ban(c: Context<AppEnv>): Promise<Response> {
  const input = await read(c, parseNewDecision);
  if (!input.ok) return problem(input.failure);
  const { durationMs, ...decision } = input.value;
  const nowMs = Date.now();
  const local = { ...decision, untilMs: nowMs + durationMs };
  // Not through `askFeed`: a repeated addition would ban twice.
  const added = await c.env.DECISION_FEED.getByName('default').addLocal(local);
  return c.json({ decision: describeDecision(added, nowMs) }, 201);
}

async function unban(c: Context<AppEnv>): Promise<Response> {
  const match = parseDecisionMatch(c.req.query());
  if (!match.ok) return problem(match.failure);
  const removal = await askFeed(c.env, async (feed) => feed.removeLocal(match.value));
  if (removal.kind === 'removed') return c.json({ removed: removal.count });
  return problem({
    kind: 'conflict',
    problem:
      `${removal.count} decisions of the engine match and none made here: ` +
      `remove them at the engine (cscli decisions delete --value ${match.value.value})`,
  });
}

async function listDecisions(c: Context<AppEnv>): Promise<Response> {
  const page = parsePage(c.req.query());
  if (!page.ok) return problem(page.failure);
  const { after, limit } = page.value;
  const nowMs = Date.now();
  const rows = await askFeed(c.env, async (feed) => feed.page(after, limit));
  const decisions = rows.map((row) => describeDecision(row, nowMs));
  return c.json({ decisions, next: rows.length === limit ? (rows.at(-1)?.id ?? null) : null });
}

function describeDecision(decision: Decision, nowMs: number) {
  const { id, origin, scenario, scope, type, value, untilMs } = decision;
  const duration = formatDuration(Math.max(0, Math.floor((untilMs - nowMs) / 1000)));
  return { id, origin, scenario, scope, type, value, duration, until: isoTime(untilMs) };
}

async function showFeed(c: Context<AppEnv>): Promise<Response> {
  const { sequence, decisions, tombstones, cursors, freshness, ageSeconds, upstream } = await askFeed(
    c.env,
    async (feed) => feed.status(),
  );
  return c.json({
    sequence,
    decisions,
    tombstones,
    cursors,
    freshness,
    age_seconds: ageSeconds,
    upstream: {
      state: upstream.state,
      lastSyncAt: isoTime(upstream.lastSyncMs || null),
      lastResyncAt: isoTime(upstream.lastResyncMs || null),
      lastError: upstream.lastError,
    },
  });
}

async function syncFeed(c: Context<AppEnv>): Promise<Response> {
  const believe = c.req.query('believe') === 'true';
  const full = believe || c.req.query('full') === 'true';
  const result = await askFeed(c.env, async (feed) => feed.sync({ full, believe }));
  return c.json(result, result.ok ? 200 : 502);
}

async function read<T>(c: Context<AppEnv>, parse: (json: object) => Result<T>): Promise<Result<T>> {
  const json = await readJson(c.req.raw, bodyLimitBytes);
  if (!json.ok) return json;
  if (typeof json.value !== 'object' || json.value === null || Array.isArray(json.value)) {
    return badInput('body', 'not a JSON object');
  }
  return parse(json.value);
}

function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
