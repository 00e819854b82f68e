// Request bodies: read with a limit that holds for what gzip unfolds to, so a small bomb stays small.

import { badInput, fail, succeed, type Result } from '../failure.ts';
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

/** A body as it is, at most `limitBytes` after decompression. */
export async function readBytes(request: Request, limitBytes: number): Promise<Result<Uint8Array>> {
  if (!request.body) return succeed(new Uint8Array());
  const encoding = (request.headers.get('content-encoding') ?? 'identity').toLowerCase();
  if (encoding !== 'identity' && encoding !== 'gzip') return badInput('content-encoding', 'not gzip');
  // The runtime hands over request bodies as they were sent (unlike those of its own fetches).
  const body = encoding === 'gzip' ? inflate(request.body) : request.body;
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of body as ReadableStream<Uint8Array>) {
      size += part.length;
      if (size > limitBytes) return fail({ kind: 'too-large', field: 'body', limitBytes });
      parts.push(part);
    }
  } catch {
    return badInput('body', encoding === 'gzip' ? 'not gzip' : 'cut off');
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return succeed(whole);
}
