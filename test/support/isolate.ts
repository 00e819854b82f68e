// Isolates of their own: the Worker's modules loaded anew, each with a memory that nobody shares.
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import { feed } from './bouncer.ts';

/** A request in it, with some of its bindings replaced. What goes on beside the answer has ended by then. */
export type Isolate = (path: string, init?: RequestInit, bindings?: object) => Promise<Response>;

/** For `beforeAll`: the object's modules are loaded anew as well, and it loses what it was asked before. */
export async function makeIsolates(count: number): Promise<Isolate[]> {
  const isolates: Isolate[] = [];
  for (let index = 0; index < count; index++) {
    vi.resetModules();
    const { serve } = await import('../../src/app.ts');
    isolates.push(async (path, init = {}, bindings = {}) => {
      const ctx = createExecutionContext();
      const request = new Request(`http://edge.example${path}`, init);
      const answer = await serve(request, { ...env, ...bindings } as Env, ctx);
      const body = await answer.text();
      await waitOnExecutionContext(ctx);
      return new Response(body || null, answer);
    });
  }
  vi.resetModules();
  // The first call of an object whose modules are loaded anew fails.
  await feed()
    .status()
    .catch(() => undefined);
  return isolates;
}
