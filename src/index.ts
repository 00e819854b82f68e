// The Worker's entry: what the runtime calls, and the classes it makes.

import { serve } from './app.ts';
import { askFeed } from './feed/client.ts';
import { isFeedMade } from './feed/location.ts';

/** Kept, so that D1 is asked once: it may be out of reach just when the alarm was lost. */
let feedMade = false;

export { DecisionFeed } from './feed/object.ts';

export default {
  fetch: serve,
  /**
   * Wakes the feed, whose constructor sets its alarm again, should that be lost. It does not create the feed: a cron runs
   * anywhere, and an object stays where it was created.
   */
  async scheduled(_event, env) {
    feedMade ||= await isFeedMade(env.DB);
    if (feedMade) await askFeed(env, async (feed) => feed.status());
  },
} satisfies ExportedHandler<Env>;
