// What a label may be. Reasons, origins and types of decisions are free text of engines and bouncers, so each is short, no
// address, and one of a bounded number. Pure.

import { cut } from '../formats/texts.ts';
import { createGenerations } from '../runtime/generations.ts';
import { escaped, type Labels, type Sample } from './exposition.ts';

/** The label of everything that has none of its own. */
export const other = 'other';

const longest = 100;
const address = /\d{1,3}(\.\d{1,3}){3}|[0-9a-f]{1,4}(:[0-9a-f]{0,4}){2,}/i;

/** The labels of texts: a scrape of 10,000 bouncers asks for 300,000, most of them the same. */
const known = createGenerations<string>(512 * 1024, (text) => 100 + 2 * text.length);

/** A text as a label, escaped. One with an address in it (`cscli decisions add --reason`) is `other`. */
export function labelOf(text: string): string {
  const labelled = known.get(text);
  if (labelled !== undefined) return labelled;
  const label = address.test(text) ? other : escaped(cut(text, longest));
  known.set(text, label);
  return label;
}

/** What is counted: some labels, and how many. */
export type Counted<Name extends string> = Readonly<Record<Name, string>> & { readonly count: number };

/** Adds up what has the same labels `names`. In each the texts that count most keep their label, `most` of them at most. */
export function tally<Name extends string>(
  counted: readonly Counted<NoInfer<Name>>[],
  most: Readonly<Record<Name, number>>,
): Sample[] {
  const names = (Object.keys(most) as Name[]).map((name) => {
    return { name, kept: mostCounted(counted, name, most[name]) };
  });
  const sums = new Map<Labels, number>();
  for (const each of counted) {
    let labels = '';
    for (const { name, kept } of names) {
      const label = labelOf(each[name]);
      labels += `${labels === '' ? '' : ','}${name}="${kept?.has(label) === false ? other : label}"`;
    }
    sums.set(labels, (sums.get(labels) ?? 0) + each.count);
  }
  return [...sums];
}

/** The labels that count most; null: all of them, since there are no more. */
function mostCounted<Name extends string>(
  counted: readonly Counted<Name>[],
  name: Name,
  most: number,
): Set<string> | null {
  if (counted.length <= most) return null;
  const sums = new Map<string, number>();
  for (const each of counted) {
    const label = labelOf(each[name]);
    sums.set(label, (sums.get(label) ?? 0) + each.count);
  }
  if (sums.size <= most) return null;
  const ordered = [...sums].sort(([, a], [, b]) => b - a);
  return new Set(ordered.slice(0, most).map(([label]) => label));
}
