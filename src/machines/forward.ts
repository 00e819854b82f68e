// One request of a machine to the engine, and the engine's answer back: streamed both ways, by lists of what crosses.
// A mistake here shows the engine what the client claims to be (an address of its choice), or tells a log processor
// that its account is refused when only the way is blocked: that one gives up, where it would have tried again.

import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { EngineSettings } from '../config/engines.ts';
import { plainBody, readBytes } from '../http/body.ts';
import { foreignAnswer } from '../http/foreign.ts';
import { parseNetwork } from '../formats/ip.ts';

export interface Passage {
  /** From `/v1` on, with its query. */
  readonly target: string;
  /** Where the client is: the only `X-Forwarded-For` that the engine gets. */
  readonly address: string;
  /** How much its body may be, inflated. */
  readonly limitBytes: number;
  /** The body, where it was read before. */
  readonly body?: Uint8Array;
}

const requestHeaders = ['accept', 'authorization', 'content-type', 'user-agent'];
const responseHeaders = ['allow', 'content-type', 'retry-after', 'www-authenticate'];
/** Bodies up to here are read before they are sent on, with their length; longer ones stream. */
const shortBytes = 256 * 1024;

/**
 * The engine's answer, whatever its status; `unavailable` when there is none of its own. A redirect is none: it would
 * be a login page of whatever stands before the engine, and so is every HTML.
 */
export async function relay(
  request: Request,
  upstream: EngineSettings,
  passage: Passage,
): Promise<Result<Response>> {
  const silence = watch(upstream.timeoutMs);
  const body = await bodyOf(request, passage, silence);
  if (!body.ok) return body;
  silence.heard();
  try {
    const response = await fetch(upstream.url + passage.target, {
      method: request.method,
      redirect: 'manual',
      cache: 'no-store',
      headers: headersFor(request.headers, upstream, passage.address),
      body: body.value.content,
      signal: silence.signal,
    });
    // Agents try again after a 503, and after no other refusal of these.
    const foreign = foreignAnswer(response);
    // An engine that got half of a body says what it makes of that; the client is told what was wrong.
    const refused = response.ok ? null : body.value.refused();
    if (foreign !== undefined || refused) {
      silence.end();
      await response.body?.cancel();
      return refused ? fail(refused) : unavailable(foreign ?? '');
    }
    return succeed(await passedBack(request.method, response, silence));
  } catch {
    silence.end();
    const refused = body.value.refused();
    if (refused) return fail(refused);
    if (silence.signal.aborted)
      return unavailable(`the engine was silent for ${upstream.timeoutMs / 1000} s`);
    return unavailable('the engine is out of reach');
  }
}

function headersFor(from: Headers, upstream: EngineSettings, address: string): Headers {
  const headers = new Headers(upstream.headers);
  for (const name of requestHeaders) {
    const value = from.get(name);
    if (value !== null) headers.set(name, value);
  }
  headers.delete('x-forwarded-for');
  if (parseNetwork(address)) headers.set('x-forwarded-for', address);
  return headers;
}

interface Outgoing {
  readonly content: Uint8Array | ReadableStream<Uint8Array> | null;
  /** What was wrong with the client's body, once the engine could not be sent all of it. */
  refused(): Failure | null;
}

async function bodyOf(
  request: Request,
  { limitBytes, body: read }: Passage,
  silence: Silence,
): Promise<Result<Outgoing>> {
  const whole = (content: Uint8Array | null): Result<Outgoing> => succeed({ content, refused: () => null });
  if (read) return whole(read);
  // `fetch` refuses one with these, also of no bytes, and LAPI reads none.
  if (request.method === 'GET' || request.method === 'HEAD') return whole(null);
  // Engines before 1.7 read no gzip, and none needs it.
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
    // Workerd ends a body that fails as if it were whole: the engine is told by a cut.
    silence.abort();
    source.cancel(error).catch(() => undefined);
    throw error;
  }
  const content = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const part = await source.read().catch((error: unknown) => refuse(broken, error));
      silence.heard();
      if (part.done) return controller.close();
      size += part.value.length;
      if (size > limitBytes) return refuse(tooLarge, new Error('too large'));
      controller.enqueue(part.value);
    },
    cancel: (reason) => source.cancel(reason),
  });
  return succeed({ content, refused: () => wrong });
}

/** As LAPI has said it since 1.7.8, with 400. */
const tooLarge: Failure = { kind: 'bad-input', field: 'http', problem: 'request body too large' };

async function passedBack(method: string, response: Response, silence: Silence): Promise<Response> {
  const headers = new Headers({ 'cache-control': 'no-store, no-transform' });
  for (const name of responseHeaders) {
    const value = response.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  const { status } = response;
  if (!response.body || method === 'HEAD' || status === 204) {
    silence.end();
    return new Response(null, { status, headers });
  }
  const length = response.headers.get('content-length');
  if (length !== null && Number(length) <= shortBytes && !response.headers.has('content-encoding')) {
    silence.heard();
    const bytes = await response.arrayBuffer();
    silence.end();
    return new Response(bytes, { status, headers });
  }
  silence.end();
  return new Response(listened(response.body, silence), { status, headers });
}

/** The timer runs while a part is waited for, and not while the machine is: its answer may wait for the feed. */
function listened(body: ReadableStream<Uint8Array>, silence: Silence): ReadableStream<Uint8Array> {
  const source = body.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        silence.heard();
        const { done, value } = await source.read().finally(silence.end);
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => source.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}

interface Silence {
  readonly signal: AbortSignal;
  heard(): void;
  end(): void;
  /** Aborts now. */
  abort(): void;
}

/** Aborts when nothing was heard for a while, in either direction. Runs from a `heard` to the next, or to `end`. */
function watch(timeoutMs: number): Silence {
  const controller = new AbortController();
  let stop = (): void => undefined;
  return {
    signal: controller.signal,
    heard() {
      stop();
      const timer = setTimeout(() => controller.abort(), timeoutMs);
      stop = () => clearTimeout(timer);
    },
    end: () => stop(),
    abort: () => controller.abort(),
  };
}

function unavailable(problem: string): Result<never> {
  return fail({ kind: 'unavailable', problem });
}
