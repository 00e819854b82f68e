// Texts of strangers that are kept: short, and without the long ones that they were cut from.

/** The beginning of a text. A copy, since a slice would hold all of the text in memory. */
export function cut(text: string, length: number): string {
  return text.length <= length ? text : structuredClone(text.slice(0, length));
}
