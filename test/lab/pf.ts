// A table of pf, as `pfctl -t NAME -T replace -f FILE` loads it: pfctl(8), and pf.conf(5), TABLES. Debian has no pfctl.
import { entryOf, nameOf, readNetwork, type Entry, type Reading } from './spans.ts';

/** pfctl's buffer for an entry, with the NUL behind it. */
const longestEntry = 255;

/**
 * Entries stand between blanks and line ends; where one begins with `#`, the rest of its line is a comment. An address may
 * have a prefix, without bits of host. Anything else is looked up, as `self`, an interface with or without `:network` and
 * the like, or as a host's name, and then a whole file may fail, or ban what nobody meant: it is refused here. So is `!`,
 * which takes an entry out of the table, and an entry that is there already.
 */
export function readTable(file: string): Reading {
  const entries: Entry[] = [];
  const refused: string[] = [];
  const known = new Set<string>();
  const words = file.split('\n').flatMap((line) => line.replace(/(^|\s)#.*$/, '').split(/[ \t\v\f\r]+/));
  for (const text of words.filter((word) => word !== '')) {
    const span = readNetwork(text.replace(/^!+/, ''));
    if (text.length > longestEntry) refused.push(`longer than pfctl's buffer: ${text.slice(0, 20)}…`);
    else if (!span) refused.push(`would be looked up: ${text}`);
    else if (text.startsWith('!')) refused.push(`is let through: ${text}`);
    else if (known.has(nameOf(span))) refused.push(`there twice: ${text}`);
    else {
      known.add(nameOf(span));
      entries.push(entryOf(span, text));
    }
  }
  return { entries, refused };
}
