// What a case is: one request to both servers, what must have happened before, and how the answers may differ.
import type { DeviationId } from './deviations.ts';
import type { Ask, Pair } from './pair.ts';

export interface EngineVersion {
  readonly text: string;
  /** Whether the engine is of this release or a later one. */
  since(release: string): boolean;
}

/**
 * Every difference (compare.ts) that a case shows, word for word, under the deviation it belongs to.
 * A `*` stands for what changes from run to run or from release to release.
 */
export type Shows = Partial<Record<DeviationId, string[]>>;

export interface Case extends Ask {
  name: string;
  /** Brings cursors and decisions where the request needs them. */
  before?: (pair: Pair) => Promise<unknown>;
  /** Compares every header and the text itself as well. */
  layout?: boolean;
  /** The engine answers one of two things by chance: it is asked until the answers differ. */
  byChance?: boolean;
  shows?: Shows | ((engine: EngineVersion) => Shows);
}

export const streamPath = '/v1/decisions/stream';
export const listPath = '/v1/decisions';

export function versionOf(text: string): EngineVersion {
  const numbers = (release: string) =>
    (/^\d+\.\d+\.\d+/.exec(release)?.[0] ?? '0.0.0').split('.').map(Number);
  const own = numbers(text);
  return {
    text,
    since(release) {
      const other = numbers(release);
      const at = own.findIndex((number, index) => number !== other[index]);
      return at < 0 || (own[at] ?? 0) > (other[at] ?? 0);
    },
  };
}

const problems = {
  ip: 'not an IP address or a CIDR range',
  range: 'not an IP address or a CIDR range',
  contains: 'not true or false',
  limit: 'not a whole number',
  offset: 'not a whole number',
  id_gt: 'not a whole number',
};

/** A parameter that can not be read: LAPI's fault (500), the client's here (400). */
export function refused(field: keyof typeof problems): Shows {
  const message = `message * against "${field}: ${problems[field]}"`;
  return { 'bad-input': ['status 500 against 400', message] };
}

/** The same on the stream, where LAPI has begun its answer before it looks at the parameters. */
export function refusedStream(field: keyof typeof problems): (engine: EngineVersion) => Shows {
  const body = `body a stream answer against message "${field}: ${problems[field]}"`;
  const late: Shows = { 'bad-input': ['status 200 against 400', body] };
  return (engine) => (engine.since('1.7.8') ? late : refused(field));
}

/** A parameter that the engine of old does not know at all. */
export function refusedPage(field: 'limit' | 'offset' | 'id_gt'): (engine: EngineVersion) => Shows {
  const body = `body a list against message "${field}: ${problems[field]}"`;
  const unknown: Shows = { 'bad-input': ['status 200 against 400', body] };
  return (engine) => (engine.since('1.5.0') ? refused(field) : unknown);
}

/** Of an answer that has no body at LAPI. */
export const silent = 'type none against application/json';

/** What the text of every answer with decisions shows besides. */
export const cached: Shows = {
  'cache-control': ['header cache-control: none against no-store, no-transform'],
};
export const fractions: Shows = { 'whole-seconds': ['durations: LAPI has fractions of a second'] };
