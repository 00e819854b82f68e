// Reads SSH's wire format (RFC 4251 §5). Lengths come from strangers, so no read goes beyond what is there. Pure.

export type Reader = ReturnType<typeof createReader>;

/** Reads from the front. Null when what is asked for is not there; a read beyond the end makes all later ones null. */
export function createReader(from: Uint8Array) {
  let at = 0;
  let failed = false;

  const bytes = (count: number): Uint8Array<ArrayBuffer> | null => {
    if (failed || count > from.length - at) {
      failed = true;
      return null;
    }
    at += count;
    return new Uint8Array(from.slice(at - count, at));
  };
  const number = (): number | null => {
    const four = bytes(4);
    return four && new DataView(four.buffer).getUint32(0);
  };
  /** A string: a length and so many bytes. */
  const string = (): Uint8Array<ArrayBuffer> | null => {
    const length = number();
    return length === null ? null : bytes(length);
  };
  /** A string of printable ASCII: names of keys, curves, algorithms. */
  const text = (): string | null => {
    const read = string();
    return read?.every((byte) => byte >= 0x20 && byte < 0x7f) ? String.fromCharCode(...read) : null;
  };
  /** An mpint above zero, in its shortest form only. The answer has no leading zero byte. */
  const positive = (): Uint8Array<ArrayBuffer> | null => {
    const read = string();
    const [first = 0, second = 0] = read ?? [];
    if (!read || read.length === 0 || first >= 0x80) return null;
    if (first !== 0) return read;
    return read.length > 1 && second >= 0x80 ? read.slice(1) : null;
  };
  return { bytes, number, string, text, positive, atEnd: () => !failed && at === from.length };
}
