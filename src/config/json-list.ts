// Settings that are JSON lists: an entry each, every field checked, and what was wrong said without its value, which may
// be a secret.

export type EntriesRead<T> =
  { readonly ok: true; readonly entries: readonly T[] } | { readonly ok: false; readonly mustBe: string };

/** The entries of a JSON list, each by `readEntry`; or what the setting must be. `before`: those read so far. */
export function readEntries<T>(
  json: string,
  what: string,
  readEntry: (entry: Record<string, unknown>, before: readonly T[]) => T | string,
): EntriesRead<T> {
  if (json === '') return { ok: true, entries: [] };
  let list: unknown;
  try {
    list = JSON.parse(json);
  } catch {
    list = undefined;
  }
  if (!Array.isArray(list)) return { ok: false, mustBe: `a JSON list of ${what}` };
  const entries: T[] = [];
  for (const [index, entry] of list.entries()) {
    const read = isObject(entry) ? readEntry(entry, entries) : 'an object';
    if (typeof read === 'string') {
      return { ok: false, mustBe: `a JSON list of ${what}; number ${index + 1} must have ${read}` };
    }
    entries.push(read);
  }
  return { ok: true, entries };
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function onlyKnows(object: object, names: readonly string[]): boolean {
  return Object.keys(object).every((name) => names.includes(name));
}

export function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== '';
}

export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 && value.every(isText);
}
