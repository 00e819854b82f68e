// The Worker's side of the feed: a poll is answered by this isolate, which follows the feed, or else by the feed's object. A
// question is asked again if the object went away under it.

import { waitUntil } from 'cloudflare:workers';
import { createCounting } from '../counters/counting.ts';
import { causeOf } from '../http/failure.ts';
import { createAsking } from '../runtime/asking.ts';
import type { DecisionFeed } from './object.ts';
import { isJurisdiction } from '../config/location.ts';
import { withRetries } from './retry.ts';
import { settingsOf } from '../env.ts';
import { viewKey, type View } from '../mirror/view.ts';
import { clientName, type Sighting } from '../stream/clients.ts';
import type { ShortList } from '../stream/list.ts';
import type { ListQuery } from '../stream/query.ts';
import { createFollower, type Changes, type StreamBody, type Told } from './follower.ts';
import { createLookups } from './lookups.ts';
import type { Busy, LinesAnswer, LinesAsk } from '../lists/lines.ts';
import type { AnyListAnswer, Cold, ListAnswer, ListAsk, StreamAsk } from './questions.ts';
import { createUnbanned } from './unbanned.ts';
import { createWaiting } from './waiting.ts';

type Feed = DurableObjectStub<DecisionFeed>;

/** Asks the feed's object. `ask` may run twice; `again`: its answer may have been made before, and lost. */
export function askFeed<T>(env: Env, ask: (feed: Feed, again: boolean) => Promise<T>): Promise<T> {
  // A stub that has failed once fails from then on.
  return withRetries((again) => ask(feedOf(env), again));
}

/** What goes to the object with a poll. Each is made only when it is needed. */
interface Besides {
  readonly gzip: () => boolean;
  readonly store: () => StreamAsk['store'];
}

/** How long a question about what was touched may take. */
const followMs = 3_000;

/** What one isolate knows of the feed, and how it asks. An isolate has one. */
export function createFeedClient() {
  const follower = createFollower();
  const lookups = createLookups();
  const unbanned = createUnbanned();
  const counting = createCounting();
  const waiters = createWaiting();
  /** How many changes were made through this isolate. */
  let changes = 0;

  const known = (): Pick<StreamAsk, 'sightings' | 'mark' | 'isolate'> => {
    const [sightings, mark, isolate] = [follower.takeSightings(), follower.mark(), follower.isolate()];
    return { sightings, mark, isolate };
  };

  async function askStream(env: Env, key: string, ask: Omit<StreamAsk, 'again'>): Promise<StreamBody | Cold> {
    const answer = await counting.send(Date.now(), (counts) =>
      askFeed(env, async (feed, again) => feed.stream({ ...ask, counts, again })),
    );
    if (answer.kind === 'cold') return answer;
    lookups.learnLatest(answer.sequence, ask.poll.seenMs);
    follower.learn(ask.poll, key, answer);
    const { body, gzip } = answer;
    return body === null ? null : { body, gzip };
  }

  async function follow(env: Env, store: Besides['store']): Promise<void> {
    const asked = follower.ask(Date.now());
    const before = changes;
    const ask = { ...known(), ...asked.ask, store: store(), waiting: waiters.size(asked.askedMs) };
    const followed = await counting.send(asked.askedMs, (counts) =>
      askFeed(env, async (feed) => feed.follow({ ...ask, counts })),
    );
    const isNews = followed.sequence !== follower.known()?.part.sequence;
    // After a change through this isolate it is not known whether the answer has it.
    follower.take(asked, followed, before === changes);
    if (isNews) waiters.wakeAll();
    lookups.learnLatest(followed.sequence, asked.askedMs);
  }

  const following = createAsking<Pick<Besides, 'store'> & { readonly env: Env }, true>(
    ({ env, store }, subjects) => {
      const asked = follow(env, store).then(() => {
        return new Map(subjects.map((subject) => [subject, true] as const));
      });
      // It goes on after the answer to this request, whose client may have gone.
      waitUntil(asked.catch(() => undefined));
      return asked;
    },
    (error) => console.error(`the feed was not followed: ${causeOf(error).message}`),
    followMs,
  );

  /** Follows the feed up to now. Where that fails the object may still answer a single poll. */
  async function refresh(env: Env, poll: Sighting, store: Besides['store']): Promise<void> {
    const isDone = (): true | undefined => follower.isCurrent(poll, Date.now()) || undefined;
    await following({ env, store }, 'the feed', isDone).catch(() => undefined);
  }

  /** The answer to a look-up of an address that nothing bans. `follow`: this isolate has to follow the feed first. */
  function lookForNone(
    env: Env,
    poll: Sighting,
    { within, engines, limits }: View,
    store: Besides['store'],
    nowMs: number,
  ): ShortList | 'follow' | 'ask' {
    if (!within?.covering) return 'ask';
    const known = follower.known();
    const isOfSome = Boolean(engines ?? limits?.engines);
    const result = unbanned.look(within.network, known, follower.isCurrent(poll, nowMs), isOfSome);
    if (unbanned.isWanted(nowMs)) waitUntil(fetchFilter(env, poll, store));
    if (result !== 'unbanned' || !known) return result === 'follow' ? 'follow' : 'ask';
    return { kind: 'short', sequence: known.part.sequence, decisions: [] };
  }

  async function fetchFilter(env: Env, poll: Sighting, store: Besides['store']): Promise<void> {
    try {
      // Before the filter: what comes after the filter has to be followed.
      if (!follower.isFresh(Date.now())) await refresh(env, poll, store);
      unbanned.take(await askFeed(env, async (feed) => feed.lookupFilter()));
    } catch (error) {
      console.error(`the filter of look-ups was not fetched: ${causeOf(error).message}`);
    }
  }

  function askAnyList(env: Env, ask: ListAsk): Promise<AnyListAnswer> {
    return counting.send(Date.now(), (counts) => {
      return askFeed(env, async (feed) => feed.list({ ...ask, counts }));
    });
  }

  async function askList(
    env: Env,
    poll: Sighting,
    query: ListQuery,
    lookup: string | null,
    store: StreamAsk['store'],
  ): Promise<ListAnswer> {
    const answer = (await askAnyList(env, { ...query, poll, ...known(), store })) as ListAnswer;
    if (answer.kind === 'short' && lookup !== null) {
      const name = answer.ofBouncer ? nameOfOwn(lookup, query.view) : lookup;
      lookups.learn(name, answer, poll.seenMs);
    }
    return answer;
  }

  /** For polls that wait for a change. */
  const waiting = {
    /** A place to wait. Null: there is none. */
    enter: waiters.enter,

    /** How long an answer to a client is put off that could only repeat what it was answered a moment ago. */
    pauseMs(client: string, nowMs: number): number {
      return waiters.pauseMs(client, follower.known()?.part.sequence ?? Infinity, nowMs);
    },

    /** Notes that a client was answered with changes. */
    noteAnswer(client: string, nowMs: number): void {
      const sequence = follower.known()?.part.sequence;
      if (sequence !== undefined) waiters.noteAnswer(client, sequence, nowMs);
    },

    /** Up to where this isolate has followed the feed: an answer that is asked for now has all of that. Null: no feed is known. */
    followedTo: follower.followedTo,

    /** Up to where a client was told of everything, which there was nothing for just now. Null: nobody knows. */
    told: follower.told,

    /** What has changed since. Follows the feed if nobody did within the last second. */
    async changes(
      env: Env,
      poll: Sighting,
      view: View,
      told: Told,
      { gzip, store }: Besides,
      key: string,
    ): Promise<Changes> {
      const look = (): Changes => follower.changesSince(poll, key, view, told, Date.now(), gzip);
      const atOnce = look();
      if (atOnce.kind !== 'unknown') return atOnce;
      await refresh(env, poll, store);
      return look();
    },
  };

  return {
    waiting,

    /** The answer to a poll of the stream: at once where this isolate has it. `key`: the view's, if the caller has it. */
    stream(
      env: Env,
      poll: Sighting,
      view: View,
      startup: boolean,
      { gzip, store }: Besides,
      key = viewKey(view),
    ): StreamBody | Promise<StreamBody | Cold> {
      const own = (nowMs: number): ReturnType<typeof follower.answer> => {
        return follower.answer(poll, key, view, nowMs, gzip);
      };
      const ask = (): Promise<StreamBody | Cold> => {
        return askStream(env, key, { poll, view, startup, gzip: gzip(), store: store(), ...known() });
      };
      const followFirst = async (): Promise<StreamBody | Cold> => {
        await refresh(env, poll, store);
        const answer = await own(Date.now());
        return answer === 'follow' || answer === 'ask' ? ask() : answer;
      };
      const atOnce = startup ? 'ask' : own(poll.seenMs);
      return atOnce === 'ask' ? ask() : atOnce === 'follow' ? followFirst() : atOnce;
    },

    /** The active decisions of a view: at once where the same was asked a moment ago. */
    list(
      env: Env,
      poll: Sighting,
      query: ListQuery,
      store: () => StreamAsk['store'],
    ): ShortList | Promise<ListAnswer> {
      const { limit, offset, idGreaterThan, view } = query;
      const found = (list: ShortList): ShortList => {
        follower.noteSighting(clientName(poll.bouncerId, poll.address), poll);
        return list;
      };
      const none = lookForNone(env, poll, view, store, poll.seenMs);
      if (typeof none === 'object') return found(none);
      // Nobody asks for the same page again.
      const isPage = limit !== null || offset > 0 || idGreaterThan > 0;
      const lookup = isPage ? null : viewKey(view);
      const recall = (name: string): ShortList | undefined => lookups.recall(name, poll.seenMs);
      const recalled = lookup === null ? undefined : (recall(lookup) ?? recall(nameOfOwn(lookup, view)));
      if (recalled) return found(recalled);
      const ask = (): Promise<ListAnswer> => askList(env, poll, query, lookup, store());
      if (none === 'ask') return ask();
      return refresh(env, poll, store).then(() => {
        const followed = lookForNone(env, poll, view, store, Date.now());
        return typeof followed === 'object' ? found(followed) : ask();
      });
    },

    /** The list of an appliance. Null: the object still runs the release before, which has none. */
    async lines(
      env: Env,
      poll: Sighting,
      view: View,
      lines: LinesAsk,
      store: StreamAsk['store'],
    ): Promise<LinesAnswer | Busy | Cold | null> {
      const query = { view, limit: null, offset: 0, idGreaterThan: 0 };
      const answer = await askAnyList(env, { ...query, lines, poll, ...known(), store });
      return answer.kind === 'short' || answer.kind === 'long' ? null : answer;
    },

    /** Counts a request of a bouncer, or what it found. */
    count: counting.count,
    countRefusal: counting.countRefusal,

    /** Reports to the feed's object what was answered and counted here since it was last asked. */
    async report(env: Env): Promise<void> {
      const { sightings, ...own } = known();
      if (sightings.length === 0 && !counting.isWaiting()) return;
      await counting.send(Date.now(), (counts) =>
        askFeed(env, async (feed) => feed.note(sightings, own.mark, { ...own, counts })),
      );
    },

    /** For a change made through this isolate: the next poll asks the object. */
    forgetLatest(nowMs: number): void {
      changes++;
      follower.forgetLatest();
      lookups.forget(nowMs);
      waiters.wakeAll();
    },

    /** How many changes were made through this isolate: what the feed said at another count may be out of date. */
    changesHere: (): number => changes,
  };
}

/** The name of a look-up whose answer is that of one bouncer. */
function nameOfOwn(lookup: string, { bouncer = '' }: View): string {
  return `${lookup} ${bouncer}`;
}

export const { stream, waiting, list, lines, count, countRefusal, report, forgetLatest, changesHere } =
  createFeedClient();

function feedOf(env: Env): Feed {
  const { feedLocation: location } = settingsOf(env);
  if (isJurisdiction(location)) return within(env.DECISION_FEED, location).getByName('default');
  return env.DECISION_FEED.getByName('default', location === '' ? {} : { locationHint: location });
}

let jurisdictionNoted = false;

/** The objects of a jurisdiction. Plain workerd has only one place, and throws. */
function within(feeds: Env['DECISION_FEED'], jurisdiction: DurableObjectJurisdiction): Env['DECISION_FEED'] {
  try {
    return feeds.jurisdiction(jurisdiction);
  } catch (error) {
    if (!causeOf(error).message.includes('not implemented in workerd')) throw error;
    if (!jurisdictionNoted)
      console.error(`FEED_LOCATION=${jurisdiction} has no effect: this is not Cloudflare`);
    jurisdictionNoted = true;
    return feeds;
  }
}
