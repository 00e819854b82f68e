// Request bodies: read with a limit that holds for what gzip unfolds to, so a small bomb stays small.

import { concat } from '../formats/bytes.ts';
import { badInput, fail, succeed, type Failure, type Result } from './failure.ts';
import { inflate } from './inflate.ts';

/** A body as JSON, at most `limitBytes` after decompression. */
export async function readJson(request: Request, limitBytes: number): Promise<Result<unknown>> {
  const text = await readText(request, limitBytes);
  return text.ok ? parseJson(text.value) : text;
}

/** A body as text, at most `limitBytes` after decompression. */
export async function readText(request: Request, limitBytes: number): Promise<Result<string>> {
  const bytes = await readBytes(request, limitBytes);
  if (!bytes.ok) return bytes;
  try {
    return succeed(new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes.value));
  } catch {
    return badInput('body', 'not UTF-8');
  }
}

export function parseJson(text: string): Result<unknown> {
  try {
    return succeed(JSON.parse(text) as unknown);
  } catch {
    return badInput('body', 'not JSON');
  }
}

/** A request's body, unfolded as it is read. */
export interface PlainBody {
  readonly stream: ReadableStream<Uint8Array>;
  readonly packed: boolean;
  /** What it means that it can't be read to its end. */
  readonly broken: Failure;
}

/** null: there is none. */
export function plainBody({ body, headers }: Request): Result<PlainBody | null> {
  if (!body) return succeed(null);
  const listed = (headers.get('content-encoding') ?? '').toLowerCase().split(',');
  const coding =
    listed
      .map((each) => each.trim())
      .filter(Boolean)
      .join() || 'identity';
  const packed = coding === 'gzip';
  if (!packed && coding !== 'identity') {
    return fail({ kind: 'unsupported-coding', field: 'content-encoding', problem: 'not gzip' });
  }
  return succeed({
    // The runtime hands over request bodies as they were sent (unlike those of its own fetches).
    stream: packed ? inflate(body) : (body as ReadableStream<Uint8Array>),
    packed,
    broken: { kind: 'bad-input', field: 'body', problem: packed ? 'not gzip' : 'cut off' },
  });
}

/** A body as it is, at most `limitBytes` after decompression. */
export async function readBytes(request: Request, limitBytes: number): Promise<Result<Uint8Array>> {
  const body = plainBody(request);
  if (!body.ok) return body;
  if (!body.value) return succeed(new Uint8Array());
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of body.value.stream) {
      size += part.length;
      if (size > limitBytes) return fail({ kind: 'too-large', field: 'body', limitBytes });
      parts.push(part);
    }
  } catch {
    return fail(body.value.broken);
  }
  return succeed(concat(parts));
}
