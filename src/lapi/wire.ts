// LAPI's JSON, both ways: one decision decoded from any engine's answer, decisions encoded as the newest
// engine writes them. Field order, escapes and whole-second durations are what bouncers were tested with.

import { formatDuration, parseDuration } from './duration.ts';
import { intern, type Decision } from '../feed/decision.ts';

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

/**
 * One decision of an engine's answer, or what is wrong with it. `baseMs` is when the request went out: the
 * engine's clock read no earlier, so `untilMs` is never later than the truth.
 */
export function decodeDecision(json: unknown, baseMs: number): Decision | string {
  if (typeof json !== 'object' || json === null) return 'a decision is not an object';
  const { id, uuid, origin, scenario, scope, type, value, duration } = json as Record<string, unknown>;
  if (typeof id !== 'number') return 'a decision has no numeric id';
  const texts = { origin, scenario, scope, type, value, duration };
  for (const [name, text] of Object.entries(texts)) {
    if (typeof text !== 'string') return `decision ${id} has no ${name}`;
  }
  const durationMs = parseDuration(duration as string);
  if (durationMs === undefined) return `decision ${id} has a duration that is none`;
  return {
    id,
    ...(typeof uuid === 'string' && uuid !== '' ? { uuid } : {}),
    origin: intern(origin as string),
    scenario: intern(scenario as string),
    scope: intern(scopeName(scope as string)),
    type: intern(type as string),
    value: value as string,
    untilMs: Math.floor(baseMs + durationMs),
  };
}

/** Go's encoding/json: besides JSON's own, `<`, `>`, `&` and the two line separators are escaped. */
function encodeText(text: string): string {
  if (!/[^ !#-%'-;=?-[\]-~\u0080-\u2027\u202a-\uffff]/.test(text)) return `"${text}"`;
  return JSON.stringify(text).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

const encoded = new Map<string, string>();

/** `encodeText` for texts that repeat from decision to decision. */
function encodeShared(text: string): string {
  const known = encoded.get(text);
  if (known !== undefined) return known;
  if (encoded.size >= 20_000) encoded.clear();
  const json = encodeText(text);
  encoded.set(text, json);
  return json;
}

/** One decision as bouncers read it. `uuid` is in stream answers only: LAPI does not select it for the list. */
export function encodeDecision(decision: Decision, seconds: number, withUuid: boolean): string {
  const uuid = withUuid && decision.uuid !== undefined ? `,"uuid":${encodeText(decision.uuid)}` : '';
  return (
    `{"duration":"${formatDuration(seconds)}","id":${decision.id},"origin":${encodeShared(decision.origin)}` +
    `,"scenario":${encodeShared(decision.scenario)},"scope":${encodeShared(decision.scope)}` +
    `,"type":${encodeShared(decision.type)}${uuid},"value":${encodeText(decision.value)}}`
  );
}

/** The stream answer that says "nothing changed". */
export const emptyStream = '{"new": [], "deleted": []}';
