// Webhooks in workerd's tests, and the rounds with which the feed's object looks and sends.
import { runDurableObjectAlarm } from 'cloudflare:test';
import { vi } from 'vitest';
import { feed } from './bouncer.ts';
import { operator } from './http.ts';
import type { Receiver } from './receiver.ts';

/** Makes a webhook to `https://<name>.example/`, and returns its secret. */
export async function makeWebhook(name: string, events: string[] | null = null): Promise<string> {
  const { status, body } = await operator('POST', '/webhooks', {
    name,
    url: `https://${name}.example/`,
    events,
  });
  if (status !== 201) throw new Error(`webhook ${name}: ${status} ${JSON.stringify(body)}`);
  return body.secret;
}

/** A round of the feed, after some time. */
export async function round(afterMs = 0): Promise<void> {
  vi.setSystemTime(Date.now() + afterMs);
  await runDurableObjectAlarm(feed());
}

/** Rounds for so long, one a minute, in which nothing happens. */
export async function quiet(minutes: number): Promise<void> {
  for (let at = 0; at < minutes; at++) await round(60_000);
}

export async function delivery(name = 'ops'): Promise<any> {
  return (await operator('GET', `/webhooks/${name}`)).body.delivery;
}

/** Of whom a message speaks. */
export function namesIn({ tries }: Receiver, at: number, list = 'bouncers', field = 'name'): string[] {
  return tries[at]!.data[list].map((item: any) => item[field]);
}
