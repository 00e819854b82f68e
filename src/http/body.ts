// Request bodies. The limit holds for what gzip unfolds to, and unfolding stops there: a small body can unfold to a
// gigabyte.

import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { concat } from '../formats/bytes.ts';
import { badInput, fail, succeed, type Failure, type Result } from './failure.ts';

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

/** A request's body, decompressed as it is read and no faster. */
export interface PlainBody {
  readonly stream: ReadableStream<Uint8Array>;
  readonly packed: boolean;
  /** The failure of a body that can't be read to its end. */
  readonly broken: Failure;
}

/** Null: the request has no body. */
export function plainBody({ body, headers }: Request): Result<PlainBody | null> {
  if (!body) return succeed(null);
  const codings = (headers.get('content-encoding') ?? '').toLowerCase().split(',');
  const coding = codings.map((each) => each.trim()).filter((each) => each !== '' && each !== 'identity');
  const packed = coding.join() === 'gzip';
  if (!packed && coding.length > 0) {
    return fail({ kind: 'unsupported-coding', field: 'content-encoding', problem: 'not gzip' });
  }
  return succeed({
    // The runtime hands over request bodies as they were sent, unlike the answers to its own fetches.
    stream: packed ? gunzip(body) : (body as ReadableStream<Uint8Array>),
    packed,
    broken: { kind: 'bad-input', field: 'body', problem: packed ? 'not gzip' : 'cut off' },
  });
}

/** Not by `DecompressionStream`: it has no back pressure, and unfolds at once whatever it is given. */
function gunzip(packed: ReadableStream): ReadableStream<Uint8Array> {
  const plain = createGunzip();
  // An error of `packed` is one of `plain`; who cancels `plain` cancels `packed`.
  pipeline(Readable.fromWeb(packed as never), plain, () => undefined);
  return Readable.toWeb(plain) as unknown as ReadableStream<Uint8Array>;
}

/** A body as bytes, at most `limitBytes` after decompression. */
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
