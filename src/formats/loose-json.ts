// JSON that came from outside and of whose form nothing is known. Pure.

export type Json = Readonly<Record<string, unknown>>;

/** An object; one without fields in place of anything else. */
export function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

/** The objects of a list. The lua bouncers post an object in place of an empty list. */
export function listOf(value: unknown, name: string): Json[] {
  const list = objectOf(value)[name];
  return Array.isArray(list) ? list.map(objectOf) : [];
}
