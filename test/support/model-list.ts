// A server of a public list: a file with an ETag, as any web server has one. It answers in place of the network, where the
// clock is the test's.
import { vi } from 'vitest';

export interface ModelList {
  /** What is at the address now. */
  text: string;
  /** Whether it has an ETag, and whether its length is named. */
  etags: boolean;
  lengths: boolean;
  /** What the next requests get instead; undefined: the file. */
  fault: ((request: Request) => Response | Promise<Response>) | undefined;
  readonly requests: Request[];
  /** How often the file itself was sent. */
  sent: number;
}

/** Serves a list at a host, beside the model engines that were started before. */
export function startModelList(host: string, text = ''): ModelList {
  const list: ModelList = { text, etags: true, lengths: true, fault: undefined, requests: [], sent: 0 };
  const others = vi.isMockFunction(fetch) ? vi.mocked(fetch).getMockImplementation() : undefined;
  vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const request = new Request(input as RequestInfo, init as RequestInit);
    if (new URL(request.url).hostname !== host) {
      if (others) return others(input, init);
      throw new Error('nobody is there');
    }
    list.requests.push(request);
    if (list.fault) return list.fault(request);
    const etag = `"${list.text.length}-${[...list.text].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) | 0, 7)}"`;
    if (request.headers.get('if-none-match') === etag) return new Response(null, { status: 304 });
    list.sent++;
    const headers = {
      'content-type': 'text/plain',
      ...(list.etags ? { etag } : {}),
      ...(list.lengths ? { 'content-length': String(list.text.length) } : {}),
    };
    return new Response(list.text, { headers });
  });
  return list;
}

/** A list of so many addresses. */
export function addresses(count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, at) => `198.51.100.${from + at}`);
}
