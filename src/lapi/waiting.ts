// A poll with `wait`: answered when something changes for its bouncer, or when its time is up. An answer that was waited for
// counts for nothing: its client may have gone unseen. The polls after it have the same changes again, as if it had not been
// given. So no change is lost, however many clients go away while they wait.

import { stream, waiting } from '../feed/client.ts';
import type { Place } from '../feed/waiting.ts';
import { emptyStream } from '../formats/lapi-json.ts';
import { lapiError } from '../http/failure.ts';
import { sinceMs } from '../runtime/clock.ts';
import { clientName } from '../stream/clients.ts';
import { admitAgain, refusalOf } from './admit.ts';
import { answerPoll, apiKey, questionOf, responseOf, type Asker, type StreamQuery } from './poll.ts';

/** The answer to a poll: at once, or when something changes. */
export function answerStream(asker: Asker, query: StreamQuery): Response | Promise<Response> {
  return query.waitMs === 0 || query.startup ? answerPoll(asker, query) : answerLate(asker, query);
}

async function answerLate(asker: Asker, query: StreamQuery): Promise<Response> {
  const place = waiting.enter(asker.bouncer.id, asker.nowMs);
  if (!place) return answerPoll(asker, query);
  const { signal } = asker.request;
  // The runtime may end a request whose client has gone right after this, and then nothing below runs any more.
  signal.addEventListener('abort', place.leave);
  try {
    return await answerChange(asker, query, place);
  } finally {
    signal.removeEventListener('abort', place.leave);
    place.leave();
  }
}

async function answerChange(asker: Asker, query: StreamQuery, place: Place): Promise<Response> {
  const { env, request, settings } = asker;
  const client = clientName(asker.bouncer.id, asker.address);
  const answered = (body: Parameters<typeof responseOf>[0]): Response => {
    waiting.noteAnswer(client, Date.now());
    return responseOf(body, settings);
  };

  const pauseMs = waiting.pauseMs(client, asker.nowMs);
  if (pauseMs > 0) await place.sleep(Math.min(pauseMs, query.waitMs));
  const { poll, view, besides, key } = questionOf({ ...asker, nowMs: Date.now() }, query);
  const followed = waiting.followedTo();
  const first = await stream(env, poll, view, false, besides, key);
  if (first && 'kind' in first) return responseOf(first, settings);
  if (first && first.body !== emptyStream) return answered(first);

  let told = waiting.told(poll, key) ?? followed;
  if (!told) return nothing(asker);
  const presented = apiKey(request.headers);
  for (;;) {
    await place.sleep(Math.max(0, query.waitMs - sinceMs(asker.nowMs, Date.now())));
    if (request.signal.aborted) return nothing(asker);
    const admitted = await admitAgain(asker, presented);
    if (!admitted.ok) return refusalOf(admitted.failure);
    // By new limits only the object can answer: the next poll asks it.
    const bouncer = admitted.value;
    if (bouncer !== asker.bouncer && questionOf({ ...asker, bouncer }, query).key !== key)
      return nothing(asker);
    const look = { ...poll, seenMs: Date.now() };
    const changes = await waiting.changes(env, look, view, told, besides, key);
    if (changes.kind === 'changed') return answered(await changes.body);
    if (changes.kind === 'elsewhere') return nothing(asker);
    if (changes.kind === 'nothing') told = changes.told;
    if (sinceMs(asker.nowMs, Date.now()) < query.waitMs) continue;
    return changes.kind === 'nothing' ? nothing(asker) : outOfReach();
  }
}

function nothing({ settings }: Asker): Response {
  return responseOf(null, settings);
}

/** As a poll would be answered. */
function outOfReach(): Response {
  return lapiError({ kind: 'unavailable', problem: 'the feed is out of reach; try again', waitSeconds: 1 });
}
