// LAPI's JSON, both ways: one decision decoded from any engine's answer, decisions encoded as the newest
// engine writes them. Field order, escapes and whole-second durations are what bouncers were tested with.

import { formatDuration, longestMs, parseDuration } from './duration.ts';
import type { Decision } from './decision.ts';
import { intern } from './texts.ts';
import type { Element } from './json-split.ts';
import { createGenerations } from '../runtime/generations.ts';

const scopeNames: Readonly<Record<string, string>> = {
  ip: 'Ip',
  range: 'Range',
  country: 'Country',
  as: 'AS',
};

/** LAPI's spelling of the four scopes it knows, whatever their case; any other scope as it is. */
export function scopeName(scope: string): string {
  return scopeNames[scope.toLowerCase()] ?? scope;
}

/** An element of an engine's answer that is not a decision. */
export interface Unreadable {
  /** The decision's id, where that much can be read: the engine still has a decision of this id. */
  readonly id: number | null;
  readonly problem: string;
}

/** The end of a decision without one. LAPI writes its longest duration, 292 years, for such a decision. */
const noEndMs = Date.UTC(9999, 11, 31);

/**
 * One decision of an engine's answer, or what is wrong with it. `baseMs` is when the request went out: the
 * engine's clock read no earlier, so `untilMs` is never later than the truth.
 */
export function decodeDecision(element: Element, baseMs: number): Decision | Unreadable {
  if (element.problem !== undefined) return { id: idIn(element.head), problem: element.problem };
  const { json } = element;
  if (typeof json !== 'object' || json === null) return { id: null, problem: 'is not an object' };
  const { id, uuid, origin, scenario, scope, type, value, duration } = json as Record<string, unknown>;
  if (typeof id !== 'number') return { id: null, problem: 'has no numeric id' };
  if (!Number.isSafeInteger(id) || id <= 0) return { id: null, problem: 'has an id that is out of range' };
  const texts = { origin, scenario, scope, type, value, duration };
  for (const [name, text] of Object.entries(texts)) {
    if (typeof text !== 'string') return { id, problem: `has no ${name}` };
  }
  const durationMs = parseDuration(duration as string);
  if (durationMs === undefined) return { id, problem: 'has a duration that can not be read' };
  return {
    id,
    ...(typeof uuid === 'string' && uuid !== '' ? { uuid } : {}),
    origin: intern(origin as string),
    scenario: intern(scenario as string),
    scope: intern(scopeName(scope as string)),
    type: intern(type as string),
    value: value as string,
    untilMs: durationMs === longestMs ? noEndMs : Math.floor(baseMs + durationMs),
  };
}

/** The id in the head of an element. A wrong guess only keeps a decision until the next list. */
function idIn(head: string): number | null {
  const id = Number(/"id"\s*:\s*(\d{1,15})\b/.exec(head)?.[1]);
  return id > 0 ? id : null;
}

/** Go's encoding/json: besides JSON's own, `<`, `>`, `&` and the two line separators are escaped. */
function encodeText(text: string): string {
  if (!/[^ !#-%'-;=?-[\]-~\u0080-\u2027\u202a-\uffff]/.test(text)) return `"${text}"`;
  return JSON.stringify(text).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

const encoded = createGenerations<string>(4 * 1024 * 1024, (text, json) => 50 + text.length + json.length);

/** `encodeText` for texts that repeat from decision to decision. */
function encodeShared(text: string): string {
  const known = encoded.get(text);
  if (known !== undefined) return known;
  const json = encodeText(text);
  encoded.set(text, json);
  return json;
}

const longestSeconds = Math.floor(longestMs / 1000);

/** One decision as bouncers read it. `uuid` is in stream answers only: LAPI does not select it for the list. */
export function encodeDecision(decision: Decision, seconds: number, withUuid: boolean): string {
  const bounded = Math.max(-longestSeconds, Math.min(seconds, longestSeconds));
  const uuid = withUuid && decision.uuid !== undefined ? `,"uuid":${encodeText(decision.uuid)}` : '';
  return (
    `{"duration":"${formatDuration(bounded)}","id":${decision.id},"origin":${encodeShared(decision.origin)}` +
    `,"scenario":${encodeShared(decision.scenario)},"scope":${encodeShared(decision.scope)}` +
    `,"type":${encodeShared(decision.type)}${uuid},"value":${encodeText(decision.value)}}`
  );
}

/** The list of no decision. With `[]` fbtraefik and thespad ban the client, and nginx Lua answers 500. */
export const emptyList = 'null';

/** The stream answer that says "nothing changed". */
export const emptyStream = '{"new": [], "deleted": []}';
