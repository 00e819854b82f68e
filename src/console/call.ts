// How a page reads and changes: by the operations of the API, with the same check of its input, the same role and the same
// row in the audit log. Nothing of them is done a second way here.

import { Hono, type Context } from 'hono';
import { operatorApi } from '../api.ts';
import type { AppEnv } from '../env.ts';
import { forgetLatest } from '../feed/client.ts';
import { mount } from '../operations/operation.ts';

const operations = new Hono<AppEnv>();

/** Who calls, by the call. */
const callers = new WeakMap<Request, Context<AppEnv>>();

operations.use(async (c, next) => {
  const caller = callers.get(c.req.raw) as Context<AppEnv>;
  c.set('settings', caller.get('settings'));
  c.set('engine', null);
  c.set('actor', caller.get('actor'));
  c.set('role', caller.get('role'));
  c.set('breakGlass', caller.get('breakGlass'));
  await next();
  // As for the API: the next poll of this isolate sees what was changed.
  if (c.req.method !== 'GET') forgetLatest(Date.now());
});

// What is thrown is answered where every route's is (app.ts).
operations.onError((error) => {
  throw error;
});

mount(
  operations,
  operatorApi.flatMap((group) => group.operations),
);

export interface Refused {
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** The field that is wrong, as the API names it. */
  readonly field: string | undefined;
  /** The whole answer: some operations say more than what was wrong. */
  readonly body: unknown;
}

export type Answered<Body> =
  | { readonly ok: true; readonly status: number; readonly body: Body; readonly replayed: boolean }
  | { readonly ok: false; readonly refused: Refused };

interface Asked {
  readonly query?: Readonly<Record<string, string | number | null | undefined>>;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Calls an operation as the operator of a request. `Body`: what the operation says that it answers. */
export async function call<Body>(
  c: Context<AppEnv>,
  method: string,
  path: string,
  { query = {}, body, headers = {} }: Asked = {},
): Promise<Answered<Body>> {
  const url = new URL(`http://console${path}`);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
  }
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const request = new Request(url, { method, headers, ...sent });
  callers.set(request, c);
  const response = await operations.fetch(request, c.env, c.executionCtx);
  const { status } = response;
  const text = await response.text();
  const answer: unknown = text === '' ? null : JSON.parse(text);
  if (response.ok) {
    const replayed = response.headers.has('idempotent-replayed');
    return { ok: true, status, body: answer as Body, replayed };
  }
  const {
    title = '',
    detail = '',
    errors,
  } = answer as {
    title?: string;
    detail?: string;
    errors?: readonly { readonly field: string }[];
  };
  return { ok: false, refused: { status, title, detail, field: errors?.[0]?.field, body: answer } };
}

/** The headers of a change that a form asks for: the same form, sent twice, does no more than once. */
export function onceBy(form: URLSearchParams): Record<string, string> {
  return { 'idempotency-key': form.get('request') ?? '' };
}

/** The fields of a form that are filled in. */
export function filledIn(form: URLSearchParams, names: readonly string[]): Record<string, string> {
  const fields = names.map((name) => [name, form.get(name)?.trim() ?? ''] as const);
  return Object.fromEntries(fields.filter(([, value]) => value !== ''));
}

/** What a field lists. Null: nothing. */
export function listIn(text: string | null, between: RegExp): string[] | null {
  const parts = (text ?? '').split(between).map((part) => part.trim());
  const given = parts.filter((part) => part !== '');
  return given.length === 0 ? null : given;
}

/** A part of a path. */
export function part(text: string): string {
  return encodeURIComponent(text);
}
