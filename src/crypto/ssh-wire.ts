// SSH's wire format (RFC 4251 §5), read, and the base64 around it. Lengths come from strangers: every
// read is bounded by what is there. Pure.

/** Reads from the front; null, and null from then on, when what is asked for is not there. */
export interface Reader {
  bytes(count: number): Uint8Array<ArrayBuffer> | null;
  number(): number | null;
  /** A string: a length and so many bytes. */
  string(): Uint8Array<ArrayBuffer> | null;
  /** A string of printable ASCII: names of keys, curves, algorithms. */
  text(): string | null;
  /** An mpint above zero in its one right form, without the zero byte that keeps it positive. */
  positive(): Uint8Array<ArrayBuffer> | null;
  atEnd(): boolean;
}

export function createReader(from: Uint8Array): Reader {
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
  const string = (): Uint8Array<ArrayBuffer> | null => {
    const length = number();
    return length === null ? null : bytes(length);
  };
  const text = (): string | null => {
    const read = string();
    return read?.every((byte) => byte >= 0x20 && byte < 0x7f) ? String.fromCharCode(...read) : null;
  };
  const positive = (): Uint8Array<ArrayBuffer> | null => {
    const read = string();
    const [first = 0, second = 0] = read ?? [];
    if (!read || read.length === 0 || first >= 0x80) return null;
    if (first !== 0) return read;
    return read.length > 1 && second >= 0x80 ? read.slice(1) : null;
  };
  return { bytes, number, string, text, positive, atEnd: () => !failed && at === from.length };
}

/** Bytes of standard base64 with its padding; null when it is anything else. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  // Bits that belong to no byte would make a second text of the same bytes.
  return toBase64(bytes) === text ? bytes : null;
}

export function toBase64(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replace(/=+$/, '').replaceAll('+', '-').replaceAll('/', '_');
}

export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^[\w-]*$/.test(text)) return null;
  const standard = text.replaceAll('-', '+').replaceAll('_', '/');
  return fromBase64(standard.padEnd(Math.ceil(text.length / 4) * 4, '='));
}
