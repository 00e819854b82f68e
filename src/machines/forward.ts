// Forwards one request of a machine to the engine, and the engine's answer back. Both bodies stream; only listed headers
// cross. A mistake here shows the engine an address of the client's choice, or tells a log processor that its account is
// refused when the engine is merely out of reach: it gives up then, where it would have tried again.

import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { EngineSettings } from '../config/engines.ts';
import { plainBody, readBytes } from '../http/body.ts';
import { intermediaryAnswer } from '../http/intermediary.ts';
import { parseNetwork } from '../formats/ip.ts';
import { createIdleTimeout, type IdleTimeout } from '../runtime/wait.ts';

export interface ForwardRequest {
  /** Path from `/v1` on, with the query. */
  readonly target: string;
  /** The client's address: the only `X-Forwarded-For` that the engine gets. */
  readonly address: string;
  /** The longest body, after decompression. */
  readonly limitBytes: number;
  /** The body, where it was read before. */
  readonly body?: Uint8Array;
}

const requestHeaders = ['accept', 'authorization', 'content-type', 'user-agent'];
const responseHeaders = ['allow', 'content-type', 'retry-after', 'www-authenticate'];
/** Shorter bodies are read whole and sent with their length; longer ones stream. */
const shortBytes = 256 * 1024;

/**
 * The engine's answer, whatever its status. `unavailable` when the engine gave none. A redirect or an HTML page comes
 * from whatever stands before the engine, so neither is an answer.
 */
export async function forward(
  request: Request,
  engine: EngineSettings,
  asked: ForwardRequest,
): Promise<Result<Response>> {
  // Of both directions: the engine may be silent while it still takes in a body.
  const idle = createIdleTimeout(engine.timeoutMs);
  const body = await bodyOf(request, asked, idle);
  if (!body.ok) return body;
  idle.reset();
  try {
    const response = await fetch(engine.url + asked.target, {
      method: request.method,
      redirect: 'manual',
      cache: 'no-store',
      headers: headersFor(request.headers, engine, asked.address),
      body: body.value.content,
      signal: idle.signal,
    });
    // Agents try again after a 503, and after no other refusal of these.
    const foreign = intermediaryAnswer(response);
    // An engine that got half of a body complains about that half. The client learns what was wrong with its body.
    const refused = response.ok ? null : body.value.refused();
    if (foreign !== undefined || refused) {
      idle.stop();
      await response.body?.cancel();
      return refused ? fail(refused) : unavailable(foreign ?? '');
    }
    return succeed(await answerFrom(request.method, response, idle));
  } catch {
    idle.stop();
    const refused = body.value.refused();
    if (refused) return fail(refused);
    const silent = `the engine was silent for ${engine.timeoutMs / 1000} s`;
    return unavailable(idle.signal.aborted ? silent : 'the engine is out of reach');
  }
}

function headersFor(from: Headers, engine: EngineSettings, address: string): Headers {
  const headers = new Headers(engine.headers);
  copyHeaders(from, headers, requestHeaders);
  headers.delete('x-forwarded-for');
  if (parseNetwork(address)) headers.set('x-forwarded-for', address);
  return headers;
}

function copyHeaders(from: Headers, to: Headers, names: readonly string[]): void {
  for (const name of names) {
    const value = from.get(name);
    if (value !== null) to.set(name, value);
  }
}

interface Outgoing {
  readonly content: Uint8Array | ReadableStream<Uint8Array> | null;
  /** What was wrong with the client's body. Null until the engine could not be sent all of it. */
  refused(): Failure | null;
}

async function bodyOf(
  request: Request,
  { limitBytes, body: read }: ForwardRequest,
  idle: IdleTimeout,
): Promise<Result<Outgoing>> {
  const whole = (content: Uint8Array | null): Result<Outgoing> => succeed({ content, refused: () => null });
  if (read) return whole(read);
  // `fetch` refuses a body with these methods, even an empty one, and LAPI reads none.
  if (request.method === 'GET' || request.method === 'HEAD') return whole(null);
  // Decompressed here: engines before 1.7 read no gzip.
  const plain = plainBody(request);
  if (!plain.ok) return plain;
  if (!plain.value) return whole(null);
  const { stream, packed, broken } = plain.value;
  const length = Number(request.headers.get('content-length') ?? Infinity);
  if (!packed && length <= shortBytes) {
    const bytes = await readBytes(request, limitBytes);
    return bytes.ok ? whole(bytes.value) : bytes;
  }
  const source = stream.getReader();
  let size = 0;
  let wrong: Failure | null = null;
  function refuse(failure: Failure, error: unknown): never {
    wrong = failure;
    // Workerd ends a body that fails as if it were whole. Only an abort tells the engine that it is not.
    idle.abort();
    source.cancel(error).catch(() => undefined);
    throw error;
  }
  const content = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const part = await source.read().catch((error: unknown) => refuse(broken, error));
      idle.reset();
      if (part.done) return controller.close();
      size += part.value.length;
      if (size > limitBytes) return refuse(tooLarge, new Error('too large'));
      controller.enqueue(part.value);
    },
    cancel: (reason) => source.cancel(reason),
  });
  return succeed({ content, refused: () => wrong });
}

/** LAPI's words and status since 1.7.8. */
const tooLarge: Failure = { kind: 'bad-input', field: 'http', problem: 'request body too large' };

async function answerFrom(method: string, response: Response, idle: IdleTimeout): Promise<Response> {
  const headers = new Headers({ 'cache-control': 'no-store, no-transform' });
  copyHeaders(response.headers, headers, responseHeaders);
  const { status } = response;
  if (!response.body || method === 'HEAD' || status === 204) {
    idle.stop();
    return new Response(null, { status, headers });
  }
  const length = response.headers.get('content-length');
  if (length !== null && Number(length) <= shortBytes && !response.headers.has('content-encoding')) {
    idle.reset();
    const bytes = await response.arrayBuffer();
    idle.stop();
    return new Response(bytes, { status, headers });
  }
  idle.stop();
  return new Response(withTimeout(response.body, idle), { status, headers });
}

/** The timeout runs while the engine is waited for, not while the client is: its answer may wait for the feed. */
function withTimeout(body: ReadableStream<Uint8Array>, idle: IdleTimeout): ReadableStream<Uint8Array> {
  const source = body.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        idle.reset();
        const { done, value } = await source.read().finally(idle.stop);
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => source.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}

function unavailable(problem: string): Result<never> {
  return fail({ kind: 'unavailable', problem });
}
