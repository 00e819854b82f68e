// What bouncers report of themselves, passed on to the engine, which would know nothing of them otherwise. One post of
// the feed's own component carries the reports of many. A mistake here costs the engine figures, or posts without
// number; never a bouncer its 201, nor the feed a round.

import type { EngineKeys } from './keys.ts';
import { postMetrics, type Reached } from './upstream.ts';

/** One bouncer's report, without anything that tells where the bouncer is or what its key is. */
export interface Report {
  readonly bouncer: string;
  /** LAPI's `DetailedMetrics` as JSON, with commas between them. */
  readonly metrics: string;
}

export interface Forwarder {
  /** Keeps a report until the next post; a bouncer's newest takes the place of its last. */
  take(report: Report): void;
  /** Posts what waits, if it is time. Never throws: a report that the engine does not take is lost. */
  forward(): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;

/** In characters. LAPI's own limit is 50 MiB; a report of a bouncer with 50 lists has some 40,000. */
const maxReport = 64 * 1024;
const maxPost = 512 * 1024;
const maxWaiting = 2 * 1024 * 1024;
/** LAPI's for every text in a report. */
const maxText = 255;
const postIntervalMs = 10_000;
/** How long an engine that answers 404 (before 1.6.3) is left alone: it may be updated meanwhile. */
const unknownIntervalMs = 3_600_000;

/**
 * What LAPI would take of a component (pkg/models/localapi_swagger.yaml: whole numbers, texts of 255 characters), each
 * item under the label `bouncer`. Since the reports of others share its post, what LAPI would refuse is left out.
 * Null: there is nothing to pass on, or too much.
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

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

/** Its objects; none where lua posts an object in place of an empty list. */
function listOf(value: unknown, name: string): Json[] {
  const list = objectOf(value)[name];
  return Array.isArray(list) ? list.map(objectOf) : [];
}

function wholeNumber(value: unknown): number | null {
  const whole = typeof value === 'number' ? Math.trunc(value) : null;
  return Number.isSafeInteger(whole) ? whole : null;
}

/** In memory: what a restart of the object loses is at most one report of each bouncer. */
export function createForwarder(engine: Reached, keys: EngineKeys): Forwarder {
  const startedMs = Date.now();
  /** By bouncer, the one that waits longest first. */
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
    take({ bouncer, metrics }) {
      if (Date.now() < unknownUntilMs) return;
      const length = waitingLength - (waiting.get(bouncer)?.length ?? 0) + metrics.length;
      if (length > maxWaiting) return;
      // Keeps its place in the queue.
      waiting.set(bouncer, metrics);
      waitingLength = length;
    },
    async forward() {
      const key = keys.current();
      if (!key || waiting.size === 0 || Date.now() < nextMs) return;
      // One at a time.
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
