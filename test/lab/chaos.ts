// What goes wrong between an engine and those who ask it, all of it at random: each answer is the truth, late, in another
// order or in small pieces, or it is cut off, spoilt or never given, or well-formed and wrong.
import type { ServerResponse } from 'node:http';
import { type Lie, lies, sendInstead, sendTruth, type Truth } from './liar.ts';

export interface Chaos {
  lie: Lie;
  /** From now on answers are wrong in content, too. To be called once there is a state to compare them with. */
  deceive(): void;
  /** Ends what is still unanswered; the truth is up to the liar. */
  calm(): void;
  /** How often each kind came. */
  counts(): Record<string, number>;
}

const longestSilenceMs = 15_000;
const longestDelayMs = 3_000;
const dripBytes = 512;
const dripPauseMs = 5;
const spoilt = [
  'status 500',
  'status 403',
  'a body cut before its Content-Length',
  'a chunked body without its end',
  'a page of HTML',
  'an empty body',
  'an empty object',
  'bytes of no meaning',
] as const;

interface Element {
  id: number;
  scope: string;
  value: string;
}

export function chaosFrom(random: () => number): Chaos {
  const counts: Record<string, number> = {};
  const waiting = new Map<ServerResponse, NodeJS.Timeout>();
  let deceiving = false;
  // Two lists in a row that miss the same are believed, as they must be: after one that misses much comes a true one.
  let owesTruth = false;

  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const shuffled = (all: Element[]): Element[] =>
    all
      .map((each) => [random(), each] as const)
      .sort(([a], [b]) => a - b)
      .map(([, each]) => each);

  /** Later, unless the client has gone by then or `calm` comes first. */
  function later(response: ServerResponse, ms: number, then: () => void) {
    const forget = () => {
      clearTimeout(waiting.get(response));
      waiting.delete(response);
    };
    // A body in drops is one response that comes back again and again.
    if (!waiting.has(response)) response.once('close', forget);
    waiting.set(response, setTimeout(then, ms));
  }

  const change = (what: (all: Element[]) => unknown[]): Lie =>
    sendInstead(({ subject, body }: Truth) => {
      const answer = JSON.parse(body.toString()) as Element[] | Record<string, Element[] | null> | null;
      if (subject !== 'stream') return JSON.stringify(what((answer as Element[] | null) ?? []));
      const { new: added, deleted } = answer as Record<string, Element[] | null>;
      return JSON.stringify({ new: what(added ?? []), deleted: shuffled(deleted ?? []) });
    });

  const honest: Record<string, Lie> = {
    slow: (truth, response) => later(response, random() * longestDelayMs, () => sendTruth(truth, response)),
    drip(truth, response) {
      response.writeHead(truth.status, { 'content-type': truth.type, 'content-length': truth.body.length });
      const drop = (at: number) => {
        if (at >= truth.body.length) return response.end();
        response.write(truth.body.subarray(at, at + dripBytes));
        return later(response, dripPauseMs, () => drop(at + dripBytes));
      };
      drop(0);
    },
    silence: (_, response) => later(response, random() * longestSilenceMs, () => response.destroy()),
    'silence in mid-body'(truth, response) {
      lies['silence in mid-body'](truth, response);
      later(response, random() * longestSilenceMs, () => response.destroy());
    },
    'another order': change(shuffled),
    ...Object.fromEntries(spoilt.map((name) => [name, lies[name]])),
  };
  const deceptive: Record<string, Lie> = {
    'elements that are none': change((all) => shuffled([...all, ...([null, {}, { id: 'x' }, 7] as never[])])),
    'elements that have become unreadable': change((all) =>
      all.map((each) => (random() < 0.1 ? { ...each, duration: 'soon' } : each)),
    ),
    'durations that are none': lies['durations that are none'],
    // Two spellings of one network: they come and go together.
    'somebody who is not banned': change((all) => {
      const [like] = all;
      if (!like) return all;
      const { id } = like;
      const value = '203.0.113.255';
      return [
        ...all,
        { ...like, id: id + 1_000_000, scope: 'Ip', value },
        { ...like, id: id + 2_000_000, scope: 'Range', value },
      ];
    }),
  };
  /** Of the stream this loses news, which a stream does anyway; of a list it is a gap. */
  const gap: Lie = change((all) => shuffled(all).slice(0, Math.floor(all.length * random() * 0.5)));

  function choose({ subject, status }: Truth): [name: string, lie: Lie] {
    if (random() < 0.4 || status !== 200 || !['stream', 'list', 'tail'].includes(subject)) {
      return random() < 0.2 ? ['status 500', lies['status 500']] : ['truth', sendTruth];
    }
    const owing = owesTruth && subject === 'list';
    if (deceiving && random() < 0.4) {
      return random() < 0.4 && !owing ? ['a gap', gap] : pick(Object.entries(deceptive));
    }
    return pick(Object.entries(honest));
  }

  return {
    lie(truth, response) {
      const [name, lie] = choose(truth);
      counts[name] = (counts[name] ?? 0) + 1;
      if (truth.subject === 'list' && name === 'a gap') owesTruth = true;
      if (truth.subject === 'list' && name === 'truth' && truth.status === 200) owesTruth = false;
      lie(truth, response);
    },
    deceive() {
      deceiving = true;
    },
    calm() {
      for (const [response, timer] of waiting) {
        clearTimeout(timer);
        response.destroy();
      }
    },
    counts: () => counts,
  };
}
