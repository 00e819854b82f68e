// A hosted integration of CrowdSec, of the kind "remediation component", on a plan: one pull in so much time, and 429 before.
// It answers in place of the network, where the clock is the test's.
import { vi } from 'vitest';

export interface ModelHosted {
  decisions: HostedDecision[];
  key: string;
  /** One pull in so much time; 0: as often as one likes. */
  planMs: number;
  /** What the next requests get instead; undefined: what there is. */
  fault: ((request: Request) => Response | Promise<Response>) | undefined;
  readonly requests: Request[];
  /** How often the decisions were sent. */
  sent: number;
}

export interface HostedDecision {
  readonly id: number;
  readonly origin: string;
  readonly scenario: string;
  readonly scope: string;
  readonly type: string;
  readonly value: string;
  readonly duration: string;
}

/** Serves an integration at a host, beside the models that were started before. */
export function startModelHosted(host: string, key: string): ModelHosted {
  const hosted: ModelHosted = {
    decisions: [],
    key,
    planMs: 24 * 3_600_000,
    fault: undefined,
    requests: [],
    sent: 0,
  };
  let pulledMs = -Infinity;
  const others = vi.isMockFunction(fetch) ? vi.mocked(fetch).getMockImplementation() : undefined;
  vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const request = new Request(input as RequestInfo, init as RequestInit);
    const { hostname, pathname, search } = new URL(request.url);
    if (hostname !== host) {
      if (others) return others(input, init);
      throw new Error('nobody is there');
    }
    hosted.requests.push(request);
    if (hosted.fault) return hosted.fault(request);
    if (request.headers.get('x-api-key') !== hosted.key) {
      return Response.json({ message: 'Forbidden' }, { status: 403 });
    }
    if (!pathname.endsWith('/v1/decisions/stream')) return new Response(null, { status: 404 });
    const leftMs = pulledMs + hosted.planMs - Date.now();
    if (leftMs > 0) {
      const headers = { 'retry-after': String(Math.ceil(leftMs / 1000)) };
      return Response.json({ message: 'Too Many Requests' }, { status: 429, headers });
    }
    pulledMs = Date.now();
    if (search !== '?startup=true') return new Response(null, { status: 204 });
    hosted.sent++;
    return Response.json({ new: hosted.decisions, deleted: null });
  });
  return hosted;
}

/** So many decisions of a community list. */
export function communityList(count: number, more: Partial<HostedDecision> = {}): HostedDecision[] {
  return Array.from({ length: count }, (_, at) => ({
    id: at + 1,
    origin: 'CAPI',
    scenario: 'crowdsecurity/http-probing',
    scope: 'Ip',
    type: 'ban',
    value: `198.51.100.${at}`,
    duration: '72h0m0s',
    ...more,
  }));
}
