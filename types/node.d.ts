// What the Worker uses of Node's modules in workerd. @types/node as a whole would bring Node's globals along,
// which are not there.

declare module 'node:zlib' {
  export function crc32(text: string): number;
  interface Gzip {
    on(event: 'data', listener: (part: Uint8Array) => void): this;
  }
  export function createGzip(options: { level: number; chunkSize: number }): Gzip;
  export function createGunzip(): import('node:stream').Readable;
}

declare module 'node:stream' {
  export class Readable {
    static fromWeb(stream: ReadableStream): Readable;
    static toWeb(stream: Readable): ReadableStream;
  }
  export function pipeline(from: Readable, to: Readable, done: () => void): void;
}

declare module 'node:stream/promises' {
  export function pipeline(
    from: Iterable<string> | AsyncIterable<string>,
    to: import('node:zlib').Gzip,
  ): Promise<void>;
}

declare module 'node:buffer' {
  interface Buffer extends Uint8Array<ArrayBuffer> {
    toString(encoding: 'base64' | 'base64url'): string;
  }
  export const Buffer: {
    from(text: string, encoding: 'base64' | 'base64url'): Buffer;
    from(bytes: Uint8Array): Buffer;
  };
}
