// What is asked of a list, by its address and by the bouncer's policy. Pure. An address that is not understood is refused: a
// device with a word misspelled would get another list than its admin thinks.

import { formatNetwork, parseNetwork } from '../formats/ip.ts';
import { badInput, succeed, type Result } from '../http/failure.ts';
import { forms, type Format } from './formats.ts';
import type { ListName } from './names.ts';

/** What a policy may fix. Null: the address of the request says it. */
export interface FixedOptions {
  readonly family: 4 | 6 | null;
  /** Lines at most. */
  readonly limit: number | null;
  readonly aggregate: boolean | null;
  readonly placeholder: string | null;
}

export interface ListOptions extends ListName {
  readonly origins: readonly string[] | null;
  readonly aggregate: boolean;
  /** The name of the address list that MikroTik's lines add to. */
  readonly listName: string;
}

/** As many as the largest model of any vendor takes. */
export const mostLines = 5_000_000;
export const limitMustBe = `must be a whole number from 1 to ${mostLines}`;
export const placeholderMustBe = 'must be an IP address';

const parameters = ['family', 'origins', 'limit', 'aggregate', 'placeholder', 'list'];
const keyParameters =
  /^(?:x-)?(?:api[-_]?)?(?:key|token|password|passwd|pass|secret|auth|authorization|access_token)$/i;

/** `search`: the query of the address. What is fixed counts, whatever it says. */
export function readListOptions(
  name: ListName,
  search: string,
  fixed: FixedOptions | null,
): Result<ListOptions> {
  const query = readParameters(search, name.format);
  if (!query.ok) return query;
  const asked = readAsked(query.value);
  if (!asked.ok) return asked;
  const { origins, list, ...options } = asked.value;
  const family = fixed?.family ?? options.family ?? name.family;
  if (family !== null && !canHave(name, family)) return badInput('family', 'this list can not have it');
  const placeholder = fixed?.placeholder ?? options.placeholder ?? null;
  if (placeholder !== null && !canList(name, family, placeholder)) {
    return badInput('placeholder', 'this list can not have an address of its family');
  }
  const own = name.placeholder !== null && canList(name, family, name.placeholder) ? name.placeholder : null;
  return succeed({
    ...name,
    family,
    origins,
    limit: fixed?.limit ?? options.limit ?? name.limit,
    // A list of addresses alone could not have what they are merged into.
    aggregate: !name.hostsOnly && (fixed?.aggregate ?? options.aggregate ?? false),
    placeholder: placeholder ?? own,
    listName: list ?? 'crowdsec',
  });
}

/** The text of an address; undefined: it is none. */
export function readPlaceholder(text: string): string | undefined {
  const network = parseNetwork(text);
  return network && network.prefixBits === 8 * network.bytes.length ? formatNetwork(network) : undefined;
}

function canList(name: ListName, family: 4 | 6 | null, address: string): boolean {
  const its = address.includes(':') ? 6 : 4;
  return canHave(name, its) && (family ?? its) === its;
}

function canHave({ format, family: own }: ListName, family: 4 | 6): boolean {
  return forms[format].families.includes(family) && (own ?? family) === family;
}

function readParameters(search: string, format: Format): Result<ReadonlyMap<string, string>> {
  const query = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(search)) {
    if (keyParameters.test(name) || /^cs[beo]_/.test(name)) {
      // Neither the value nor a name that may be the key is repeated.
      return badInput('query', 'a key does not belong in an address: send it as the password of HTTP Basic');
    }
    // Only short plain names are repeated.
    if (!parameters.includes(name) || (name === 'list' && format !== 'mikrotik')) {
      return badInput(/^[a-z_-]{1,20}$/.test(name) ? name : 'query', 'unknown parameter');
    }
    if (query.has(name)) return badInput(name, 'stands there twice');
    query.set(name, value);
  }
  return succeed(query);
}

interface Asked {
  readonly family: 4 | 6 | null;
  readonly origins: readonly string[] | null;
  readonly limit: number | null;
  readonly aggregate: boolean | null;
  readonly placeholder: string | null;
  readonly list: string | null;
}

function readAsked(query: ReadonlyMap<string, string>): Result<Asked> {
  const family = query.get('family');
  if (family !== undefined && family !== '4' && family !== '6') return badInput('family', 'must be 4 or 6');
  const origins = query.get('origins')?.split(',') ?? null;
  if (origins?.includes('') === true) return badInput('origins', 'must be names with commas between them');
  const limit = query.get('limit');
  const most = limit === undefined ? null : /^\d{1,7}$/.test(limit) ? Number(limit) : 0;
  if (most !== null && (most < 1 || most > mostLines)) return badInput('limit', limitMustBe);
  const aggregate = query.get('aggregate');
  if (aggregate !== undefined && aggregate !== '0' && aggregate !== '1') {
    return badInput('aggregate', 'must be 1 or 0');
  }
  const address = query.get('placeholder');
  const placeholder = address === undefined ? null : readPlaceholder(address);
  if (placeholder === undefined) return badInput('placeholder', placeholderMustBe);
  const list = query.get('list') ?? null;
  if (list !== null && !/^[\w-]{1,32}$/.test(list)) {
    return badInput('list', 'must be 1 to 32 letters, digits, - and _');
  }
  return succeed({
    family: family === undefined ? null : family === '4' ? 4 : 6,
    origins,
    limit: most,
    aggregate: aggregate === undefined ? null : aggregate === '1',
    placeholder,
    list,
  });
}
