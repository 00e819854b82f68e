// The schemas that several settings share. Each refusal says what the text or field must be and never what it is, since
// it may be a secret. So no schema here may be left to zod's own words. Pure.

import * as z from 'zod';

/** A text that fits a rule. */
export function text(rule: RegExp, mustBe: string) {
  return z.string(mustBe).regex(rule, mustBe);
}

/** What `parse` makes of a text. Where it makes nothing of it, the text is refused. */
export function parsed<T>(mustBe: string, parse: (text: string) => T | null | undefined) {
  return z.string(mustBe).transform((given, context): T => {
    const value = parse(given);
    if (value !== null && value !== undefined) return value;
    context.addIssue({ code: 'custom', message: mustBe });
    return z.NEVER;
  });
}

/** A whole number that is written as digits. */
export function wholeNumber(least: number, most: number) {
  return parsed(`a whole number from ${least} to ${most}`, (digits) => {
    const number = /^\d+$/.test(digits) ? Number(digits) : NaN;
    return number >= least && number <= most ? number : null;
  });
}

/** The parts of a text between its commas. */
export const commaList = z.string().transform((list) => list.split(',').map((part) => part.trim()));

/** A JSON list. A refusal names the entry by its number and its field. */
export function jsonList<T extends z.ZodType>(what: string, entry: T) {
  return json.pipe(z.array(entry, `a JSON list of ${what}`));
}

/** A JSON value; `undefined` where the text is none, which the schema behind it refuses. */
export const json = z.string().transform((given): unknown => {
  try {
    return JSON.parse(given);
  } catch {
    return undefined;
  }
});

/** An object with these fields and no others. */
export function fields<T extends z.core.$ZodLooseShape>(shape: T) {
  return z.strictObject(shape, `an object with no fields but ${Object.keys(shape).join(', ')}`);
}

/** A list that is not empty. */
export function some<T extends z.ZodType>(entry: T, mustBe: string) {
  return z.array(entry, mustBe).min(1, mustBe);
}

/** A text that is not blank. */
export function filled(mustBe: string) {
  return text(/\S/, mustBe);
}

/** An address without user, query or fragment; null: it is none. */
export function parsePlainUrl(address: string): URL | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  return url.username + url.password + url.search + url.hash === '' ? url : null;
}
