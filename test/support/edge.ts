// What many suites begin with, and a request to the Worker with bindings of its own.
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { serve } from '../../src/app.ts';
import { addBouncer } from './http.ts';
import { startModelEngine, type ModelEngine } from './model-engine.ts';

/** An engine, and the key of the bouncer `fw`. */
export async function startEdge(): Promise<{ engine: ModelEngine; key: string }> {
  return { engine: startModelEngine(), key: await addBouncer('fw') };
}

/** The answer of an isolate with these bindings, once all is done that goes on behind it. One object is one isolate's. */
export async function serveWith(bindings: object, path: string, init: RequestInit = {}): Promise<Response> {
  const ctx = createExecutionContext();
  const request = new Request(`http://edge.example${path}`, init);
  const response = await serve(request, bindings as Env, ctx);
  await waitOnExecutionContext(ctx);
  return response;
}
