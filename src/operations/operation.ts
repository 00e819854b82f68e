// The operations of Lapidary's own HTTP API. Each is defined once, as a value: where it is, who may call it, what it takes
// and what it answers. Its route, the check of its input and its entry in /openapi.json are made of that value.

import type { Context, Hono } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { badInput, problem, succeed, type Result } from '../http/failure.ts';
import { parseJson, readText } from '../http/body.ts';
import { sha256Hex } from '../crypto/secret.ts';
import { mayAct, type Role } from '../config/roles.ts';
import { countRefusal } from '../feed/client.ts';
import { check } from './fields.ts';
import { etagOf, type Answer, type Mutation } from './mutate.ts';

/** `body`: of one in JSON. `texts`: the media types of one that is a text. */
export interface OperationAnswer {
  readonly description: string;
  readonly body?: z.ZodType;
  readonly texts?: readonly string[];
}

export interface Operation {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** As OpenAPI writes it: `/bouncers/{name}/rotate`. */
  readonly path: string;
  /** The least role that may call it; null: it authenticates its callers itself. */
  readonly needs: Role | null;
  readonly summary: string;
  readonly description?: string;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  /** Its answers of success, by status. */
  readonly answers: Readonly<Record<number, OperationAnswer>>;
  /** Statuses of its refusals, besides those that follow from its other fields (openapi.ts). */
  readonly refusals?: readonly number[];
  /** It takes `Idempotency-Key`, and `If-Match` where that is given. */
  readonly repeatable?: boolean;
  readonly ifMatch?: 'optional' | 'required';
  readonly reply: (c: Context<AppEnv>) => Promise<Response>;
}

type Definition<Query, Body> = Omit<Operation, 'query' | 'body' | 'reply'> & {
  readonly query?: z.ZodType<Query>;
  readonly body?: z.ZodType<Body>;
  /** Of the body after decompression. */
  readonly bodyLimitBytes?: number;
};

/** The checked input of a request. `text`: its body as it came. */
export interface Input<Query, Body> {
  readonly query: Query;
  readonly body: Body;
  readonly text: string;
}

/** An operation that makes its own response. */
export function operation<Query = unknown, Body = unknown>(
  definition: Definition<Query, Body> & {
    readonly reply: (c: Context<AppEnv>, input: Input<Query, Body>) => Promise<Response>;
  },
): Operation {
  const { reply, ifMatch } = definition;
  return {
    ...definition,
    reply: async (c) => {
      if (ifMatch === 'required' && c.req.header('if-match') === undefined) {
        const why = 'send the ETag as it was answered';
        return problem({ kind: 'precondition-required', field: 'If-Match', problem: why });
      }
      const input = await readInput(c, definition);
      return input.ok ? reply(c, input.value) : problem(input.failure);
    },
  };
}

/** An operation that changes D1 (mutate.ts): repeatable, audited, answered with the ETag of what it left. */
export function mutation<Query = unknown, Body = unknown>(
  definition: Definition<Query, Body> & {
    readonly change: (mutation: Mutation, body: Body, c: Context<AppEnv>) => Promise<Result<Answer>>;
  },
): Operation {
  const { change } = definition;
  return operation({
    ...definition,
    repeatable: true,
    reply: async (c, { body, text }) => {
      const asked = await mutationOf(c, text);
      if (!asked.ok) return problem(asked.failure);
      const answer = await change(asked.value, body, c);
      return answer.ok ? written(c, answer.value) : problem(answer.failure);
    },
  });
}

/** The caller, and what the headers `If-Match` and `Idempotency-Key` say. */
export async function mutationOf(c: Context<AppEnv>, text: string): Promise<Result<Mutation>> {
  const { headers } = c.req.raw;
  const expected = readIfMatch(headers.get('if-match'));
  if (!expected.ok) return expected;
  const asks = `${c.req.method} ${c.req.path}\n${text}`;
  const idempotency = await readIdempotency(headers.get('idempotency-key'), asks);
  if (!idempotency.ok) return idempotency;
  return succeed({
    env: c.env,
    actor: c.get('actor'),
    breakGlass: c.get('breakGlass'),
    nowMs: Date.now(),
    expectedRevision: expected.value,
    idempotency: idempotency.value,
  });
}

/** What `If-Match` may be. */
export const etagRule = /^(?:\*|(?:W\/)?"(\d{1,15})")$/;

/**
 * The revision of an `If-Match` (`"7"`); null without one, or for `*`. Against RFC 9110 `W/"7"` counts as well: proxies
 * that compress make our strong ETags weak on the way.
 */
function readIfMatch(header: string | null): Result<number | null> {
  if (header === null || header === '*') return succeed(null);
  const revision = etagRule.exec(header)?.[1];
  if (revision === undefined) return badInput('If-Match', 'must be an ETag as it was answered, or *');
  return succeed(Number(revision));
}

/** What `Idempotency-Key` may be. */
export const idempotencyKeyRule = /^[\x21-\x7e]{1,255}$/;

/** The `Idempotency-Key` of a request, with a hash of what it asks for; null without one. */
async function readIdempotency(
  header: string | null,
  asks: string,
): Promise<Result<Mutation['idempotency']>> {
  if (header === null) return succeed(null);
  if (!idempotencyKeyRule.test(header)) {
    return badInput('Idempotency-Key', 'must be 1 to 255 printable characters');
  }
  return succeed({ key: header, requestHash: await sha256Hex(asks) });
}

function written(c: Context<AppEnv>, { status, body, secret, replayed }: Answer): Response {
  if (replayed) c.header('idempotent-replayed', 'true');
  const revision = revisionIn(body);
  if (revision !== undefined) c.header('etag', etagOf(revision));
  if (status === 204) return c.body(null, 204);
  return c.json({ ...body, ...secret }, status as 200);
}

/** The revision of the thing that an answer describes. */
function revisionIn(body: Answer['body']): number | undefined {
  const described = Object.values(body) as (null | { readonly revision?: unknown })[];
  return described.map((each) => each?.revision).find((revision) => typeof revision === 'number');
}

const bodyLimitBytes = 64 * 1024;

async function readInput<Query, Body>(
  c: Context<AppEnv>,
  definition: Definition<Query, Body>,
): Promise<Result<Input<Query, Body>>> {
  const query = definition.query ? check(definition.query, c.req.query(), 'parameter') : succeed({} as Query);
  if (!query.ok) return query;
  if (!definition.body) return succeed({ query: query.value, body: {} as Body, text: '' });
  const text = await readText(c.req.raw, definition.bodyLimitBytes ?? bodyLimitBytes);
  if (!text.ok) return text;
  const json = text.value === '' ? succeed({}) : parseJson(text.value);
  if (!json.ok) return json;
  if (typeof json.value !== 'object' || json.value === null || Array.isArray(json.value)) {
    return badInput('body', 'not a JSON object');
  }
  const body = check(definition.body, json.value);
  return body.ok ? succeed({ query: query.value, body: body.value, text: text.value }) : body;
}

/** Mounts operations as routes. */
export function mount(routes: Hono<AppEnv>, operations: readonly Operation[]): void {
  for (const each of operations) {
    routes.on(each.method, routePath(each.path), (c) => guarded(c, each));
  }
  // After all of them: `/bouncers/import` has one method, and a bouncer of that name has others.
  for (const [path, there] of Map.groupBy(operations, (each) => each.path)) {
    const allow = there.map(({ method }) => method);
    routes.all(routePath(path), () => problem({ kind: 'method-not-allowed', allow }));
  }
}

async function guarded(c: Context<AppEnv>, { needs, reply }: Operation): Promise<Response> {
  if (needs === null || mayAct(c.get('role'), needs)) return reply(c);
  countRefusal('operator', 'role');
  return problem({ kind: 'forbidden', problem: `this needs the role ${needs}; yours is ${c.get('role')}` });
}

function routePath(path: string): string {
  return path.replace(/\{(\w+)\}/g, ':$1');
}
