// What bouncers' reports say was dropped and processed. Each says it of the time since the report before, so it is added up.
// Pure. A mistake here counts a report twice, or gives one bouncer as many series as it likes.

import { digestOf } from '../crypto/secret.ts';
import { listOf, objectOf, type Json } from '../formats/loose-json.ts';
import { cut } from '../formats/texts.ts';

/** One number of a report, or the sum of many. The labels are texts of the bouncer; empty: it has none. */
export interface Usage {
  readonly item: 'dropped' | 'processed';
  readonly unit: string;
  readonly origin: string;
  readonly remediation: string;
  readonly ipType: string;
  readonly value: number;
}

/** A window of a report. */
export interface Window {
  /** Equal for a window that is sent again: no other of the bouncer has the same time and numbers. */
  readonly id: string;
  readonly usage: readonly Usage[];
}

/** What is kept of a bouncer. */
export interface Sums {
  /** The ids of the newest windows. */
  readonly windows: readonly string[];
  readonly usage: readonly Usage[];
}

/** Hosts that share a key report at the same time, and a report is sent again within a minute. */
const mostWindows = 64;
/** Of one report, so that its windows are known when it is sent again. A bouncer sends one; those that waited come with it. */
const mostReported = 32;
/** Of all windows of a report, which may be 1 MB: the object adds them up in one turn. */
const mostItems = 256;
/** A firewall bouncer has 4 for each of its origins, and 4 more. */
const mostUsage = 24;
/** What has no series of its own any more. */
const other = 'other';
/** In characters: an origin is at most `lists:` and the name of a list. */
const mostText = 100;
const idLength = 16;

/**
 * The newest windows of a component's report (pkg/models/localapi_swagger.yaml, `DetailedMetrics`), the newest last. A window
 * without a time is left out: it can not be told from one that is sent again.
 */
export function windowsOf(component: unknown): Window[] {
  const timed = listOf(component, 'metrics').flatMap((part) => {
    const at = objectOf(part['meta'])['utc_now_timestamp'];
    return typeof at === 'number' ? [{ part, at }] : [];
  });
  const windows: Window[] = [];
  let room = mostItems;
  for (const { part } of timed.sort((a, b) => b.at - a.at)) {
    if (room === 0 || windows.length === mostReported) break;
    const usage = listOf(part, 'items').flatMap(usageOf).slice(0, room);
    if (usage.length === 0) continue;
    room -= usage.length;
    windows.unshift({ id: digestOf(JSON.stringify(part)).slice(0, idLength), usage });
  }
  return windows;
}

function usageOf({ name, unit, value, labels }: Json): Usage[] {
  if (name !== 'dropped' && name !== 'processed') return [];
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) return [];
  const { origin, remediation, ip_type: ipType } = objectOf(labels);
  return [
    {
      item: name,
      unit: textOf(unit),
      origin: textOf(origin),
      remediation: textOf(remediation),
      ipType: textOf(ipType),
      value,
    },
  ];
}

/**
 * The sums with the windows of a report; the same sums if they have them all. What comes first keeps its labels: if the largest
 * did, a series would go back whenever another one became larger.
 */
export function withWindows(sums: Sums, windows: readonly Window[]): Sums {
  const known = new Set(sums.windows);
  const added = new Map(sums.usage.map((one) => [seriesOf(one), one]));
  for (const { id, usage } of windows) {
    if (known.has(id)) continue;
    known.add(id);
    for (const one of usage) {
      const isKnown = added.has(seriesOf(one)) || added.size < mostUsage;
      const own = isKnown ? one : { ...one, unit: other, origin: other, remediation: '', ipType: '' };
      const series = seriesOf(own);
      added.set(series, { ...own, value: (added.get(series)?.value ?? 0) + one.value });
    }
  }
  if (known.size === sums.windows.length) return sums;
  return { windows: [...known].slice(-mostWindows), usage: [...added.values()] };
}

function seriesOf({ item, unit, origin, remediation, ipType }: Usage): string {
  return JSON.stringify([item, unit, origin, remediation, ipType]);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? cut(value, mostText) : '';
}
