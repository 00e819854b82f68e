// What Cloudflare does and local workerd does not, by what stands in its place: requests as it hands them on, and
// bindings that answer as its own may.
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { serve } from '../src/app.ts';
import { addBouncer, call, operator, operatorToken } from './support/http.ts';
import { startModelEngine, type ModelEngine } from './support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  engine = startModelEngine();
  key = await addBouncer('fw');
});

/** A request of the bouncer through an isolate with these bindings. */
async function poll(query: string, init: RequestInit = {}, bindings: object = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set('x-api-key', key);
  const request = new Request(`http://edge.example/v1/decisions/stream${query}`, { ...init, headers });
  const ctx = createExecutionContext();
  const response = await serve(request, { ...env, ...bindings } as unknown as Env, ctx);
  await waitOnExecutionContext(ctx);
  return response;
}

describe('a client that did not ask for gzip gets none, whatever Cloudflare made of its Accept-Encoding', () => {
  beforeEach(async () => {
    for (let index = 1; index <= 2000; index++) {
      engine.add({ value: `2001:db8::${index.toString(16)}`, untilMs: Date.now() + hour });
    }
    await operator('POST', '/feed/sync?full=true');
  });

  test.each([
    ['nothing is known of it', {}, null],
    ['it sent none', { clientAcceptEncoding: '' }, null],
    ['identity', { clientAcceptEncoding: 'identity' }, null],
    ['gzip', { clientAcceptEncoding: 'gzip' }, 'gzip'],
  ])('%s', async (_, asked, encoding) => {
    const cf = { colo: 'CDG', ...asked };
    const headers = { 'accept-encoding': 'br, gzip' };
    const response = await poll('?startup=true', { headers, cf });
    expect(response.headers.get('content-encoding')).toBe(encoding);
    await response.body?.cancel();
  });
});

test('a rate limit that throws lets the poll through, and the log says so', async () => {
  const logged = vi.spyOn(console, 'error').mockReturnValue();
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '"1"' };
  const body = JSON.stringify({ rate_limit: { per_minute: 60 } });
  await call('/api/v1/bouncers/fw', { method: 'PATCH', headers, body });
  const broken = { limit: () => Promise.reject(new Error('internal error')) };
  const response = await poll('?startup=true', {}, { RATE_LIMIT_60: broken });
  expect(response.status).toBe(200);
  expect(logged.mock.calls.flat()).toEqual(['a rate limit does not answer: internal error']);
});
