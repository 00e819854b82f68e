// A bouncer as the feed's object sees one: pulls, keeps the ids it was given, forgets the values that ended. It keeps
// them twice: by text and without a clock, as most do, and as a kernel's set, which has networks that time out.
import { env } from 'cloudflare:workers';
import type { StreamAsk } from '../../src/feed/questions.ts';
import type { StreamAnswer } from '../../src/stream/poll.ts';
import type { Limits, View } from '../../src/mirror/view.ts';
import { parseDuration } from '../../src/formats/duration.ts';
import { elementOf } from './spellings.ts';

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

/** Null: nothing has changed. */
type Asked = Pick<StreamAnswer, 'body' | 'gzip'> | null;

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
  /** Element → when it times out: that of the last ban that it was told of, as in ipset. */
  const set = new Map<string, number>();
  let limits = view.limits;

  const ask = (startup: boolean, gzip = false): Promise<Asked> => {
    const poll = { bouncerId, versionId: 1, address, seenMs: Date.now(), userAgent: 'test/1' };
    return asks().stream({
      poll,
      view: { ...view, limits },
      startup,
      gzip,
      sightings: [],
    }) as Promise<Asked>;
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
      const elements = new Set(pulled.added.map(elementOf));
      for (const ended of pulled.ended)
        if (elements.has(elementOf(ended))) throw new Error(`${ended.value} is in both lists`);
      demandOneText(pulled.ended);
      if (startup) {
        bans.clear();
        set.clear();
      }
      for (const ended of pulled.ended) {
        bans.delete(keyOf(ended));
        set.delete(elementOf(ended));
      }
      for (const added of pulled.added) {
        bans.set(keyOf(added), added);
        set.set(elementOf(added), Date.now() + (parseDuration(added.duration) ?? NaN));
      }
      return pulled;
    },
    /** Pulls until there is nothing more to be told. */
    async pullAll(): Promise<void> {
      for (let polls = 0; polls < 20; polls++) {
        const { added, ended } = await this.pull(false);
        if (added.length + ended.length === 0) return;
      }
      throw new Error('there is no end of answers');
    },
    /** A pull whose answer is lost on its way. */
    async pullAndLose(startup = false): Promise<void> {
      await readAnswer(await ask(startup));
    },
    banned: () => [...bans.values()].map(({ value }) => value).sort(),
    keys: () => [...bans.keys()].sort(),
    decisions: () => [...bans.values()],
    /** What the kernel's set has now. */
    elements: () => [...set].flatMap(([element, untilMs]) => (untilMs > Date.now() ? [element] : [])).sort(),
  };
}

export function keyOf({ scope, type, value }: Pick<WireDecision, 'scope' | 'type' | 'value'>): string {
  return `${scope} ${type} ${value}`;
}

/** The kernel takes none of a batch that removes one element twice; the firewall bouncer knows equal texts only. */
function demandOneText(ended: readonly WireDecision[]): void {
  const texts = new Map<string, string>();
  for (const one of ended) {
    const text = texts.get(elementOf(one)) ?? one.value;
    if (text !== one.value) throw new Error(`${one.value} and ${text} end in one answer`);
    texts.set(elementOf(one), text);
  }
}

async function readAnswer(answer: Asked): Promise<Pulled> {
  const { body, gzip } = answer ?? { body: null, gzip: false };
  if (body === null) return { added: [], ended: [] };
  const stream = typeof body === 'string' || !gzip ? body : body.pipeThrough(new DecompressionStream('gzip'));
  const json = (await new Response(stream).json()) as { new: WireDecision[]; deleted: WireDecision[] };
  return { added: json.new, ended: json.deleted };
}
