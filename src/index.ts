// The Worker's entry: what the runtime calls, and the classes it makes.

import { serve } from './app.ts';
import { askFeed } from './feed/client.ts';
import { isFeedMade } from './store/location.sql.ts';

/** As this isolate knows: it asks D1 no more, which may be out just when the alarm was lost. */
let feedMade = false;

export { DecisionFeed } from './feed/object.ts';

export default {
  fetch: serve,
  /**
   * Wakes the feed, whose constructor sets its alarm, should that be lost. It does not make it: a cron runs wherever there
   * is room, and an object stays where it was made.
   */
  async scheduled(_event, env) {
    feedMade ||= await isFeedMade(env.DB);
    if (feedMade) await askFeed(env, async (feed) => feed.status());
  },
} satisfies ExportedHandler<Env>;
