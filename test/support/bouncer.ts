// A bouncer as the feed's object sees one: pulls, keeps the ids it was given, forgets the values that ended.
import { env } from 'cloudflare:workers';
import type { StreamAnswer, StreamAsk } from '../../src/feed/questions.ts';
import type { Limits, View } from '../../src/feed/view.ts';

export const everything: View = {
  scopes: null,
  origins: null,
  scenariosContaining: null,
  scenariosNotContaining: null,
  value: null,
  type: null,
  within: null,
  dedup: true,
  limits: null,
};

export interface WireDecision {
  duration: string;
  id: number;
  origin: string;
  scenario: string;
  scope: string;
  type: string;
  value: string;
}

export interface Pulled {
  added: WireDecision[];
  ended: WireDecision[];
}

export const feed = () => env.DECISION_FEED.getByName('default');

/** Limits that let everything through but for what a test says. */
export function limitsOf(some: Partial<Limits>): Limits {
  return {
    scopes: null,
    origins: null,
    scenariosContaining: null,
    scenariosNotContaining: null,
    maxDecisions: null,
    ...some,
  };
}

export interface BouncerOptions {
  view?: View;
  bouncerId?: number;
  address?: string;
  /** Whom it asks. */
  asks?: () => { stream(ask: StreamAsk): PromiseLike<unknown> };
}

export function bouncer({
  view = everything,
  bouncerId = 1,
  address = '192.0.2.200',
  asks = feed,
}: BouncerOptions = {}) {
  const bans = new Map<string, WireDecision>();
  let limits = view.limits;

  const ask = (startup: boolean, gzip = false): Promise<StreamAnswer> => {
    const poll = { bouncerId, versionId: 1, address, seenMs: Date.now(), userAgent: 'test/1' };
    return asks().stream({
      poll,
      view: { ...view, limits },
      startup,
      gzip,
      sightings: [],
    }) as Promise<StreamAnswer>;
  };

  return {
    /** What its operator allows it from now on. */
    limit(to: Limits | null): void {
      limits = to;
    },
    limits: () => limits,
    /** A pull whose answer arrives. */
    async pull(startup: boolean, { gzip = false } = {}): Promise<Pulled> {
      const pulled = await readAnswer(await ask(startup, gzip));
      // Half of the bouncers apply `new` first: a value in both lists would be lost to one of the halves.
      const keys = new Set(pulled.added.map(keyOf));
      for (const ended of pulled.ended)
        if (keys.has(keyOf(ended))) throw new Error(`${ended.value} is in both lists`);
      if (startup) bans.clear();
      for (const ended of pulled.ended) bans.delete(keyOf(ended));
      for (const added of pulled.added) bans.set(keyOf(added), added);
      return pulled;
    },
    /** A pull whose answer is lost on its way. */
    async pullAndLose(startup = false): Promise<void> {
      await readAnswer(await ask(startup));
    },
    banned: () => [...bans.values()].map(({ value }) => value).sort(),
    keys: () => [...bans.keys()].sort(),
  };
}

export function keyOf({ scope, type, value }: Pick<WireDecision, 'scope' | 'type' | 'value'>): string {
  return `${scope} ${type} ${value}`;
}

async function readAnswer({ body, gzip }: StreamAnswer): Promise<Pulled> {
  if (body === null) return { added: [], ended: [] };
  const stream = typeof body === 'string' || !gzip ? body : body.pipeThrough(new DecompressionStream('gzip'));
  const json = (await new Response(stream).json()) as { new: WireDecision[]; deleted: WireDecision[] };
  return { added: json.new, ended: json.deleted };
}
