// Usage metrics of bouncers, forwarded to the engine. One post, made as the feed's own component, carries the reports of
// many bouncers. A mistake here loses figures or posts too often; it never refuses a bouncer's report or delays a round.

import { listOf, objectOf, type Json } from '../formats/loose-json.ts';
import type { EngineKeys } from './keys.ts';
import { postMetrics, type Reached } from './upstream.ts';

/** One bouncer's report, without the bouncer's address and key. */
export interface Report {
  readonly bouncer: string;
  /** LAPI's `DetailedMetrics` as JSON, with commas between them. */
  readonly metrics: string;
}

/** In characters. LAPI's limit is 50 MiB; the report of a bouncer with 50 lists has some 40,000. */
const maxReport = 64 * 1024;
const maxPost = 512 * 1024;
const maxWaiting = 2 * 1024 * 1024;
/** LAPI's limit for every text in a report. */
const maxText = 255;
const postIntervalMs = 10_000;
/** How long an engine that answers 404 (before 1.6.3) gets no post: it may be updated meanwhile. */
const unknownIntervalMs = 3_600_000;

/**
 * The report of a component, each item with the label `bouncer`. What LAPI would refuse is left out, since the reports of
 * others are in the same post (pkg/models/localapi_swagger.yaml: whole numbers, texts of 255 characters). Null: there is
 * nothing to forward, or too much.
 */
export function reportOf(component: unknown, bouncer: string): Report | null {
  const parts = listOf(component, 'metrics').flatMap((part) => {
    const meta = objectOf(part['meta']);
    const windowSeconds = wholeNumber(meta['window_size_seconds']);
    const nowSeconds = wholeNumber(meta['utc_now_timestamp']);
    const items = listOf(part, 'items').flatMap((item) => itemOf(item, bouncer));
    if (windowSeconds === null || nowSeconds === null || items.length === 0) return [];
    return [{ meta: { window_size_seconds: windowSeconds, utc_now_timestamp: nowSeconds }, items }];
  });
  const metrics = parts.map((part) => JSON.stringify(part)).join(',');
  return metrics === '' || metrics.length > maxReport ? null : { bouncer, metrics };
}

function itemOf({ name, unit, value, labels }: Json, bouncer: string): object[] {
  if (typeof name !== 'string' || typeof unit !== 'string') return [];
  if (typeof value !== 'number' || !Number.isFinite(value)) return [];
  const texts = Object.entries(objectOf(labels)).filter(([, text]) => typeof text === 'string');
  const own = texts.map(([label, text]) => [label, (text as string).slice(0, maxText)]);
  const all = Object.fromEntries([...own, ['bouncer', bouncer.slice(0, maxText)]]) as Json;
  return [{ name: name.slice(0, maxText), unit: unit.slice(0, maxText), value, labels: all }];
}

function wholeNumber(value: unknown): number | null {
  const whole = typeof value === 'number' ? Math.trunc(value) : null;
  return Number.isSafeInteger(whole) ? whole : null;
}

/** Reports wait in memory: a restart of the object loses at most one of each bouncer. */
export function createForwarder(engine: Reached, keys: EngineKeys) {
  const startedMs = Date.now();
  /** Reports by bouncer, the longest waiting first. */
  const waiting = new Map<string, string>();
  let waitingLength = 0;
  let nextMs = 0;
  let unknownUntilMs = 0;

  const remove = (bouncer: string): void => {
    waitingLength -= waiting.get(bouncer)?.length ?? 0;
    waiting.delete(bouncer);
  };

  const takeOut = (): string => {
    const parts: string[] = [];
    let length = 0;
    for (const [bouncer, metrics] of waiting) {
      length += metrics.length + 1;
      if (parts.length > 0 && length > maxPost) break;
      parts.push(metrics);
      remove(bouncer);
    }
    return parts.join(',');
  };

  return {
    /** Keeps a report until the next post. A bouncer's newest report replaces its last one. */
    take({ bouncer, metrics }: Report): void {
      if (Date.now() < unknownUntilMs) return;
      const length = waitingLength - (waiting.get(bouncer)?.length ?? 0) + metrics.length;
      if (length > maxWaiting) return;
      // A map keeps the bouncer's place in the queue.
      waiting.set(bouncer, metrics);
      waitingLength = length;
    },
    /** Posts the waiting reports, if it is time. Never throws: a report that the engine does not take is lost. */
    async forward(): Promise<void> {
      const key = keys.current();
      if (!key || waiting.size === 0 || Date.now() < nextMs) return;
      // One post at a time.
      nextMs = Infinity;
      const from = { ...engine, apiKey: key.key, keyName: key.name };
      const status = await postMetrics(from, takeOut(), Math.floor(startedMs / 1000));
      const nowMs = Date.now();
      nextMs = nowMs + postIntervalMs;
      if (status === 404) {
        unknownUntilMs = nowMs + unknownIntervalMs;
        for (const bouncer of waiting.keys()) remove(bouncer);
      } else if (status !== 201) {
        console.error(`the engine ${engine.name} did not take usage metrics: ${status ?? 'no answer'}`);
      }
    },
  };
}
