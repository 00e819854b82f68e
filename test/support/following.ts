// Isolates before the feed, each of which follows it: what a bouncer meets on Cloudflare, where its polls go to any of them.
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import { createFeedClient } from '../../src/feed/client.ts';
import type { StreamBody } from '../../src/feed/follower.ts';
import type { StreamAsk } from '../../src/feed/questions.ts';

export type Isolates = ReturnType<typeof throughIsolates>;

/** Each poll goes to the next isolate of the route. `feed`: whom they ask; the real object if it is left out. */
export function throughIsolates(route: readonly number[], feed?: () => object) {
  const bindings = feed ? ({ ...env, DECISION_FEED: { getByName: feed } } as unknown as Env) : env;
  const isolates = new Map(route.map((isolate) => [isolate, createFeedClient()]));
  let polls = 0;
  return {
    /** One ends, with all that it knows; another takes its place. */
    lose(which: number): void {
      isolates.set(route[which % route.length], createFeedClient());
    },
    async stream({ poll, view, startup, gzip }: StreamAsk): Promise<StreamBody> {
      const isolate = isolates.get(route[polls++ % route.length]);
      const answer = await isolate?.stream(bindings, poll, view, startup, {
        gzip: () => gzip,
        store: () => undefined,
      });
      if (answer === undefined || (answer && 'kind' in answer)) throw new Error('there is no answer');
      return answer;
    },
  };
}

/**
 * So much time passes that each isolate asks what was touched, and that none answers by limits of before: until then answers
 * start from both.
 */
export function letIsolatesFollow(): void {
  vi.setSystemTime(Date.now() + 5_001);
}
