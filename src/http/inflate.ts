// gzip, unfolded no faster than it is read. Workerd's DecompressionStream knows no back pressure: whatever it is given
// it unfolds at once, a megabyte of zeros to a gigabyte, long before a limit on what is read can see any of it.

/** What it is given at once. Deflate makes at most 1,032 bytes of one: 4 MB. */
const sliceBytes = 4096;
const partBytes = 64 * 1024;

/** Whoever reads it stops it by `cancel`, which stops `packed` as well. Fails where `packed` does, or is no gzip. */
export function inflate(packed: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const source = packed.getReader();
  const { readable, writable } = new DecompressionStream('gzip');
  const writer = writable.getWriter();
  const plain = readable.getReader({ mode: 'byob' });
  let rest: Uint8Array = new Uint8Array();
  let ended = false;
  /** A part that is full may have left something; after any other there is nothing until the next slice. */
  let full = false;

  async function feed(): Promise<void> {
    if (rest.length === 0) {
      const { done, value } = await source.read();
      if (done) {
        ended = true;
        return writer.close();
      }
      rest = value;
    }
    const slice = rest.slice(0, sliceBytes);
    rest = rest.subarray(sliceBytes);
    await writer.write(slice);
  }

  return new ReadableStream({
    async pull(controller) {
      let found = false;
      const next = plain.read(new Uint8Array(partBytes)).finally(() => (found = true));
      // Where feeding fails, that is the failure that is told.
      next.catch(() => undefined);
      if (full) await Promise.race([next, scheduler.wait(0)]);
      while (!found && !ended) await feed();
      const { done, value } = await next;
      if (done) return controller.close();
      full = value.length === partBytes;
      controller.enqueue(value);
    },
    async cancel(reason) {
      await Promise.allSettled([source.cancel(reason), plain.cancel(reason), writer.abort(reason)]);
    },
  });
}
