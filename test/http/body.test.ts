// Request bodies: what is read of them, and what a hostile one costs.
import { Readable } from 'node:stream';
import { Gunzip } from 'node:zlib';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { readBytes } from '../../src/http/body.ts';

type Part = Uint8Array | Blob | string;

const megabyte = 1024 * 1024;

async function gzip(...parts: Part[]): Promise<Uint8Array> {
  const packed = new Blob(parts).stream().pipeThrough(new CompressionStream('gzip'));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

function posted(...parts: Part[]): Request {
  const headers = { 'content-encoding': 'gzip' };
  return new Request('https://lapidary.example/', { method: 'POST', body: new Blob(parts), headers });
}

/** How many bytes are unfolded while `work` runs. */
async function unfoldedBy(work: () => Promise<unknown>): Promise<number> {
  let bytes = 0;
  const { push } = Readable.prototype;
  vi.spyOn(Readable.prototype, 'push').mockImplementation(function count(this: Readable, chunk, encoding) {
    if (this instanceof Gunzip && chunk instanceof Uint8Array) bytes += chunk.length;
    return push.call(this, chunk, encoding);
  });
  await work();
  // Whatever else was under way.
  await scheduler.wait(100);
  return bytes;
}

afterEach(() => vi.restoreAllMocks());

describe('a gzip body', () => {
  test('of several members is read whole', async () => {
    const body = await readBytes(posted(await gzip('one, '), await gzip('two')), 100);
    expect(body.ok && new TextDecoder().decode(body.value)).toBe('one, two');
  });

  test('that fills its limit is read, and one byte more is refused', async () => {
    const packed = await gzip(' '.repeat(3 * megabyte));
    expect(await readBytes(posted(packed), 3 * megabyte)).toMatchObject({ ok: true });
    expect(await readBytes(posted(packed), 3 * megabyte - 1)).toMatchObject({
      failure: { kind: 'too-large' },
    });
  });

  test.each([
    ['cut off', async () => (await gzip('one')).slice(0, -4)],
    ['followed by something else', async () => new Blob([await gzip('one'), 'two'])],
    ['not gzip', async () => 'one'],
    ['empty', async () => new Uint8Array()],
  ])('that is %s is refused', async (_, made) => {
    const body = await readBytes(posted((await made()) as Part), 100);
    expect(body).toEqual({ ok: false, failure: { kind: 'bad-input', field: 'body', problem: 'not gzip' } });
  });

  const zeros = Array<Uint8Array>(100).fill(new Uint8Array(megabyte));

  test.each([
    ['one member of 100 MB', async () => [await gzip(...zeros)]],
    ['a thousand members, a gigabyte', async () => Array<Uint8Array>(1000).fill(await gzip(zeros[0]!))],
  ])('is not unfolded beyond its limit: %s', async (_, made) => {
    const request = posted(...(await made()));
    const unfolded = await unfoldedBy(async () => {
      expect(await readBytes(request, 2 * megabyte)).toMatchObject({ failure: { kind: 'too-large' } });
    });
    expect(unfolded).toBeGreaterThan(2 * megabyte);
    expect(unfolded).toBeLessThan(3 * megabyte);
  });
});
