// Which series there are, and of what they are made. Pure. docs/metrics.md has the same list for people.

import { typeAndVersion } from '../bouncers/bouncers.ts';
import { version } from '../config/version.ts';
import { counted } from '../counters/counting.ts';
import type { Usage } from '../counters/usage.ts';
import type { FeedStatus } from '../feed/questions.ts';
import { cut } from '../formats/texts.ts';
import type { Kind } from '../mirror/census.ts';
import { lagOf, type SeenBouncer } from '../stream/behind.ts';
import { labelsOf, type Family, type Labels, type Sample } from './exposition.ts';
import { labelOf, other, tally } from './labels.ts';
import type { Enforced, Version } from './metrics.sql.ts';

export const hostStates = ['waiting', 'registered', 'clone-suspected'] as const;

export interface Totals {
  readonly hosts: ReadonlyMap<string, number>;
  /** Rows of the audit log by action. */
  readonly audited: ReadonlyMap<string, number>;
  /** Refused callers by face and reason, with a blank between them. */
  readonly refused: Readonly<Record<string, number>>;
}

/** What is read of a bouncer. What is long is kept as it was read until it is sent. */
export interface Bouncer {
  /** Its name, which each of its series has. */
  readonly labels: Labels;
  /** Null: it is not paused. */
  readonly pausedMs: number | null;
  readonly versions: readonly Version[];
  readonly enforced: () => readonly Enforced[];
  /** Null: it was never seen. */
  readonly seen: SeenBouncer | null;
  /** How many values its view has decisions on; null: not known. */
  readonly viewSize: number | null;
  /** By `counted`. */
  readonly counts: readonly number[];
  /** What its reports add up to. */
  readonly usage: () => readonly Usage[];
}

const noLabels: Labels = '';

function gauge(name: string, help: string, samples: Iterable<Sample>): Family {
  return { name, type: 'gauge', help, samples };
}

function counter(name: string, help: string, samples: Iterable<Sample>): Family {
  return { name, type: 'counter', help, samples };
}

/** The series that have the engine's own names (pkg/metrics/metrics.go), for dashboards that are there. */
export function engineNamed(kinds: readonly Kind[]): Family[] {
  const most = { reason: 200, origin: 100, action: 20 };
  const counted = kinds.map(({ scenario, origin, type, count }) => {
    return { reason: scenario || other, origin, action: type, count };
  });
  return [
    gauge('cs_info', 'Information about Lapidary.', [[labelsOf({ version: `lapidary-${version}` }), 1]]),
    gauge('cs_active_decisions', 'Number of active decisions.', tally(counted, most)),
  ];
}

const requests = [
  [counted.polls, labelsOf({ route: '/v1/decisions/stream', method: 'GET' })],
  [counted.pollHeads, labelsOf({ route: '/v1/decisions/stream', method: 'HEAD' })],
  [counted.lookUps, labelsOf({ route: '/v1/decisions', method: 'GET' })],
  [counted.lookUpHeads, labelsOf({ route: '/v1/decisions', method: 'HEAD' })],
  [counted.reports, labelsOf({ route: '/v1/usage-metrics', method: 'POST' })],
  [counted.lists, labelsOf({ route: '/lists', method: 'GET' })],
  [counted.listHeads, labelsOf({ route: '/lists', method: 'HEAD' })],
] as const;

/** Those of them that are of each bouncer. */
export function engineNamedOfBouncers(bouncers: readonly Bouncer[]): Family[] {
  const found = (what: number): Iterable<Sample> =>
    each(bouncers, ({ labels, counts }) => (counts[what] ? [[labels, counts[what]]] : []));
  return [
    counter(
      'cs_lapi_bouncer_requests_total',
      'Requests of the bouncer.',
      each(bouncers, ({ labels, counts }) =>
        requests.flatMap(([what, request]) => (counts[what] ? [[`${labels},${request}`, counts[what]]] : [])),
      ),
    ),
    counter('cs_lapi_decisions_ok_total', 'Look-ups that found a decision.', found(counted.found)),
    counter('cs_lapi_decisions_ko_total', 'Look-ups that found no decision.', found(counted.foundNone)),
  ];
}

/** One time series for each engine, for the feed, for each state of hosts. */
export function ofFeed(status: FeedStatus, kinds: readonly Kind[], totals: Totals): Family[] {
  const { engines } = status;
  const ofEngines = (value: (engine: FeedStatus['engines'][number]) => number | null): Sample[] =>
    engines.flatMap((engine) => {
      const sample = value(engine);
      return sample === null ? [] : [[labelsOf({ engine: engine.name }), sample] as const];
    });
  const most = { engine: Infinity, origin: 100 };
  return [
    gauge(
      'lapidary_engine_up',
      'Whether the decisions of the engine are fresh: 1 or 0.',
      ofEngines(({ freshness }) => Number(freshness === 'fresh')),
    ),
    gauge(
      'lapidary_engine_refused',
      'Whether the engine refuses the key of the feed: 1 or 0.',
      ofEngines(({ link }) => Number(link === 'refused')),
    ),
    gauge(
      'lapidary_engine_last_sync_timestamp_seconds',
      'When the engine last answered.',
      ofEngines(({ lastSyncMs }) => secondsOf(lastSyncMs)),
    ),
    gauge(
      'lapidary_engine_last_full_list_timestamp_seconds',
      'When a full list of the engine was last accepted.',
      ofEngines(({ lastResyncMs }) => secondsOf(lastResyncMs)),
    ),
    gauge(
      'lapidary_engine_skipped_elements',
      'Elements of the newest answers of the engine that could not be read.',
      ofEngines(({ skipped }) => skipped),
    ),
    gauge(
      'lapidary_engine_left_out_decisions',
      'Decisions of the engine for which there is no room (MAX_DECISIONS).',
      ofEngines(({ leftOut }) => leftOut),
    ),
    gauge(
      'lapidary_engine_allowlists_up',
      'Whether the own allow-lists of the engine could be read: 1 or 0. Of engines whose lists are read.',
      ofEngines(({ allowLists }) => allowLists && Number(['ok', 'none'].includes(allowLists.state))),
    ),
    gauge(
      'lapidary_engine_allowlist_entries',
      'Entries of the own allow-lists of the engine that hold.',
      ofEngines(({ allowLists }) => allowLists && allowLists.entries),
    ),
    gauge('lapidary_feed_sequence', 'The latest sequence of the feed: it counts changes.', [
      [noLabels, status.sequence],
    ]),
    gauge(
      'lapidary_feed_decisions',
      'Active decisions by the engine that they come from. An empty engine: decided here.',
      tally(kinds, most),
    ),
    gauge('lapidary_feed_tombstones', 'Ended decisions that are still remembered.', [
      [noLabels, status.tombstones],
    ]),
    gauge('lapidary_feed_clients', 'Clients of bouncers that the feed knows.', [[noLabels, status.clients]]),
    gauge('lapidary_feed_waiting_polls', 'Polls that wait for a change.', [[noLabels, status.waiting ?? 0]]),
    gauge(
      'lapidary_hosts',
      'Hosts by state.',
      hostStates.map((state) => [labelsOf({ state }), totals.hosts.get(state) ?? 0] as const),
    ),
    counter(
      'lapidary_audit_events_total',
      'Rows of the audit log by what was done.',
      [...totals.audited].map(([action, count]) => [labelsOf({ action }), count] as const),
    ),
    counter(
      'lapidary_auth_failures_total',
      'Callers that were refused, by where they asked and why.',
      Object.entries(totals.refused).map(([refusal, count]) => {
        const [face = '', reason = ''] = refusal.split(' ');
        return [labelsOf({ face, reason }), count] as const;
      }),
    ),
  ];
}

/** The series of each bouncer. They are made while they are sent. */
export function ofBouncers(bouncers: readonly Bouncer[]): Family[] {
  const ofSeen = (value: (seen: SeenBouncer) => number | null): Iterable<Sample> =>
    each(bouncers, ({ seen, labels }) => samplesOf(labels, seen && value(seen)));
  const ofVersions = (ms: (version: Version) => number): Iterable<Sample> =>
    each(bouncers, ({ labels, versions }) =>
      versions.map((version) => [`${labels},version="${version.number}"`, ms(version) / 1000]),
    );
  return [
    gauge(
      'lapidary_bouncer_info',
      'Type and version that the client of the bouncer named which was seen last.',
      each(bouncers, ({ seen, labels }) => (seen ? [[`${labels},${programLabels(seen.userAgent)}`, 1]] : [])),
    ),
    gauge(
      'lapidary_bouncer_last_pull_timestamp_seconds',
      'When the bouncer was last seen to ask for decisions.',
      ofSeen(({ seenMs }) => seenMs / 1000),
    ),
    gauge(
      'lapidary_bouncer_paused_timestamp_seconds',
      'Since when the bouncer is paused.',
      each(bouncers, ({ labels, pausedMs }) => samplesOf(labels, pausedMs === null ? null : pausedMs / 1000)),
    ),
    gauge(
      'lapidary_bouncer_lag_changes',
      'Changes of the feed since the last answer to the client of the bouncer that is furthest behind, at most.',
      ofSeen(lagOf),
    ),
    gauge(
      'lapidary_bouncer_view_decisions',
      'Values that the view of the bouncer has decisions on.',
      each(bouncers, ({ labels, viewSize }) => samplesOf(labels, viewSize)),
    ),
    gauge(
      'lapidary_bouncer_active_decisions',
      'Decisions that the bouncer reported to enforce, in the last two hours.',
      each(bouncers, ({ labels, enforced }) => enforcedSamples(labels, enforced())),
    ),
    counter(
      'lapidary_bouncer_list_omitted_total',
      'Networks that were left out of the lists of the bouncer: each list counts them anew.',
      each(bouncers, ({ labels, counts }) => {
        const omitted = counts[counted.omitted] ?? 0;
        return omitted > 0 ? [[labels, omitted]] : [];
      }),
    ),
    counter(
      'lapidary_bouncer_usage_total',
      'What the reports of the bouncer say was dropped and processed.',
      each(bouncers, ({ labels, usage }) => usageSamples(labels, usage(), bouncers.length <= mostDetailed)),
    ),
    gauge(
      'lapidary_key_created_timestamp_seconds',
      'When a version of the key of a bouncer was made.',
      ofVersions(({ createdMs }) => createdMs),
    ),
    gauge(
      'lapidary_key_expiry_timestamp_seconds',
      'When a version of the key of a bouncer expires, by itself or by a rotation; +Inf: never.',
      ofVersions(({ endMs }) => endMs),
    ),
  ];
}

function programLabels(userAgent: string): Labels {
  const { type, version } = typeAndVersion(userAgent);
  return `type="${labelOf(type)}",version="${labelOf(cut(version, 60))}"`;
}

const ipTypes = ['ipv4', 'ipv6'];

function enforcedSamples(labels: Labels, enforced: readonly Enforced[]): Sample[] {
  const counted = enforced.map(({ origin, ipType, count }) => {
    return { origin, ip_type: ipTypes.includes(ipType) ? ipType : '', count };
  });
  return tally(counted, { origin: 8, ip_type: 3 }).map(([own, count]) => [`${labels},${own}`, count]);
}

/** With more bouncers a scrape with all labels would be larger than 30 MB. */
const mostDetailed = 4_000;

/** What has the same labels is one sample. */
function usageSamples(labels: Labels, usage: readonly Usage[], isDetailed: boolean): Sample[] {
  const sums = new Map<Labels, number>();
  for (const { item, unit, origin, remediation, ipType, value } of isDetailed ? usage : totalsOf(usage)) {
    const own =
      `item="${item}"${labelIn('unit', unit)}${labelIn('origin', origin)}` +
      `${labelIn('remediation', remediation)}${labelIn('ip_type', ipType)}`;
    sums.set(own, (sums.get(own) ?? 0) + value);
  }
  return [...sums].map(([own, value]) => [`${labels},${own}`, value]);
}

/** Sums by item and unit. Before any text is made of them: there are few of 20. */
function totalsOf(usage: readonly Usage[]): Usage[] {
  const totals: Usage[] = [];
  for (const one of usage) {
    const at = totals.findIndex(({ item, unit }) => item === one.item && unit === one.unit);
    const value = one.value + (totals[at]?.value ?? 0);
    const total = { ...one, origin: '', remediation: '', ipType: '', value };
    if (at < 0) totals.push(total);
    else totals[at] = total;
  }
  return totals;
}

/** A label after others. One that a bouncer leaves out is left out. */
function labelIn(name: string, text: string): Labels {
  return text === '' ? '' : `,${name}="${labelOf(text)}"`;
}

function samplesOf(labels: Labels, value: number | null): Sample[] {
  return value === null ? [] : [[labels, value]];
}

/** Null: never. */
function secondsOf(ms: number): number | null {
  return ms === 0 ? null : ms / 1000;
}

/** Made anew at each reading, so that no more than a slice of them is there at once. */
function each<T>(all: readonly T[], samples: (one: T) => readonly Sample[]): Iterable<Sample> {
  return {
    *[Symbol.iterator]() {
      for (const one of all) yield* samples(one);
    },
  };
}
