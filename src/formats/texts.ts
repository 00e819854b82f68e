// Texts from outside that are kept in memory: short, and once each.

import { createGenerations } from '../runtime/generations.ts';

/** The beginning of a text. A copy, since a slice would hold the whole text in memory. */
export function cut(text: string, length: number): string {
  return text.length <= length ? text : structuredClone(text.slice(0, length));
}

const interned = createGenerations<string>(4 * 1024 * 1024, (text) => 50 + text.length);

/**
 * One copy of a text that many decisions share (scope, origin, scenario): at 100,000 decisions one megabyte in place of a
 * dozen. Bounded, since a scenario is free text.
 */
export function intern(text: string): string {
  const known = interned.get(text);
  if (known !== undefined) return known;
  interned.set(text, text);
  return text;
}

/** Numbers for texts that many share. A text is kept as long as one of them holds it. */
export function createTextNumbers() {
  const numbers = new Map<string, number>();
  const texts: string[] = [];
  const holders: number[] = [];
  const unused: number[] = [];

  return {
    textOf: (number: number): string => texts[number] as string,

    /** The number of a text, for one more that holds it. */
    hold(text: string): number {
      const number = numbers.get(text) ?? unused.pop() ?? texts.length;
      numbers.set(text, number);
      texts[number] = text;
      holders[number] = (holders[number] ?? 0) + 1;
      return number;
    },

    letGo(text: string): void {
      const number = numbers.get(text) as number;
      const left = (holders[number] as number) - 1;
      holders[number] = left;
      if (left > 0) return;
      numbers.delete(text);
      texts[number] = '';
      unused.push(number);
    },
  };
}
