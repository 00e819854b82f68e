// Every expected failure, and the one place that turns a failure into a status and a body. Routes of LAPI answer its
// `{"message"}` (Go bouncers built before crowdsec 1.6.3 panic on an error without it), all others RFC 9457 problem+json.
// No failure ever carries a key, a token or a whole digest.

/** What can go wrong, as a value: error classes do not survive the Durable Object's RPC. */
export type Failure =
  | {
      /** `unsupported-coding`: a body in another coding than gzip. */
      readonly kind:
        'bad-input' | 'unprocessable' | 'precondition-required' | 'unsupported-coding' | 'conflict';
      readonly field: string;
      readonly problem: string;
    }
  | { readonly kind: 'precondition-failed'; readonly etag: string }
  | { readonly kind: 'rate-limited'; readonly waitSeconds: number }
  | { readonly kind: 'too-large'; readonly field: string; readonly limitBytes: number }
  | { readonly kind: 'forbidden'; readonly problem?: string }
  /** `login-refused`: a machine's log-in, in LAPI's words. */
  | { readonly kind: 'unauthorised' | 'login-refused'; readonly problem: string }
  /** A bouncer's key that opens nothing, or none. */
  | { readonly kind: 'key-refused' }
  /** `bad-nonce`: not of a challenge of ours. `replayed`: a signed request that was answered before. */
  | { readonly kind: 'bad-nonce' | 'stale-nonce' | 'replayed' | 'host-revoked' }
  /** The host's counter of registrations differs from ours: a copy of the host may have registered. */
  | { readonly kind: 'generation-mismatch'; readonly what: string; readonly generation: number }
  | { readonly kind: 'not-found'; readonly what: string }
  | { readonly kind: 'method-not-allowed'; readonly allow: readonly string[] }
  /** `waitSeconds`: after which trying again makes sense. */
  | { readonly kind: 'unavailable'; readonly problem: string; readonly waitSeconds?: number }
  /** A bug or lost storage. The log has the details under this id. */
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

const statuses: Readonly<Record<Failure['kind'], readonly [status: number, title: string]>> = {
  'bad-input': [400, 'Bad input'],
  unauthorised: [401, 'Unauthorised'],
  'login-refused': [401, 'Login refused'],
  'key-refused': [401, 'Unauthorised'],
  'bad-nonce': [401, 'Bad nonce'],
  'stale-nonce': [401, 'Stale nonce'],
  forbidden: [403, 'Forbidden'],
  'not-found': [404, 'Not found'],
  'method-not-allowed': [405, 'Method not allowed'],
  conflict: [409, 'Conflict'],
  replayed: [409, 'Replayed'],
  'generation-mismatch': [409, 'Generation mismatch'],
  'host-revoked': [410, 'Host revoked'],
  'precondition-failed': [412, 'Precondition failed'],
  'too-large': [413, 'Too large'],
  'unsupported-coding': [415, 'Unsupported media type'],
  unprocessable: [422, 'Unprocessable'],
  'precondition-required': [428, 'Precondition required'],
  'rate-limited': [429, 'Too many requests'],
  internal: [500, 'Internal error'],
  unavailable: [503, 'Unavailable'],
};

/** What was wrong, where, and what to do next. */
function detailOf(failure: Failure): string {
  switch (failure.kind) {
    case 'bad-input':
    case 'unprocessable':
    case 'precondition-required':
    case 'unsupported-coding':
    case 'conflict':
      return `${failure.field}: ${failure.problem}`;
    case 'login-refused':
    case 'unauthorised':
    case 'unavailable':
      return failure.problem;
    case 'forbidden':
      return failure.problem ?? 'access forbidden';
    case 'key-refused':
      return 'no valid key: send the key of a bouncer as the password of HTTP Basic, with any user name';
    case 'precondition-failed':
      return `If-Match: it was changed meanwhile; it is ${failure.etag} now`;
    case 'rate-limited':
      return `too many requests; try again in ${failure.waitSeconds} s`;
    case 'too-large':
      return `${failure.field}: larger than ${failure.limitBytes} bytes`;
    case 'bad-nonce':
      return 'unknown nonce: request a new challenge';
    case 'stale-nonce':
      return 'the nonce has expired: request a new challenge';
    case 'replayed':
      return 'this request was answered before: request a new challenge';
    case 'generation-mismatch':
      return (
        `this host's ${failure.what} was registered ${failure.generation} times, which is not what the request says: ` +
        'a copy of the host may exist. If it was rebuilt: POST /api/v1/hosts/{name}/recoveries'
      );
    case 'host-revoked':
      return 'an operator removed this host';
    case 'not-found':
      return `${failure.what} not found`;
    case 'method-not-allowed':
      return `use ${failure.allow.join(' or ')}`;
    case 'internal':
      return `internal error; the log has it under request id ${failure.requestId}`;
    default:
      return failure satisfies never;
  }
}

/** `Retry-After` of an outage of unknown length. */
const outageSeconds = 5;

function failureHeaders(failure: Failure): Record<string, string> {
  if (failure.kind === 'method-not-allowed') return { allow: failure.allow.join(', ') };
  if (failure.kind === 'rate-limited') return { 'retry-after': String(failure.waitSeconds) };
  if (failure.kind === 'unavailable') return { 'retry-after': String(failure.waitSeconds ?? outageSeconds) };
  if (failure.kind === 'unsupported-coding') return { 'accept-encoding': 'gzip' };
  if (failure.kind === 'login-refused') return { 'www-authenticate': 'JWT realm=Crowdsec API local' };
  if (failure.kind === 'unauthorised') return { 'www-authenticate': 'Bearer realm="lapidary"' };
  // Some appliances send a password only once they are asked for it.
  if (failure.kind === 'key-refused') return { 'www-authenticate': 'Basic realm="lapidary"' };
  if (failure.kind === 'bad-nonce' || failure.kind === 'stale-nonce') {
    return { 'www-authenticate': 'SSHSIG realm="lapidary"' };
  }
  return {};
}

/** For bouncers and machines: LAPI's error body. */
export function lapiError(failure: Failure): Response {
  const [status] = statuses[failure.kind];
  const headers = { 'content-type': 'application/json; charset=utf-8', ...failureHeaders(failure) };
  // gin-jwt repeats the status in the body.
  const code = failure.kind === 'login-refused' ? { code: status } : {};
  return new Response(JSON.stringify({ ...code, message: detailOf(failure) }), { status, headers });
}

/** A failure in words. `field`: the part of the request that is wrong, where there is one. */
export function describeFailure(failure: Failure) {
  const [status, title] = statuses[failure.kind];
  return { status, title, detail: detailOf(failure), field: fieldOf(failure) };
}

/** For operators and hosts: RFC 9457 problem+json; `errors` names the field where there is one. */
export function problem(failure: Failure): Response {
  const { status, title, detail, field } = describeFailure(failure);
  const errors = field === undefined ? {} : { errors: [{ field, detail }] };
  const body = { type: `urn:lapidary:${failure.kind}`, title, status, detail, ...errors };
  const headers = { 'content-type': 'application/problem+json', ...failureHeaders(failure) };
  return new Response(JSON.stringify(body), { status, headers });
}

/** The part of the request that is wrong. */
function fieldOf(failure: Failure): string | undefined {
  if (failure.kind === 'replayed') return 'nonce';
  if (failure.kind === 'generation-mismatch') return 'generation';
  return 'field' in failure ? failure.field : undefined;
}

/** The innermost cause of an error. Log only this: drizzle's own message repeats the query's values, digests among them. */
export function causeOf(error: unknown): Error {
  let cause = error;
  while (cause instanceof Error && cause.cause !== undefined) cause = cause.cause;
  return cause instanceof Error ? cause : new Error('unknown');
}
