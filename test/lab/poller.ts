// A bouncer that misses nothing of what it is told: polls one stream, keeps what a bouncer would enforce, and
// remembers every answer, so that a test can ask afterwards what was ever wrong.
import { setTimeout as delay } from 'node:timers/promises';
import type { Lapi } from './enforcers.ts';
import { until } from './wait.ts';

export interface StreamDecision {
  id: number;
  origin: string;
  scenario: string;
  scope: string;
  type: string;
  value: string;
  duration: string;
}

export interface StreamAnswer {
  new: StreamDecision[] | null;
  deleted: StreamDecision[] | null;
}

export interface Poller {
  /** The values it enforces after the newest answer. */
  values(): Set<string>;
  answers(): number;
  /** Which of `values` were not enforced after some answer, counted from answer number `since`. */
  lacked(values: string[], since?: number): string[];
  /** Every value that was ever reported as ended. */
  ended(): Set<string>;
  /** Polls that got anything but 200 and a whole body with both lists. */
  failures(): string[];
  /** Resolves after `count` more answers, or else the deadline of `until`. */
  untilAnswered(count: number): Promise<void>;
  untilHas(expected: { banned?: string[]; free?: string[] }): Promise<void>;
  stop(): Promise<void>;
}

/** `startup: true` asks for the full list each time, as a bouncer does that is restarted for ever. */
export function startPoller(lapi: Lapi, { startup = false, pauseMs = 100 } = {}): Poller {
  const history: Set<string>[] = [];
  const ended = new Set<string>();
  const failures: string[] = [];
  let current = new Set<string>();
  let first = true;
  const stopping = new AbortController();
  const polling = poll();

  async function poll() {
    while (!stopping.signal.aborted) {
      try {
        apply(await pullStream(lapi, `startup=${startup || first}&scopes=ip,range,country,as`));
        first = false;
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
      }
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  function apply(answer: StreamAnswer) {
    const next = new Set(startup ? [] : current);
    for (const { value } of answer.deleted ?? []) {
      next.delete(value);
      ended.add(value);
    }
    for (const { value } of answer.new ?? []) next.add(value);
    current = next;
    history.push(next);
  }

  return {
    values: () => current,
    answers: () => history.length,
    lacked(values, since = 0) {
      const all = history.slice(since);
      return values.filter((value) => all.some((each) => !each.has(value)));
    },
    ended: () => ended,
    failures: () => [...failures],
    async untilAnswered(count) {
      const target = history.length + count;
      await until(`${count} more polls are answered`, (saw) => {
        saw(failures.slice(-3));
        return history.length >= target;
      });
    },
    async untilHas({ banned = [], free = [] }) {
      await until(`the poller has [${banned.join(', ')}] and not [${free.join(', ')}]`, (saw) => {
        saw([[...current], failures.slice(-3)]);
        return banned.every((value) => current.has(value)) && free.every((value) => !current.has(value));
      });
    },
    async stop() {
      stopping.abort();
      await polling;
    },
  };
}

/** One pull of the stream; throws unless it is answered with 200 and one whole object with both lists. */
export async function pullStream({ url, key }: Lapi, query = ''): Promise<StreamAnswer> {
  // The same User-Agent each time: an engine writes a changed one to its database.
  const headers = { 'x-api-key': key, 'user-agent': 'lab/v1' };
  const response = await fetch(`${url}/v1/decisions/stream?${query}`, { headers });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`status ${response.status}: ${text}`);
  const answer = JSON.parse(text) as StreamAnswer;
  if (!('new' in answer && 'deleted' in answer)) throw new Error(`a list is missing: ${text}`);
  return answer;
}

/** The full list of `GET /v1/decisions`. */
export async function pullList({ url, key }: Lapi): Promise<StreamDecision[]> {
  const headers = { 'x-api-key': key, 'user-agent': 'lab/v1' };
  const response = await fetch(`${url}/v1/decisions`, { headers });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`status ${response.status}: ${text}`);
  return (JSON.parse(text) as StreamDecision[] | null) ?? [];
}

export const valuesOf = (list: StreamDecision[] | null): string[] =>
  list?.map(({ value }) => value).sort() ?? [];
