// Splits an engine's answer into its elements while it streams in: a body of 200,000 decisions parsed whole would not
// fit beside the mirror in an isolate's 128 MB. Accepts the framing of the three LAPI dialects and nothing else: a body
// that is cut, padded or of another shape is an error, never a shorter list. What is inside an element costs itself only.

import { concat } from './bytes.ts';

/** Which list an element is of: the stream's two, or the bare array of `GET /v1/decisions`. */
export type ListName = 'new' | 'deleted' | 'all';

/** One element, parsed; or why it can't be, with its first characters. */
export type Element =
  | { readonly json: unknown; readonly problem?: undefined }
  | { readonly problem: string; readonly head: string };

export class SplitError extends Error {}

/** A decision has some 250 bytes; LAPI itself bounds no text. Beyond this an element is passed over unread. */
const mostElementBytes = 256 * 1024;
const headBytes = 1024;

const [openBrace, closeBrace, openBracket, closeBracket, quote, backslash, comma] = Array.from(
  '{}[]"\\,',
  (character) => character.charCodeAt(0),
) as [number, number, number, number, number, number, number];

/** Every answer there is, without its elements, commas and blanks. */
const frames = ['[]', 'null', '{}', ...framesOf('new', 'deleted'), ...framesOf('deleted', 'new')];

const isInKey = /[{\]l]"[a-z]*$/;
const isAroundList = /^\{(.*(\]|null))?$/;

function framesOf(first: ListName, second: ListName): string[] {
  const list = (name: ListName): string[] => ['[]', 'null'].map((value) => `"${name}":${value}`);
  return list(first).flatMap((one) => ['', ...list(second)].map((other) => `{${one}${other}}`));
}

/** `onElement` gets each array element as soon as its last byte is there. */
export function createSplitter(onElement: (list: ListName, element: Element) => void) {
  const decoder = new TextDecoder();
  /** What was read of the answer's frame. */
  let frame = '';
  let list: ListName = 'all';
  let place: 'frame' | 'list' | 'element' | 'scalar' = 'frame';
  let depth = 0;
  let inText = false;
  let escaped = false;
  // The part of an element that came in earlier chunks. `passed`: bytes of it that are not kept any more.
  let carried: Uint8Array[] = [];
  let carriedBytes = 0;
  let passed = 0;

  const carry = (part: Uint8Array): void => {
    carried.push(part.slice());
    carriedBytes += part.length;
    if (carriedBytes <= mostElementBytes) return;
    const head = concat(carried).slice(0, headBytes);
    passed += carriedBytes - head.length;
    carried = [head];
    carriedBytes = head.length;
  };

  const finishElement = (tail: Uint8Array): void => {
    const whole = passed + carriedBytes + tail.length;
    const text = decoder.decode(carried.length === 0 ? tail : concat([...carried, tail]));
    carried = [];
    carriedBytes = 0;
    passed = 0;
    if (whole > mostElementBytes) {
      onElement(list, {
        problem: `is longer than ${mostElementBytes / 1024} KiB`,
        head: text.slice(0, headBytes),
      });
      return;
    }
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      if (place === 'scalar') throw new SplitError('there is something between the decisions');
      onElement(list, { problem: 'is not JSON', head: text.slice(0, headBytes) });
      return;
    }
    onElement(list, { json });
  };

  /** Between the elements, and around the lists. */
  const readFrame = (byte: number): void => {
    if (place === 'list' && (isBlank(byte) || byte === comma)) return;
    if (isBlank(byte) && !isInKey.test(frame)) return;
    if (byte === comma && isAroundList.test(frame)) return;
    frame += String.fromCharCode(byte);
    if (!frames.some((whole) => whole.startsWith(frame))) {
      throw new SplitError(`unexpected byte 0x${byte.toString(16)} in the answer`);
    }
    place = frame.endsWith('[') ? 'list' : 'frame';
    list = (/.*(new|deleted)/.exec(frame)?.[1] ?? 'all') as ListName;
  };

  /** Whether the element that the byte is in ends with it. */
  const closes = (byte: number): boolean => {
    if (inText) {
      if (escaped) escaped = false;
      else if (byte === backslash) escaped = true;
      else if (byte === quote) {
        inText = false;
        return depth === 0;
      }
      return false;
    }
    if (byte === quote) inText = true;
    else if (byte === openBrace || byte === openBracket) depth++;
    else if (byte === closeBrace || byte === closeBracket) return --depth === 0;
    return false;
  };

  return {
    /** Throws `SplitError` at the first byte that does not fit. */
    push(chunk: Uint8Array): void {
      let elementStart = 0;
      for (let at = 0; at < chunk.length; at++) {
        const byte = chunk[at] as number;
        if (place === 'scalar' && (isBlank(byte) || byte === comma || byte === closeBracket)) {
          finishElement(chunk.subarray(elementStart, at));
          place = 'list';
        }
        if (place === 'element') {
          if (!closes(byte)) continue;
          finishElement(chunk.subarray(elementStart, at + 1));
          place = 'list';
        } else if (place === 'list' && startsElement(byte)) {
          place = isScalar(byte) ? 'scalar' : 'element';
          elementStart = at;
          depth = 0;
          closes(byte);
        } else if (place !== 'scalar') readFrame(byte);
      }
      // The rest belongs to an element that goes on in the next chunk; the chunk's buffer may be reused.
      if (place === 'element' || place === 'scalar') carry(chunk.subarray(elementStart));
    },
    /** Throws `SplitError` when the body is not complete. Returns which lists it had. */
    end(): ReadonlySet<ListName> {
      if (!frames.includes(frame)) throw new SplitError('the answer is cut off');
      return new Set((frame.startsWith('{') ? frame.match(/new|deleted/g) : ['all']) as ListName[] | null);
    },
  };
}

function startsElement(byte: number): boolean {
  return !isBlank(byte) && byte !== comma && byte !== closeBracket && byte !== closeBrace;
}

/** A number, or a word such as `null`. */
function isScalar(byte: number): boolean {
  return byte !== openBrace && byte !== openBracket && byte !== quote;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
