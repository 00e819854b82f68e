// Every expected failure, and the one place that turns a failure into a status and a body.
// LAPI's `{"message"}` under /v1 (Go bouncers built before crowdsec 1.6.3 panic on an error without it),
// RFC 9457 problem+json elsewhere. No failure ever carries a key, a token or a whole digest.

/** What can go wrong, as a value: it also crosses the Durable Object's RPC, where error classes do not survive. */
export type Failure =
  | { readonly kind: 'bad-input'; readonly field: string; readonly problem: string }
  | { readonly kind: 'unprocessable'; readonly field: string; readonly problem: string }
  | { readonly kind: 'precondition-failed'; readonly etag: string }
  | { readonly kind: 'precondition-required'; readonly field: string; readonly problem: string }
  | { readonly kind: 'rate-limited'; readonly waitSeconds: number }
  | { readonly kind: 'too-large'; readonly field: string; readonly limitBytes: number }
  /** A body in another coding than gzip. */
  | { readonly kind: 'unsupported-coding'; readonly field: string; readonly problem: string }
  | { readonly kind: 'forbidden'; readonly problem?: string }
  | { readonly kind: 'unauthorised'; readonly problem: string }
  /** A machine's log-in, refused in LAPI's words. */
  | { readonly kind: 'login-refused'; readonly problem: string }
  /** A nonce that this broker did not make, or one that has expired. A new challenge helps. */
  | { readonly kind: 'bad-nonce' }
  | { readonly kind: 'stale-nonce' }
  /** A signed request that was done before. */
  | { readonly kind: 'replayed' }
  /** A host that sends a wrong generation: a copy of it may have registered. */
  | { readonly kind: 'generation-mismatch'; readonly what: string; readonly generation: number }
  | { readonly kind: 'host-revoked' }
  | { readonly kind: 'not-found'; readonly what: string }
  | { readonly kind: 'method-not-allowed'; readonly allow: readonly string[] }
  | { readonly kind: 'conflict'; readonly field: string; readonly problem: string }
  /** `waitSeconds`: when it may be different. */
  | { readonly kind: 'unavailable'; readonly problem: string; readonly waitSeconds?: number }
  /** A bug or lost storage: the log has the rest under this id. */
  | { readonly kind: 'internal'; readonly requestId: string };

export type Result<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly failure: Failure };

export function succeed<T>(value: T): Result<T> {
  return { ok: true, value };
}

/** A success without a value. */
export const done: Result<void> = { ok: true, value: undefined };

export function fail<T = never>(failure: Failure): Result<T> {
  return { ok: false, failure };
}

export function badInput<T = never>(field: string, problem: string): Result<T> {
  return fail({ kind: 'bad-input', field, problem });
}

export function conflict(field: string, problem: string): Failure {
  return { kind: 'conflict', field, problem };
}

interface Public {
  readonly status: number;
  readonly title: string;
  readonly detail: string;
}

function describe(failure: Failure): Public {
  switch (failure.kind) {
    case 'bad-input':
      return { status: 400, title: 'Bad input', detail: `${failure.field}: ${failure.problem}` };
    case 'unprocessable':
      return { status: 422, title: 'Unprocessable', detail: `${failure.field}: ${failure.problem}` };
    case 'precondition-failed': {
      const detail = `If-Match: it was changed meanwhile; it is ${failure.etag} now`;
      return { status: 412, title: 'Precondition failed', detail };
    }
    case 'precondition-required':
      return { status: 428, title: 'Precondition required', detail: `${failure.field}: ${failure.problem}` };
    case 'rate-limited': {
      const detail = `too many requests; try again in ${failure.waitSeconds} s`;
      return { status: 429, title: 'Too many requests', detail };
    }
    case 'too-large': {
      const detail = `${failure.field}: larger than ${failure.limitBytes} bytes`;
      return { status: 413, title: 'Too large', detail };
    }
    case 'unsupported-coding': {
      const detail = `${failure.field}: ${failure.problem}`;
      return { status: 415, title: 'Unsupported media type', detail };
    }
    case 'login-refused':
      return { status: 401, title: 'Login refused', detail: failure.problem };
    case 'forbidden':
      return { status: 403, title: 'Forbidden', detail: failure.problem ?? 'access forbidden' };
    case 'unauthorised':
      return { status: 401, title: 'Unauthorised', detail: failure.problem };
    case 'bad-nonce':
      return { status: 401, title: 'Bad nonce', detail: 'unknown nonce: request a new challenge' };
    case 'stale-nonce':
      return { status: 401, title: 'Stale nonce', detail: 'the nonce has expired: request a new challenge' };
    case 'replayed':
      return {
        status: 409,
        title: 'Replayed',
        detail: 'this request was done before: request and sign a new challenge',
      };
    case 'generation-mismatch': {
      const detail =
        `this host's ${failure.what} was registered ${failure.generation} times, which is not what the request says: ` +
        'a copy of the host may exist. If it was rebuilt: POST /api/v1/hosts/{name}/recoveries';
      return { status: 409, title: 'Generation mismatch', detail };
    }
    case 'host-revoked':
      return { status: 410, title: 'Host revoked', detail: 'an operator removed this host' };
    case 'not-found':
      return { status: 404, title: 'Not found', detail: `${failure.what} not found` };
    case 'method-not-allowed':
      return { status: 405, title: 'Method not allowed', detail: `use ${failure.allow.join(' or ')}` };
    case 'conflict':
      return { status: 409, title: 'Conflict', detail: `${failure.field}: ${failure.problem}` };
    case 'unavailable':
      return { status: 503, title: 'Unavailable', detail: failure.problem };
    case 'internal': {
      const detail = `internal error; the log has it under request id ${failure.requestId}`;
      return { status: 500, title: 'Internal error', detail };
    }
    default:
      return failure satisfies never;
  }
}

/** After which to try again where nobody knows when it may be different. */
const outageSeconds = 5;

function failureHeaders(failure: Failure): Record<string, string> {
  if (failure.kind === 'method-not-allowed') return { allow: failure.allow.join(', ') };
  if (failure.kind === 'rate-limited') return { 'retry-after': String(failure.waitSeconds) };
  if (failure.kind === 'unavailable') return { 'retry-after': String(failure.waitSeconds ?? outageSeconds) };
  if (failure.kind === 'unsupported-coding') return { 'accept-encoding': 'gzip' };
  if (failure.kind === 'login-refused') return { 'www-authenticate': 'JWT realm=Crowdsec API local' };
  if (failure.kind === 'unauthorised') return { 'www-authenticate': 'Bearer realm="lapidary"' };
  if (failure.kind === 'bad-nonce' || failure.kind === 'stale-nonce') {
    return { 'www-authenticate': 'SSHSIG realm="lapidary"' };
  }
  return {};
}

/** For bouncers and machines: LAPI's error body. */
export function lapiError(failure: Failure): Response {
  const { status, detail } = describe(failure);
  const headers = { 'content-type': 'application/json; charset=utf-8', ...failureHeaders(failure) };
  // gin-jwt's body has the status in it once more.
  const code = failure.kind === 'login-refused' ? { code: status } : {};
  return new Response(JSON.stringify({ ...code, message: detail }), { status, headers });
}

/** For operators and hosts: RFC 9457 problem+json; `errors` names the field where there is one. */
export function problem(failure: Failure): Response {
  const { status, title, detail } = describe(failure);
  const field = fieldOf(failure);
  const errors = field === undefined ? {} : { errors: [{ field, detail }] };
  const body = { type: `urn:lapidary:${failure.kind}`, title, status, detail, ...errors };
  const headers = { 'content-type': 'application/problem+json', ...failureHeaders(failure) };
  return new Response(JSON.stringify(body), { status, headers });
}

/** What in the request has to be another one. */
function fieldOf(failure: Failure): string | undefined {
  if (failure.kind === 'replayed') return 'nonce';
  if (failure.kind === 'generation-mismatch') return 'generation';
  return 'field' in failure ? failure.field : undefined;
}

/**
 * The error at the bottom of an unexpected one. It alone may be logged: drizzle's own message repeats the values of
 * the query, digests among them.
 */
export function causeOf(error: unknown): Error {
  let cause = error;
  while (cause instanceof Error && cause.cause !== undefined) cause = cause.cause;
  return cause instanceof Error ? cause : new Error('unknown');
}
