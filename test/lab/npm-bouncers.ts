// The two bouncer libraries of npm, run in the test process as an application would run them.
import { CrowdSecBouncer } from '@crowdsec/nodejs-bouncer';
import { BouncerClient } from 'crowdsec-client';
import { setTimeout as delay } from 'node:timers/promises';

export interface LibraryOptions {
  url: string;
  key: string;
  intervalMs?: number;
}

export interface NodejsBouncer {
  /** ban, captcha or bypass. */
  remediation(ip: string): Promise<string>;
  /** What went wrong in polls so far, oldest first. */
  errors(): unknown[];
  stop(): Promise<void>;
}

/** @crowdsec/nodejs-bouncer in stream mode; it leaves polling to the application, so the loop is here. */
export function startNodejsBouncer({ url, key, intervalMs = 1000 }: LibraryOptions): NodejsBouncer {
  // It joins paths with a slash of its own.
  const base = url.replace(/\/$/, '');
  const bouncer = new CrowdSecBouncer({ url: base, bouncerApiToken: key, streamMode: true });
  const errors: unknown[] = [];
  const stopping = new AbortController();
  const polling = poll();

  async function poll() {
    while (!stopping.signal.aborted) {
      await bouncer.refreshDecisions().catch((error: unknown) => errors.push(error));
      await delay(intervalMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  return {
    remediation: async (ip) => (await bouncer.getIpRemediation(ip)).remediation,
    errors: () => [...errors],
    async stop() {
      stopping.abort();
      await polling;
    },
  };
}

export interface ClientEvent {
  action: 'added' | 'deleted';
  value: string;
  scope: string;
  type: string;
  origin: string;
}

export interface CrowdsecClient {
  events(): ClientEvent[];
  /** The values whose last event was `added`. */
  active(): Set<string>;
  errors(): unknown[];
  stop(): Promise<void>;
}

/** crowdsec-client's decision stream. Its first pull must succeed: it never asks for the whole list again. */
export async function startCrowdsecClient({
  url,
  key,
  intervalMs = 1000,
}: LibraryOptions): Promise<CrowdsecClient> {
  const client = new BouncerClient({ url, auth: { apiKey: key } });
  const events: ClientEvent[] = [];
  const errors: unknown[] = [];
  await client.login();
  const stream = client.Decisions.getStream({ interval: intervalMs, scopes: ['ip', 'range'] });
  for (const action of ['added', 'deleted'] as const) {
    stream.on(action, ({ value, scope, type, origin }) => {
      events.push({ action, value, scope, type, origin });
    });
  }
  stream.on('error', (error) => errors.push(error));
  stream.resume();
  return {
    events: () => [...events],
    active() {
      const values = new Set<string>();
      for (const { action, value } of events) {
        if (action === 'added') values.add(value);
        else values.delete(value);
      }
      return values;
    },
    errors: () => [...errors],
    stop: () => client.stop(),
  };
}
