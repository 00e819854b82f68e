// The Worker's entry: what the runtime calls, and the classes it makes.

import { serve } from './app.ts';
import { askFeed } from './context.ts';

export { DecisionFeed } from './feed/feed.ts';

export default {
  fetch: serve,
  /** Wakes the feed, whose constructor sets its alarm: the one thing that starts a mirror nobody polls yet. */
  async scheduled(_event, env) {
    await askFeed(env, async (feed) => feed.status());
  },
} satisfies ExportedHandler<Env>;
