// The names under /lists: formats, and vendors, by whose names people look for theirs. Pure.

import { formats, type Format } from './formats.ts';

/** What a name stands for. What a request or a policy sets counts instead of what is set here. */
export interface ListName {
  readonly format: Format;
  readonly family: 4 | 6 | null;
  /** Lines at most: a device leaves out what is too much for it, in its own order. */
  readonly limit: number | null;
  /** Listed where nothing else is: some devices keep the list that they have when they get an empty one. */
  readonly placeholder: string | null;
  /** No line may be a range. */
  readonly hostsOnly: boolean;
}

const plain: ListName = { format: 'plain', family: null, limit: null, placeholder: null, hostsOnly: false };

/** Nothing comes from it: RFC 5737. */
const nobody = '192.0.2.1';

const names = new Map<string, ListName>([
  ...formats.map((format) => [format, { ...plain, format }] as const),
  // The least that a model takes (docs/lists.md).
  ['paloalto', { ...plain, limit: 50_000 }],
  ['fortigate', { ...plain, limit: 131_072 }],
  ['cisco', { ...plain, placeholder: nobody }],
  ['juniper', { ...plain, format: 'cidr' }],
  ['pfsense', { ...plain, placeholder: nobody }],
  ['opnsense', plain],
  ['sophos', { ...plain, family: 4, hostsOnly: true }],
]);

export const listNames: readonly string[] = [...names.keys()];

/** What the last part of a path stands for: `juniper` or `juniper.txt`, which is the only ending that Juniper reads. */
export function readListName(file: string): ListName | undefined {
  return names.get(file.replace(/\.txt$/, ''));
}
