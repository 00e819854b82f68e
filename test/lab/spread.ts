// Bouncers at several places. Each keeps what it would enforce.
import type { Isolate, Isolates } from './isolates.ts';
import { clockHeader } from './isolates.ts';
import type { StreamAnswer } from './poller.ts';

/** What is banned, as far as a limit can tell it apart. */
export interface Banned {
  value: string;
  scope: string;
  origin: string;
}

/** What a bouncer may read. `max_decisions`: more than there are. */
export interface Limits {
  origins?: string[];
  scopes?: string[];
  max_decisions?: number;
}

export interface Member {
  /** Which of the places it is at. */
  place: number;
  limits: Limits | null;
  key: string;
  /** Scope and value of each decision that it enforces. */
  enforced: Set<string>;
  /** It has had its first answer. */
  isStarted: boolean;
}

const enrolledAtOnce = 8;

interface FleetOptions {
  count: number;
  places: number;
  /** Every second bouncer has one of these. */
  limits: readonly Limits[];
  /** What their names begin with. */
  name?: string;
}

/** Registers bouncers. */
export async function enrolFleet(
  { all: [isolate] }: Pick<Isolates, 'all'>,
  { count, places, limits, name: prefix = 'member' }: FleetOptions,
): Promise<Member[]> {
  const { operator } = isolate as Isolate;
  const members: Member[] = [];
  const enrol = async (at: number): Promise<void> => {
    const name = `${prefix}-${at}`;
    const made = await operator('POST', '/bouncers', { name });
    if (made.status !== 201) throw new Error(`POST /bouncers: ${made.status}`);
    const limited = at % 2 === 0 ? null : (limits[(at >> 1) % limits.length] ?? null);
    if (limited) {
      const ifMatch = { 'if-match': made.headers.get('etag') ?? '' };
      const { status } = await operator('PATCH', `/bouncers/${name}`, { view: limited }, ifMatch);
      if (status !== 200) throw new Error(`PATCH /bouncers/${name}: ${status}`);
    }
    // By halves: each place has limited and unlimited ones.
    const place = (at >> 1) % places;
    members[at] = { place, limits: limited, key: made.body.key, enforced: new Set(), isStarted: false };
  };
  for (let from = 0; from < count; from += enrolledAtOnce) {
    const size = Math.min(enrolledAtOnce, count - from);
    await Promise.all(Array.from({ length: size }, (_, at) => enrol(from + at)));
  }
  return members;
}

/** One poll, answered by this isolate. `nowMs`: the isolate's time from then on; left out where it has its own. */
export async function pollAt(member: Member, { url }: Pick<Isolate, 'url'>, nowMs?: number): Promise<void> {
  const headers: Record<string, string> = { 'x-api-key': member.key, 'user-agent': 'fleet/v1' };
  if (nowMs !== undefined) headers[clockHeader] = String(nowMs);
  const query = `startup=${!member.isStarted}&scopes=ip,range,country,as`;
  const response = await fetch(`${url}/v1/decisions/stream?${query}`, { headers });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`a poll was answered with ${response.status}: ${text}`);
  const answer = JSON.parse(text) as StreamAnswer;
  member.isStarted = true;
  for (const each of answer.deleted ?? []) member.enforced.delete(nameOf(each));
  for (const each of answer.new ?? []) member.enforced.add(nameOf(each));
}

/** How many of them do not enforce exactly what they are to. */
export function countWrong(members: readonly Member[], banned: readonly Banned[]): number {
  return members.filter(({ limits, enforced }) => {
    const due = banned.filter((each) => isAllowed(limits, each));
    return due.length !== enforced.size || !due.every((each) => enforced.has(nameOf(each)));
  }).length;
}

function isAllowed(limits: Limits | null, { origin, scope }: Banned): boolean {
  const { origins, scopes } = limits ?? {};
  return (origins?.includes(origin) ?? true) && (scopes?.includes(scope) ?? true);
}

function nameOf({ scope, value }: Pick<Banned, 'scope' | 'value'>): string {
  return `${scope.toLowerCase()} ${value}`;
}
