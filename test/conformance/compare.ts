// What differs between an engine's answer and Lapidary's, as lines for people: `new: only LAPI has …`. Pure.
// Durations within a few seconds, `null` for an empty stream list, order, and layout count as equal here
// (`layoutDifferences` is for those); everything else must be the same or be listed as a deviation.

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

interface Decision {
  readonly id: number;
  readonly duration: string;
  readonly [field: string]: unknown;
}

type Content =
  | { readonly kind: 'nothing' | 'null' }
  | { readonly kind: 'a list'; readonly lists: Readonly<Record<string, readonly Decision[]>> }
  | { readonly kind: 'a stream answer'; readonly lists: Readonly<Record<string, readonly Decision[]>> }
  | { readonly kind: 'an object'; readonly fields: Readonly<Record<string, unknown>> }
  | { readonly kind: 'text'; readonly text: string };

/** Lapidary was asked second, and mirrors what the engine said a moment before: it may lag this much. */
const lagSeconds = 6;

/** Bouncers see each of these; whatever else an answer carries is for `layoutDifferences`. */
const headersThatMatter = [
  'location',
  'allow',
  'www-authenticate',
  'content-encoding',
  'retry-after',
  'set-cookie',
];

export function differences(lapi: Reply, lapidary: Reply): string[] {
  const lines: string[] = [];
  const against = (what: string, a: unknown, b: unknown): void => {
    if (a !== b) lines.push(`${what} ${String(a)} against ${String(b)}`);
  };
  against('status', lapi.status, lapidary.status);
  for (const name of headersThatMatter) {
    against(name, lapi.headers[name] ?? 'none', lapidary.headers[name] ?? 'none');
  }
  against('type', mediaType(lapi), mediaType(lapidary));
  lines.push(...contentDifferences(contentOf(lapi.body), contentOf(lapidary.body)));
  if (lapidary.body === 'null') against('length of null', '4', lapidary.headers['content-length']);
  return lines;
}

/** Everything that `differences` overlooks: all headers, and the text but for ids, durations and uuids. */
export function layoutDifferences(lapi: Reply, lapidary: Reply): string[] {
  const lines: string[] = [];
  const perAnswer = ['date', 'connection', 'keep-alive', 'content-length', 'transfer-encoding'];
  const names = new Set([...Object.keys(lapi.headers), ...Object.keys(lapidary.headers)]);
  for (const name of [...names].filter((each) => !perAnswer.includes(each)).sort()) {
    const [a, b] = [lapi.headers[name] ?? 'none', lapidary.headers[name] ?? 'none'];
    if (a !== b) lines.push(`header ${name}: ${a} against ${b}`);
  }
  if (framing(lapi) !== framing(lapidary))
    lines.push(`framing ${framing(lapi)} against ${framing(lapidary)}`);
  const [a, b] = [layoutOf(lapi.body), layoutOf(lapidary.body)];
  if (a !== b) lines.push(`text ${a} against ${b}`);
  lines.push(...orderDifferences(contentOf(lapi.body), contentOf(lapidary.body)));
  if (/"duration":"[^"]*\.\d/.test(lapi.body)) lines.push('durations: LAPI has fractions of a second');
  return lines;
}

/** Of the decisions that both have. The list is in no order at LAPI (cases-list.ts). */
function orderDifferences(lapi: Content, lapidary: Content): string[] {
  if (lapi.kind !== 'a stream answer' || lapidary.kind !== 'a stream answer') return [];
  return Object.keys(lapi.lists)
    .filter((name) => {
      const [a, b] = [lapi, lapidary].map(({ lists }) => lists[name]?.map(({ id }) => id) ?? []);
      const inBoth = (id: number): boolean => a.includes(id) && b.includes(id);
      return a.filter(inBoth).join() !== b.filter(inBoth).join();
    })
    .map((name) => `${name}: in another order`);
}

function layoutOf(body: string): string {
  return body
    .replaceAll(/"duration":"[^"]*"/g, '"duration":"#"')
    .replaceAll(/"id":\d+/g, '"id":#')
    .replaceAll(/"uuid":"[^"]*",/g, '');
}

function framing({ headers }: Reply): string {
  if (headers['transfer-encoding'] !== undefined) return headers['transfer-encoding'];
  return headers['content-length'] === undefined ? 'none' : 'length';
}

function mediaType({ headers }: Reply): string {
  return headers['content-type']?.split(';')[0] ?? 'none';
}

function contentOf(body: string): Content {
  if (body === '') return { kind: 'nothing' };
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return { kind: 'text', text: body };
  }
  // Some clients compare these four bytes; with a line end they are another text.
  if (json === null) return body === 'null' ? { kind: 'null' } : { kind: 'text', text: body };
  if (Array.isArray(json)) return { kind: 'a list', lists: { list: json as Decision[] } };
  if (typeof json !== 'object') return { kind: 'text', text: body };
  const fields = json as Record<string, unknown>;
  if (!('new' in fields && 'deleted' in fields)) return { kind: 'an object', fields };
  const lists = {
    new: (fields['new'] ?? []) as Decision[],
    deleted: (fields['deleted'] ?? []) as Decision[],
  };
  return { kind: 'a stream answer', lists };
}

function contentDifferences(lapi: Content, lapidary: Content): string[] {
  if (lapi.kind === 'an object' && lapidary.kind === 'an object') {
    return fieldDifferences(lapi.fields, lapidary.fields);
  }
  if ('lists' in lapi && 'lists' in lapidary && lapi.kind === lapidary.kind) {
    return Object.keys(lapi.lists).flatMap((name) =>
      listDifferences(name, lapi.lists[name] ?? [], lapidary.lists[name] ?? []),
    );
  }
  // A list against `null` is told row by row: the rows are what differs.
  if (lapi.kind === 'a list' && lapidary.kind === 'null') {
    return listDifferences('list', lapi.lists['list'] ?? [], []);
  }
  if (lapi.kind === 'null' && lapidary.kind === 'a list' && lapidary.lists['list']?.length !== 0) {
    return listDifferences('list', [], lapidary.lists['list'] ?? []);
  }
  const [a, b] = [describeContent(lapi), describeContent(lapidary)];
  return a === b ? [] : [`body ${a} against ${b}`];
}

function describeContent(content: Content): string {
  switch (content.kind) {
    case 'text':
      return `text ${content.text.trim()}`;
    case 'an object':
      return 'message' in content.fields ? `message "${String(content.fields['message'])}"` : 'an object';
    default:
      return content.kind;
  }
}

function fieldDifferences(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].flatMap((name) => {
    if (!(name in a)) return [`body: only Lapidary has ${name}`];
    if (!(name in b)) return [`body: only LAPI has ${name}`];
    return a[name] === b[name] ? [] : [`${name} "${String(a[name])}" against "${String(b[name])}"`];
  });
}

function listDifferences(name: string, lapi: readonly Decision[], lapidary: readonly Decision[]): string[] {
  const lines: string[] = [];
  const ours = new Map(lapidary.map((decision) => [decision.id, decision]));
  const theirs = new Map(lapi.map((decision) => [decision.id, decision]));
  if (ours.size !== lapidary.length) lines.push(`${name}: Lapidary has an id twice`);
  for (const decision of lapi) {
    const twin = ours.get(decision.id);
    if (!twin) lines.push(`${name}: only LAPI has ${describe(decision)}`);
    else
      lines.push(
        ...decisionDifferences(decision, twin).map((line) => `${name}: ${describe(decision)}: ${line}`),
      );
  }
  for (const decision of lapidary) {
    if (!theirs.has(decision.id)) lines.push(`${name}: only Lapidary has ${describe(decision)}`);
    if (name !== 'deleted' && secondsOf(decision.duration) < 1)
      lines.push(`${name}: ${describe(decision)} has ended`);
  }
  return lines.sort();
}

function decisionDifferences(lapi: Decision, lapidary: Decision): string[] {
  const fields = new Set([...Object.keys(lapi), ...Object.keys(lapidary)]);
  const lines: string[] = [];
  for (const field of fields) {
    const [a, b] = [lapi[field], lapidary[field]];
    // Lapidary has the uuid of decisions that came in with a delta, not with the full list.
    if (field === 'duration' || (field === 'uuid' && b === undefined)) continue;
    if (a !== b) lines.push(`${field} ${JSON.stringify(a)} against ${JSON.stringify(b)}`);
  }
  const [theirs, ours] = [secondsOf(lapi.duration), secondsOf(lapidary.duration)];
  if (!/^-?(\d+h)?(\d+m)?\d+s$/.test(lapidary.duration)) lines.push(`duration is ${lapidary.duration}`);
  // An engine that rounds may be half a second short of the truth; one that does not never is.
  const mostSeconds = Number.isInteger(theirs) ? theirs + 1 : theirs;
  const tooLong = ours > 0 && ours > mostSeconds;
  if (tooLong || Math.abs(ours - theirs) > lagSeconds) {
    lines.push(`duration ${lapi.duration} against ${lapidary.duration}`);
  }
  return lines;
}

/** `Ip 192.0.2.1 ban cscli 4h`; the hours left, rounded up, tell decisions on one value apart. */
function describe(decision: Decision): string {
  const { scope, value, type, origin, duration } = decision;
  const hours = Math.ceil(secondsOf(duration) / 3600);
  const left = hours > 0 ? ` ${hours}h` : '';
  return `${String(scope)} ${String(value)} ${String(type)} ${String(origin)}${left}`;
}

const unitSeconds: Readonly<Record<string, number>> = { h: 3600, m: 60, s: 1, ms: 1e-3, µs: 1e-6, ns: 1e-9 };

function secondsOf(duration: string): number {
  let seconds = 0;
  for (const [, count, unit] of duration.matchAll(/([\d.]+)(h|ms|m|s|µs|ns)/g)) {
    seconds += Number(count) * (unitSeconds[unit as string] ?? NaN);
  }
  return duration.startsWith('-') ? -seconds : seconds;
}
