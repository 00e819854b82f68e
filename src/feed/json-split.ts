// Splits an engine's answer into its decisions while it streams in: a body of 200,000 decisions parsed whole
// would not fit beside the mirror in an isolate's 128 MB. Accepts what the three LAPI dialects send and
// nothing else: a body that is cut, padded or of another shape is an error, never a shorter list.

/** Which list an element is of: the stream's two, or the bare array of `GET /v1/decisions`. */
export type ListName = 'new' | 'deleted' | 'all';

export interface Splitter {
  /** Throws `SplitError` at the first byte that does not fit. */
  push(chunk: Uint8Array): void;
  /** Throws `SplitError` when the body is not complete. Returns which lists it had. */
  end(): ReadonlySet<ListName>;
}

export class SplitError extends Error {}

const code = (character: string): number => character.charCodeAt(0);
const [openBrace, closeBrace, openBracket, closeBracket, quote, backslash, colon, comma] = Array.from(
  '{}[]"\\:,',
  code,
) as [number, number, number, number, number, number, number, number];
const literalNull = 'null';

type Place = 'start' | 'null' | 'members' | 'key' | 'colon' | 'value' | 'elements' | 'element' | 'end';

/** `onElement` gets each array element, parsed, as soon as its last byte is there. */
export function createSplitter(onElement: (list: ListName, json: unknown) => void): Splitter {
  const decoder = new TextDecoder();
  const lists = new Set<ListName>();
  let place: Place = 'start';
  let list: ListName = 'all';
  let key = '';
  let nullAt = 0;
  let depth = 0;
  let inText = false;
  let escaped = false;
  let carried: Uint8Array[] = [];

  const finishElement = (tail: Uint8Array): void => {
    let text = '';
    for (const part of carried) text += decoder.decode(part, { stream: true });
    text += decoder.decode(tail);
    carried = [];
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw new SplitError('a decision is not JSON');
    }
    onElement(list, json);
  };
  const afterList = (): Place => (list === 'all' ? 'end' : 'members');

  const structure = (byte: number): void => {
    switch (place) {
      case 'start':
        if (byte === openBracket) {
          lists.add('all');
          place = 'elements';
        } else if (byte === openBrace) {
          place = 'members';
        } else if (byte === code('n')) {
          lists.add('all');
          nullAt = 1;
          place = 'null';
        } else throw unexpected(byte);
        return;
      case 'members':
        if (byte === quote) {
          key = '';
          place = 'key';
        } else if (byte === closeBrace) place = 'end';
        else if (byte !== comma) throw unexpected(byte);
        return;
      case 'key':
        if (byte === quote) place = 'colon';
        else key += String.fromCharCode(byte);
        return;
      case 'colon':
        if (byte !== colon) throw unexpected(byte);
        if (key !== 'new' && key !== 'deleted') throw new SplitError('an unknown list in the answer');
        if (lists.has(key)) throw new SplitError(`the list ${key} comes twice`);
        list = key;
        lists.add(key);
        place = 'value';
        return;
      case 'value':
        if (byte === openBracket) place = 'elements';
        else if (byte === code('n')) {
          nullAt = 1;
          place = 'null';
        } else throw unexpected(byte);
        return;
      case 'null':
        if (byte !== literalNull.charCodeAt(nullAt)) throw unexpected(byte);
        if (++nullAt === literalNull.length) place = afterList();
        return;
      case 'elements':
        if (byte === closeBracket) place = afterList();
        else if (byte !== comma) throw unexpected(byte);
        return;
      case 'end':
      case 'element':
        throw unexpected(byte);
    }
  };

  return {
    push(chunk) {
      let elementStart = 0;
      for (let at = 0; at < chunk.length; at++) {
        const byte = chunk[at] as number;
        if (place === 'element') {
          if (inText) {
            if (escaped) escaped = false;
            else if (byte === backslash) escaped = true;
            else if (byte === quote) inText = false;
          } else if (byte === quote) inText = true;
          else if (byte === openBrace) depth++;
          else if (byte === closeBrace && --depth === 0) {
            finishElement(chunk.subarray(elementStart, at + 1));
            place = 'elements';
          }
        } else if (place === 'elements' && byte === openBrace) {
          place = 'element';
          elementStart = at;
          depth = 1;
        } else if (!isBlank(byte) || place === 'key') structure(byte);
      }
      // The rest belongs to an element that goes on in the next chunk; the chunk's buffer may be reused.
      if (place === 'element') carried.push(chunk.slice(elementStart));
    },
    end() {
      if (place !== 'end') throw new SplitError('the answer is cut off');
      return lists;
    },
  };
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function unexpected(byte: number): SplitError {
  return new SplitError(`unexpected byte 0x${byte.toString(16)} in the answer`);
}
