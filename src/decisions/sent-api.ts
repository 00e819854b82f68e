// The operator API of who has been sent a decision: bouncers in pages, each by its place in the stream. What it says of a
// bouncer is what the feed's object knows (stream/sent.ts).

import * as z from 'zod';
import * as db from '../bouncers/bouncers.sql.ts';
import { readPolicy } from '../bouncers/policy.ts';
import { isLive } from '../bouncers/versions.ts';
import { askFeed, report } from '../feed/client.ts';
import { isoTime, nextOf, page, time } from '../operations/fields.ts';
import { operation } from '../operations/operation.ts';
import { sentStates, whys, type Sent, type SentAsk, type SentTo } from '../stream/sent.ts';
import { decisionShape, describeDecision } from './api.ts';
import { lookUpFields, readLookUp, shortText } from './input.ts';

const count = z.int();

const sentShape = z.object({
  id: z.int().meta({ description: 'Of one of `decisions`.' }),
  sent: z.enum(sentStates).meta({
    description:
      '`twice`: in two answers, or in a full list that was asked for; it is not sent again. `once`: in one answer, and ' +
      'in the next one again. `not-yet`: the next poll gets it. `never`: `why` says what keeps it. `asks`: no place in ' +
      'the stream is known; it asks about single addresses, or its next poll gets the full list. `unknown`: it was ' +
      'never seen. Of several clients: that of the one which has got least, but for those that never do.',
  }),
  why: z.array(z.enum(whys)).meta({
    description:
      'What leaves the decision out: `request.…` what the bouncer asks for, `view.…` its limits, `allow-list` an ' +
      'entry for all bouncers, or for this one. Where it was sent ' +
      'all the same, before a change of them, the next polls take it back.',
  }),
  instead: z.int().nullable().meta({
    description: 'The decision that is sent for it, and counts here: the longest one of the same text.',
  }),
  clients: z.object({ twice: count, once: count, not_yet: count, never: count }).meta({
    description:
      'How many of its clients: those of the last day, or all where none was seen in it; 1,000 at most.',
  }),
});

const sentToShape = z
  .object({
    name: z.string(),
    refused: z.enum(['paused', 'no-valid-key']).nullable().meta({
      description: 'Why its requests are refused, so that it hears of no unban either; null: they are not.',
    }),
    last_pull: time.nullable(),
    clients: z.int().meta({ description: 'Addresses from which its keys are used.' }),
    decisions: z.array(sentShape),
  })
  .meta({ id: 'SentTo' });

export type SentToBody = z.input<typeof sentToShape>;

const sentPageShape = z.object({
  decisions: z.array(decisionShape).meta({ description: 'The first 100, by id.' }),
  more_decisions: z.boolean().meta({ description: 'There are more than these.' }),
  bouncers: z.array(sentToShape).meta({ description: 'None where there is no decision.' }),
  next: z.int().nullable(),
});

export type SentPage = z.input<typeof sentPageShape>;

export const sentOperation = operation({
  method: 'GET',
  path: '/decisions/sent',
  needs: 'viewer',
  summary: 'Which bouncers have been sent the decisions on a value',
  description:
    'Sent means that an answer had it: nobody can know that it arrived. A decision that was renewed counts as new. ' +
    'Isolates report the polls that they answer a poll later, so a bouncer may have been sent more than this ' +
    'says, and not less.',
  query: z
    .strictObject({
      value: lookUpFields.value.unwrap().meta({
        description: 'An address or a CIDR range: every decision that covers it. Or a country, an AS, …',
        example: '192.0.2.1',
      }),
      scope: lookUpFields.scope,
      bouncer: shortText('A part of the bouncer’s name, in any case.'),
      ...page.shape,
    })
    .transform(readLookUp),
  answers: {
    200: {
      description: 'A page of bouncers.',
      body: sentPageShape,
    },
  },
  reply: async (c, { query: { after, limit, bouncer: named, ...match } }) => {
    const nowMs = Date.now();
    const [rows] = await Promise.all([db.listBouncers(c.env.DB, after, limit, named), report(c.env)]);
    const asks = rows.map((facts) => askOf(facts, nowMs));
    const answer = await askFeed(c.env, async (feed) => feed.sentTo(asks, match));
    const isNone = answer.decisions.length === 0;
    return c.json({
      decisions: answer.decisions.map((each) => describeDecision(each, nowMs)),
      more_decisions: answer.isCut,
      bouncers: answer.bouncers.map((sent, at) => {
        const { bouncer } = rows[at] as db.BouncerFacts;
        return describeSentTo(bouncer.name, asks[at] as SentAsk, sent);
      }),
      next: isNone ? null : nextOf(rows, limit, ({ bouncer }) => bouncer.id),
    });
  },
});

function askOf({ bouncer, versions }: db.BouncerFacts, nowMs: number): SentAsk {
  const { limits, paused } = readPolicy(bouncer);
  const isRefused = !versions.some((version) => isLive(version, nowMs));
  const refused = paused ? 'paused' : isRefused ? 'no-valid-key' : null;
  return { bouncerId: bouncer.id, name: bouncer.name, limits, refused };
}

function describeSentTo(
  name: string,
  { refused }: SentAsk,
  { seenMs, clients, decisions }: SentTo,
): SentToBody {
  return { name, refused, last_pull: isoTime(seenMs), clients, decisions: decisions.map(describeSent) };
}

function describeSent({ id, state, why, insteadId, clients }: Sent): z.input<typeof sentShape> {
  const { twice, once, 'not-yet': notYet, never } = clients;
  return {
    id,
    sent: state,
    why: [...why],
    instead: insteadId,
    clients: { twice, once, not_yet: notYet, never },
  };
}
