// The operator API's routes: bouncers and their keys, local decisions, the feed. JSON in and out, problem+json
// for every failure; input is checked whole before anything is written.

import { Hono } from 'hono';
import type { Context } from 'hono';
import { askFeed, type AppEnv } from '../context.ts';
import * as audit from '../db/audit.ts';
import * as db from '../db/bouncers.ts';
import { versionsOf } from '../db/keys.ts';
import { badInput, problem, succeed, type Result } from '../failure.ts';
import type { SeenClient } from '../feed/clients.ts';
import type { Decision } from '../feed/decision.ts';
import { parseJson, readText } from '../lapi/body.ts';
import { formatDuration } from '../lapi/duration.ts';
import { forgetHead } from '../lapi/quiet.ts';
import { mayAct, type Role } from '../roles.ts';
import { describeAudit, verifyChain } from './audit.ts';
import * as bouncers from './bouncers.ts';
import { describeBouncer, isoTime } from './describe.ts';
import { importBouncers, importLimitBytes, parseImport, sightingsOf, type Import } from './import.ts';
import * as input from './input.ts';
import { forgetEpoch } from './keys.ts';
import { etagOf, readIdempotency, readIfMatch, type Answer, type Mutation } from './mutations.ts';
import { parsePolicyChange } from './policy.ts';
import { authenticateOperator, noteBreakGlass, noteBreakGlassRead } from './operators.ts';
import * as tokens from './tokens.ts';

const {
  parseAuditQuery,
  parseDecisionMatch,
  parseNewBouncer,
  parseNewDecision,
  parseNewToken,
  parseNothing,
  parsePage,
  parseRotation,
} = input;

export const operatorRoutes = new Hono<AppEnv>();

const bodyLimitBytes = 64 * 1024;

operatorRoutes.use(async (c, next) => {
  const nowMs = Date.now();
  const caller = await authenticateOperator(c.get('settings'), c.env.DB, c.req.raw, nowMs);
  if (!caller.ok) return problem(caller.failure);
  const { actor, role, breakGlass } = caller.value;
  c.set('actor', actor);
  c.set('role', role);
  c.set('breakGlass', breakGlass);
  if (breakGlass && c.req.method === 'GET') {
    if (await noteBreakGlassRead(c.get('settings'), c.env.DB, useOf(c), nowMs)) await anchorAudit(c);
  }
  await next();
  // What an operator changed here, this isolate's next poll sees.
  if (c.req.method !== 'GET') forgetHead();
});

operatorRoutes.all('/bouncers', (c) =>
  route(c, { GET: viewer(listBouncers), POST: operator(createBouncer) }),
);
// Only this method: a bouncer may well be called `import`.
operatorRoutes.post('/bouncers/import', (c) => route(c, { POST: operator(importKeys) }));
operatorRoutes.all('/bouncers/:name', (c) =>
  route(c, {
    GET: viewer(showBouncer),
    PATCH: operator(changePolicy),
    DELETE: operator(deleteBouncer),
  }),
);
operatorRoutes.all('/bouncers/:name/rotate', (c) => route(c, { POST: operator(rotateKey) }));
operatorRoutes.all('/bouncers/:name/versions/:number/revoke', (c) =>
  route(c, { POST: operator(revokeVersion) }),
);
operatorRoutes.all('/operator-tokens', (c) => route(c, { GET: admin(listTokens), POST: admin(createToken) }));
operatorRoutes.all('/operator-tokens/:name', (c) => route(c, { DELETE: admin(revokeToken) }));
operatorRoutes.all('/audit', (c) => route(c, { GET: viewer(listAudit) }));
operatorRoutes.all('/audit/verify', (c) => route(c, { GET: viewer(verifyAudit) }));
operatorRoutes.all('/decisions', (c) =>
  route(c, { GET: viewer(listDecisions), POST: operator(noted(ban)), DELETE: operator(noted(unban)) }),
);
operatorRoutes.all('/feed', (c) => route(c, { GET: viewer(showFeed) }));
operatorRoutes.all('/feed/sync', (c) => route(c, { POST: operator(noted(syncFeed)) }));

type Reply = (c: Context<AppEnv>) => Promise<Response>;

/** A reply and who may have it. */
interface Guarded {
  readonly needs: Role;
  readonly reply: Reply;
}

function viewer(reply: Reply): Guarded {
  return { needs: 'viewer', reply };
}

function operator(reply: Reply): Guarded {
  return { needs: 'operator', reply };
}

function admin(reply: Reply): Guarded {
  return { needs: 'admin', reply };
}

async function route(c: Context<AppEnv>, replies: Readonly<Record<string, Guarded>>): Promise<Response> {
  const guarded = Object.hasOwn(replies, c.req.method) ? replies[c.req.method] : undefined;
  if (!guarded) return problem({ kind: 'method-not-allowed', allow: Object.keys(replies) });
  const { needs, reply } = guarded;
  if (mayAct(c.get('role'), needs)) return reply(c);
  return problem({ kind: 'forbidden', problem: `this needs the role ${needs}; yours is ${c.get('role')}` });
}

/** For replies that change something and write no audit row: using `OPERATOR_TOKEN` leaves one, or does nothing. */
function noted(reply: Reply): Reply {
  return async (c) => {
    if (!c.get('breakGlass')) return reply(c);
    const note = await noteBreakGlass(c.env.DB, useOf(c), Date.now());
    if (!note.ok) return problem(note.failure);
    await anchorAudit(c);
    return reply(c);
  };
}

function useOf(c: Context<AppEnv>): string {
  return `${c.req.method} ${c.req.path}`;
}

async function createBouncer(c: Context<AppEnv>): Promise<Response> {
  return mutation(c, parseNewBouncer, (change, { name, ...key }) =>
    bouncers.createBouncer(change, name, key),
  );
}

async function rotateKey(c: Context<AppEnv>): Promise<Response> {
  const name = nameOf(c);
  const known = await db.findBouncer(c.env.DB, name);
  const clients = known ? await clientsOf(c, known.id) : [];
  return mutation(c, parseRotation, (change, { overlap, ...key }) => {
    return bouncers.rotateKey(change, name, key, overlap, clients);
  });
}

/** With `If-Match` only: a change of what is allowed is made on what is known to be allowed. */
async function changePolicy(c: Context<AppEnv>): Promise<Response> {
  if (c.req.header('if-match') === undefined) {
    const why = 'send the ETag of the bouncer as it was answered';
    return problem({ kind: 'precondition-required', field: 'If-Match', problem: why });
  }
  const known = await db.findBouncer(c.env.DB, nameOf(c));
  const clients = known ? await clientsOf(c, known.id) : [];
  return mutation(c, parsePolicyChange, (change, policy) => {
    return bouncers.changePolicy(change, nameOf(c), policy, clients);
  });
}

async function importKeys(c: Context<AppEnv>): Promise<Response> {
  const from = async (change: Mutation, input: Import): Promise<Result<Answer>> => {
    const answer = await importBouncers(change, input);
    if (!answer.ok || answer.value.replayed) return answer;
    const sightings = await sightingsOf(change.d1, input, change.nowMs);
    await askFeed(c.env, async (feed) => feed.note(sightings));
    return answer;
  };
  return mutation(c, parseImport, from, importLimitBytes);
}

async function revokeVersion(c: Context<AppEnv>): Promise<Response> {
  const number = Number(/^\d{1,9}$/.exec(c.req.param('number') ?? '')?.[0] ?? 0);
  return mutation(c, parseNothing, (change) => bouncers.revokeVersion(change, nameOf(c), number));
}

async function deleteBouncer(c: Context<AppEnv>): Promise<Response> {
  return mutation(c, parseNothing, async (change) => {
    const answer = await bouncers.deleteBouncer(change, nameOf(c));
    const id = answer.ok ? answer.value.body['id'] : undefined;
    if (typeof id === 'number') await askFeed(c.env, async (feed) => feed.forgetBouncer(id));
    return answer;
  });
}

async function listBouncers(c: Context<AppEnv>): Promise<Response> {
  const page = parsePage(c.req.query());
  if (!page.ok) return problem(page.failure);
  const { after, limit } = page.value;
  const rows = await db.listBouncers(c.env.DB, after, limit);
  const ids = rows.map((row) => row.id);
  const clients = await askFeed(c.env, async (feed) => feed.clientsOf(ids));
  const versions = await versionsOf(c.env.DB, ids);
  const described = rows.map((row, index) => {
    const own = versions.filter(({ bouncerId }) => bouncerId === row.id);
    return describeBouncer(row, own, clients[index] ?? []);
  });
  return c.json({ bouncers: described, next: rows.length === limit ? (rows.at(-1)?.id ?? null) : null });
}

async function showBouncer(c: Context<AppEnv>): Promise<Response> {
  const bouncer = await db.findBouncer(c.env.DB, nameOf(c));
  if (!bouncer) return problem({ kind: 'not-found', what: `bouncer ${nameOf(c)}` });
  const { metricsJson, metricsMs } = bouncer;
  const metrics: unknown = metricsJson === null ? null : JSON.parse(metricsJson);
  const versions = await versionsOf(c.env.DB, [bouncer.id]);
  const described = describeBouncer(bouncer, versions, await clientsOf(c, bouncer.id));
  c.header('etag', etagOf(bouncer.revision));
  return c.json({ ...described, metrics, metrics_at: isoTime(metricsMs) });
}

function nameOf(c: Context<AppEnv>): string {
  return c.req.param('name') ?? '';
}

async function clientsOf(c: Context<AppEnv>, id: number): Promise<readonly SeenClient[]> {
  const [clients] = await askFeed(c.env, async (feed) => feed.clientsOf([id]));
  return clients ?? [];
}

async function createToken(c: Context<AppEnv>): Promise<Response> {
  return mutation(c, parseNewToken, tokens.createToken);
}

async function revokeToken(c: Context<AppEnv>): Promise<Response> {
  return mutation(c, parseNothing, (change) => tokens.revokeToken(change, nameOf(c)));
}

async function listTokens(c: Context<AppEnv>): Promise<Response> {
  const page = parsePage(c.req.query());
  if (!page.ok) return problem(page.failure);
  const rows = await tokens.listTokens(c.env.DB, page.value.after, page.value.limit);
  const next = rows.length === page.value.limit ? (rows.at(-1)?.id ?? null) : null;
  return c.json({ operator_tokens: rows.map((row) => tokens.describeToken(row, Date.now())), next });
}

async function listAudit(c: Context<AppEnv>): Promise<Response> {
  const query = parseAuditQuery(c.req.query());
  if (!query.ok) return problem(query.failure);
  const { filter, before, limit } = query.value;
  const rows = await audit.listAudit(c.env.DB, filter, before, limit);
  return c.json({
    audit: rows.map(describeAudit),
    next: rows.length === limit ? (rows.at(-1)?.seq ?? null) : null,
  });
}

async function verifyAudit(c: Context<AppEnv>): Promise<Response> {
  const anchor = await askFeed(c.env, async (feed) => feed.auditAnchor());
  const verdict = await verifyChain(audit.auditPages(c.env.DB), anchor);
  return c.json(verdict, verdict.ok ? 200 : 409);
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

/** Reads a body as a JSON object. */
async function read<T>(
  c: Context<AppEnv>,
  parse: (json: object) => Result<T>,
  limitBytes = bodyLimitBytes,
): Promise<Result<T & { text: string }>> {
  const text = await readText(c.req.raw, limitBytes);
  if (!text.ok) return text;
  const json = text.value === '' ? succeed({}) : parseJson(text.value);
  if (!json.ok) return json;
  if (typeof json.value !== 'object' || json.value === null || Array.isArray(json.value)) {
    return badInput('body', 'not a JSON object');
  }
  const parsed = parse(json.value);
  return parsed.ok ? succeed({ ...parsed.value, text: text.value }) : parsed;
}

/** A mutation from request to answer: its preconditions, its body, and the ETag of what it left. */
async function mutation<T>(
  c: Context<AppEnv>,
  parse: (json: object) => Result<T>,
  change: (mutation: Mutation, input: T) => Promise<Result<Answer>>,
  limitBytes?: number,
): Promise<Response> {
  const input = await read(c, parse, limitBytes);
  if (!input.ok) return problem(input.failure);
  const headers = c.req.raw.headers;
  const expected = readIfMatch(headers.get('if-match'));
  if (!expected.ok) return problem(expected.failure);
  const key = headers.get('idempotency-key');
  const idempotency = await readIdempotency(key, c.req.method, c.req.path, input.value.text);
  if (!idempotency.ok) return problem(idempotency.failure);
  const made = {
    d1: c.env.DB,
    actor: c.get('actor'),
    breakGlass: c.get('breakGlass'),
    nowMs: Date.now(),
    expectedRevision: expected.value,
    idempotency: idempotency.value,
  };
  const answer = await change(made, input.value);
  forgetEpoch();
  if (!answer.ok) return problem(answer.failure);
  await anchorAudit(c);
  const { status, body, secret, replayed } = answer.value;
  if (replayed) c.header('idempotent-replayed', 'true');
  const revision = (body['bouncer'] as { revision?: number } | undefined)?.revision;
  if (revision !== undefined) c.header('etag', etagOf(revision));
  if (status === 204) return c.body(null, 204);
  return c.json({ ...body, ...secret }, status as 200);
}

/** The feed remembers how far the log has come, so that a cut tail is noticed. */
async function anchorAudit(c: Context<AppEnv>): Promise<void> {
  const [head] = await audit.listAudit(c.env.DB, {}, null, 1);
  if (head) await askFeed(c.env, async (feed) => feed.anchorAudit({ seq: head.seq, hash: head.hash }));
}
