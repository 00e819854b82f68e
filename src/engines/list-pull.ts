// The request for a list: with a condition, so that an unchanged one costs nothing, and bounded in time, bytes, lines and
// redirects, since its server is a stranger's. Of an answer that failed nothing may be used: the caller throws away what
// was read.

import type { ListSettings } from '../config/upstreams.ts';
import type { Network } from '../formats/ip.ts';
import type { Validators } from '../mirror/progress.ts';
import { createLines, readLine } from './list-text.ts';
import { createDeadline, ownUserAgent, readBody, type Enter } from './upstream.ts';

/** What came of a pull. `whole`: the reader has all of it. `same`: it is what it was. */
export type Answer =
  /** `isMeasured`: it shows if it was cut. Where its server names no length, the end may only look like one. */
  | { readonly kind: 'whole'; readonly validators: Validators; readonly isMeasured: boolean }
  | { readonly kind: 'same' }
  /** It says that there is nothing for us, which may mean that nothing is new. */
  | { readonly kind: 'nothing' }
  | Failed;

/** `problem`: what the source does. `waitMs`: how long it wants to be left alone; null: it does not say. */
export interface Failed {
  readonly kind: 'failed';
  readonly problem: string;
  readonly waitMs: number | null;
  /** It does not accept our key: an operator has to act. */
  readonly refused: boolean;
}

/** What failed and nothing else, unless it says so. */
export function failed(problem: string, more: Partial<Pick<Failed, 'waitMs' | 'refused'>> = {}): Failed {
  return { kind: 'failed', problem, waitMs: null, refused: false, ...more };
}

/** Takes what a list says. */
export interface ListReader {
  take(network: Network): void;
  /** A line that can't be read. */
  passOver(problem: string): void;
}

/** Comments and columns included: a million of the longest addresses are 40 MB. */
const mostBytes = 64 * 1024 * 1024;
const mostRedirects = 3;
const longestValidator = 512;

/** What a stranger's server does that no list does. */
class Refused extends Error {}

/** `validators`: those of the newest whole answer, if it is still known in full. */
export async function pullList(
  list: ListSettings & { readonly enter: Enter },
  validators: Validators | null,
  reader: ListReader,
): Promise<Answer> {
  const begins = await list.enter();
  const deadline = createDeadline(list.timeoutMs, list.timeoutMs);
  try {
    const response = await begins(ask(list, validators ?? noValidators, deadline.signal));
    const { status, headers, body } = response;
    const isPage = /^(text\/html|application\/xhtml)\b/i.test(headers.get('content-type') ?? '');
    if (status !== 200 || isPage) {
      await body?.cancel();
      if (status === 304 && validators) return { kind: 'same' };
      const problem = status === 200 ? 'is a web page' : `answers with status ${status}`;
      return failed(problem, { waitMs: retryAfterMs(headers, Date.now()) });
    }
    if (body) await readLines(list, body, reader, (bytes) => deadline.received(bytes));
    return { kind: 'whole', validators: validatorsOf(headers), isMeasured: headers.has('content-length') };
  } catch (error) {
    return failed(describe(error, deadline.signal));
  } finally {
    deadline.stop();
  }
}

/** Follows redirects, since many lists have moved from http to https. Headers may be secret: they go to one host alone. */
async function ask(
  { url: first, headers: own }: ListSettings,
  { etag, modified }: Validators,
  signal: AbortSignal,
): Promise<Response> {
  const condition = {
    ...(etag === null ? {} : { 'if-none-match': etag }),
    ...(modified === null ? {} : { 'if-modified-since': modified }),
  };
  const standard = { 'user-agent': ownUserAgent, accept: 'text/plain, text/csv, */*', ...condition };
  for (let url = new URL(first), redirects = 0; ; redirects++) {
    const headers = url.origin === new URL(first).origin ? { ...standard, ...own } : standard;
    const response = await fetch(url.href, { redirect: 'manual', cache: 'no-store', headers, signal });
    const to = response.headers.get('location');
    if (response.status === 304 || response.status < 300 || response.status > 399 || to === null) {
      return response;
    }
    await response.body?.cancel();
    if (redirects === mostRedirects) throw new Refused(`redirects more than ${mostRedirects} times`);
    url = redirected(url, to);
  }
}

/** Never from https to http: anybody on the way could then ban whom they like. */
function redirected(from: URL, to: string): URL {
  const url = URL.canParse(to, from.href) ? new URL(to, from.href) : null;
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && from.protocol === 'http:')) return url;
  throw new Refused('redirects to an address that is not https');
}

async function readLines(
  { allowReserved, maxDecisions }: ListSettings,
  body: ReadableStream<Uint8Array>,
  { take, passOver }: ListReader,
  onChunk: (bytes: number) => void,
): Promise<void> {
  let bytes = 0;
  let good = 0;
  let bad = 0;
  const lines = createLines((text, number) => {
    const line = readLine(text, allowReserved);
    if (typeof line === 'object') take(line);
    if (line === 'unreadable') passOver(`line ${number} begins with no address`);
    if (line === 'too-wide') passOver(`line ${number} is wider than a /8, or than a /16 of IPv6`);
    if (line === 'reserved' || typeof line === 'object') good++;
    else if (line !== 'nothing') bad++;
    if (good > maxDecisions) throw new Refused(`has more than ${maxDecisions} addresses (max_decisions)`);
  });
  await readBody(body, lines.push, (count) => {
    bytes += count;
    if (bytes > mostBytes) throw new Refused(`is larger than ${mostBytes / 1024 / 1024} MB`);
    onChunk(count);
  });
  lines.end();
  if (bad > good) throw new Refused('has more lines that begin with no address than others');
}

export const noValidators: Validators = { etag: null, modified: null };

function validatorsOf(headers: Headers): Validators {
  const short = (name: string): string | null => {
    const text = headers.get(name);
    return text !== null && text.length <= longestValidator ? text : null;
  };
  return { etag: short('etag'), modified: short('last-modified') };
}

/** `Retry-After`: seconds or a date (RFC 9110 §10.2.3). */
export function retryAfterMs(headers: Headers, nowMs: number): number | null {
  const text = headers.get('retry-after')?.trim() ?? '';
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - nowMs);
}

function describe(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return String(signal.reason);
  return error instanceof Refused ? error.message : 'is out of reach';
}
