// What bouncers have been sent of some decisions, in words that say no more than is known. A mistake here has an operator
// think that an address is banned where it is not.

import type { DecisionBody } from '../decisions/api.ts';
import type { SentToBody } from '../decisions/sent-api.ts';
import type { At } from './at.ts';
import { BouncerLink, Table, Tag, Time, type Tone } from './parts.tsx';
import { silentMs } from './roster.ts';
import { countOf, some } from './words.ts';

type Sent = SentToBody['decisions'][number];
type State = Sent['sent'];

interface StateWords {
  readonly tone: Tone;
  readonly word: string;
  readonly why: string;
}

const states: Readonly<Record<State, StateWords>> = {
  'not-yet': { tone: 'warn', word: 'not yet', why: 'its next poll gets it' },
  once: { tone: 'warn', word: 'sent once', why: 'its next poll gets it again' },
  twice: {
    tone: 'ok',
    word: 'sent twice',
    why: 'it polled again after the first answer that had it, or asked for the full list',
  },
  never: { tone: 'off', word: 'not sent', why: '' },
  asks: {
    tone: 'off',
    word: 'asks for itself',
    why: 'it asks about single addresses, or its next poll gets the full list',
  },
  unknown: { tone: 'off', word: 'never seen', why: 'it was not seen for as long as is remembered' },
};

/** Who lacks something comes first. */
const order = Object.keys(states) as State[];

/** Of several decisions: that of the one of which it has got least, but for those that it is never sent. */
function leastOf({ decisions }: SentToBody): State {
  const found = new Set(decisions.map(({ sent }) => sent));
  return order.find((state) => found.has(state)) ?? 'unknown';
}

/** How many bouncers have been sent all that they get. Of the others nothing is known, or they get nothing. */
export function countsOf(bouncers: readonly SentToBody[]): { count: string; words: string }[] {
  const least = bouncers.map(leastOf);
  const countIn = (...of: State[]): number => least.filter((state) => of.includes(state)).length;
  return [
    [countIn('twice'), 'sent twice: a poll came after the first answer'],
    [countIn('once'), 'sent once: the next poll gets it again'],
    [countIn('not-yet'), 'not yet: the next poll gets it'],
    [countIn('never', 'asks', 'unknown'), 'others: left out, asking for themselves, or never seen'],
  ].map(([count, words]) => ({ count: countOf(Number(count)), words: String(words) }));
}

const columns = [
  { title: 'Bouncer' },
  { title: 'What it was sent, and why' },
  { title: 'Last pull', n: true },
];

export function SentTable(props: {
  at: At;
  decisions: readonly DecisionBody[];
  bouncers: readonly SentToBody[];
}) {
  const { at, decisions, bouncers } = props;
  const values = new Map(decisions.map(({ id, value }) => [id, value]));
  const sorted = bouncers.toSorted((a, b) => order.indexOf(leastOf(a)) - order.indexOf(leastOf(b)));
  return (
    <Table label="Who has been sent it" columns={columns}>
      {sorted.map((bouncer) => (
        <tr>
          <th scope="row">
            <BouncerLink at={at} name={bouncer.name} />
          </th>
          <td>
            <Groups at={at} bouncer={bouncer} values={values} />
            {bouncer.refused === null ? null : (
              <p class="soft">{`${firstLetter(reasonOf(bouncer.refused))}: it hears of no unban either.`}</p>
            )}
          </td>
          <td class="n">
            <Time at={at} iso={bouncer.last_pull} />
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** Decisions of which the same is to be said. */
interface Group {
  readonly state: State;
  readonly why: string;
  readonly ids: readonly number[];
}

/** A bouncer may have as many as it has decisions; the page stays as long as it is. */
const mostGroups = 4;
const mostValues = 3;

function Groups({ at, bouncer, values }: { at: At; bouncer: SentToBody; values: Map<number, string> }) {
  const groups = groupsOf(bouncer);
  const rest = groups.slice(mostGroups).reduce((sum, { ids }) => sum + ids.length, 0);
  return (
    <>
      {groups.slice(0, mostGroups).map(({ state, why, ids }) => {
        const named = [...new Set(ids.map((id) => values.get(id) ?? String(id)))];
        const more = named.length - mostValues;
        return (
          <p class="group">
            <Tag tone={toneOf(state, bouncer, at.nowMs)}>{states[state].word}</Tag>{' '}
            {groups.length === 1 ? null : (
              <>
                {named.slice(0, mostValues).map((value) => (
                  <>
                    <code>{value}</code>{' '}
                  </>
                ))}
                {more > 0 ? `and ${countOf(more)} more ` : ''}
              </>
            )}
            <span class="soft">{why}</span>
          </p>
        );
      })}
      {rest === 0 ? null : <p class="soft">And {some(rest, 'decision')} more.</p>}
    </>
  );
}

function groupsOf({ decisions, clients }: SentToBody): Group[] {
  const all = decisions.map((sent) => ({ state: sent.sent, why: whyOf(sent, clients), id: sent.id }));
  return [...Map.groupBy(all, ({ state, why }) => `${state} ${why}`).values()]
    .map((group) => ({ ...(group[0] as (typeof all)[number]), ids: group.map(({ id }) => id) }))
    .sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
}

/** A bouncer that does not come does not get it. */
function toneOf(state: State, { last_pull: lastPull }: SentToBody, nowMs: number): Tone {
  const isWaiting = state === 'not-yet' || state === 'once';
  const isSilent = lastPull !== null && nowMs - Date.parse(lastPull) > silentMs;
  return isWaiting && isSilent ? 'bad' : states[state].tone;
}

function whyOf({ sent, why, instead, clients }: Sent, known: number): string {
  const reasons = why.map(reasonOf);
  const wasSent = sent === 'once' || sent === 'twice';
  const parts = [
    ...(states[sent].why === '' || (wasSent && reasons.length > 0) ? [] : [states[sent].why]),
    ...(reasons.length === 0 ? [] : [reasons.join(', ')]),
    // It was sent before its limits changed.
    ...(wasSent && reasons.length > 0 ? ['its next polls take it back'] : []),
    ...(instead === null ? [] : [`the longest decision on the same text is sent for it`]),
  ];
  const { twice, once, not_yet: notYet, never } = clients;
  const counts = [
    [twice, 'twice'],
    [once, 'once'],
    [notYet, 'not yet'],
    [never, 'not sent'],
  ] as const;
  const split = counts.filter(([count]) => count > 0).map(([count, word]) => `${countOf(count)} ${word}`);
  const ofClients = known > 1 && split.length > 1 ? [`of its clients ${split.join(', ')}`] : [];
  return [...parts, ...ofClients].join('; ');
}

const filtered = {
  engines: 'engines',
  scopes: 'scopes',
  origins: 'origins',
  scenarios_containing: 'scenarios',
} as const;

const reasons: ReadonlyMap<string, string> = new Map([
  ...Object.entries(filtered).flatMap(([name, what]) => [
    [`request.${name}`, `it asks for other ${what}`] as const,
    [`view.${name}`, `its limits are to other ${what}`] as const,
  ]),
  ['request.scenarios_not_containing', 'it asks for no such scenarios'],
  ['view.scenarios_not_containing', 'its limits leave such scenarios out'],
  ['request.type', 'it asks for another type'],
  ['request.value', 'it asks for other addresses'],
  ['view.max_decisions', 'its cap has no room for it'],
  ['paused', 'it is paused'],
  ['allow-list', 'an entry of the allow-list withholds it'],
  ['no-valid-key', 'no key of it is good'],
]);

/** A reason that this page does not know is shown as the API has it. */
function reasonOf(why: string): string {
  return reasons.get(why) ?? `reason: ${why}`;
}

function firstLetter(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
