// What needs somebody: each thing once, what it is, since when, and where to go.

import type { Child } from 'hono/jsx';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { Break } from '../operators/audit.ts';
import { linkTo, type At } from './at.ts';
import { breakWords } from './audit.tsx';
import { stateOf } from './engines.tsx';
import { BouncerLink, Panel, Tag, type Tone } from './parts.tsx';
import { describeState, type RosterRow } from './roster.ts';
import { isFailing, type Webhook } from './webhooks.tsx';
import { agoOf, countOf, some } from './words.ts';

export interface Need {
  readonly tone: Tone;
  readonly word: string;
  readonly what: Child;
}

/** Of one kind; all of them are behind its link. */
const mostOfAKind = 5;
const soonMs = 7 * 86_400_000;

interface Known {
  readonly feed: FeedBody;
  readonly roster: readonly RosterRow[];
  /** Hosts that may be copies. */
  readonly suspected: number;
  /** Of the audit log: those that nobody has acknowledged. */
  readonly breaks: readonly Break[];
  /** None for whom may not see them. */
  readonly webhooks: readonly Webhook[];
}

/** The worst first: engines, then bouncers, then what can wait. */
export function attentionOf(at: At, { feed, roster, suspected, breaks, webhooks }: Known): Need[] {
  const needs = feed.engines.flatMap((engine): Need[] => {
    const { tone, word, why } = stateOf(engine);
    if (tone === 'ok') return [];
    const what = `Engine ${engine.name}: ${why} ${engine.last_error === null ? '' : `${engine.last_error}.`}`;
    return [{ tone, word, what }];
  });
  const left = feed.engines.filter((engine) => engine.left_out > 0 || engine.skipped > 0);
  return [
    ...needs,
    ...left.map(({ name, left_out: leftOut, skipped }): Need => {
      const parts = [
        ...(leftOut > 0 ? [`there is no room for ${some(leftOut, 'decision')} (MAX_DECISIONS)`] : []),
        ...(skipped > 0 ? [`${some(skipped, 'element')} of its newest answers could not be read`] : []),
      ];
      return { tone: 'warn', word: 'incomplete', what: `Engine ${name}: ${parts.join('; ')}.` };
    }),
    ...feed.left_behind.map(({ engine, decisions }): Need => {
      const what = `${some(decisions, 'decision')} of ${engine} that no engine confirms any more stay until they end.`;
      return { tone: 'warn', word: 'left behind', what };
    }),
    ...breaks.map((each): Need => {
      const what = (
        <>
          <a href={linkTo(at, '/audit')}>The audit log</a> {breakWords(each)}.
        </>
      );
      return { tone: 'bad', word: 'broken', what };
    }),
    ...webhooks.filter(isFailing).map(({ name, delivery }): Need => {
      const what = (
        <>
          <a href={linkTo(at, '/webhooks')}>Webhook {name}</a> does not take its messages:{' '}
          {delivery?.last_try?.problem}.
        </>
      );
      return { tone: 'bad', word: 'fails', what };
    }),
    ...ofBouncers(at, roster, 'keyless'),
    ...ofBouncers(at, roster, 'silent'),
    ...ending(at, roster),
    ...(suspected > 0
      ? [
          {
            tone: 'warn',
            word: 'clone suspected',
            what: (
              <>
                <a href={linkTo(at, '/hosts', { state: 'clone-suspected' })}>{some(suspected, 'host')}</a> may
                be a copy of another.
              </>
            ),
          } as const,
        ]
      : []),
  ];
}

function ofBouncers(at: At, roster: readonly RosterRow[], state: 'keyless' | 'silent'): Need[] {
  const rows = roster.filter((row) => row.state === state);
  const shown = rows.slice(0, mostOfAKind).map((row): Need => {
    const { tone, word, why } = describeState(row, at.nowMs);
    const what = (
      <>
        <BouncerLink at={at} name={row.name} />: {why}.
      </>
    );
    return { tone, word, what };
  });
  return [...shown, ...others(at, rows.length, { state }, state === 'silent' ? 'silent' : 'no key')];
}

function ending(at: At, roster: readonly RosterRow[]): Need[] {
  const soon = roster
    .flatMap(({ name, keyEndMs, state }) => {
      const isSoon = keyEndMs !== null && keyEndMs - at.nowMs < soonMs && state !== 'keyless';
      return isSoon ? [{ name, keyEndMs }] : [];
    })
    .sort((a, b) => a.keyEndMs - b.keyEndMs);
  const shown = soon.slice(0, mostOfAKind).map(({ name, keyEndMs }): Need => {
    const what = (
      <>
        The key of <BouncerLink at={at} name={name} /> ends {agoOf(keyEndMs, at.nowMs)}.
      </>
    );
    return { tone: 'warn', word: 'key ends', what };
  });
  return [...shown, ...others(at, soon.length, { sort: 'key' }, 'key ends')];
}

function others(at: At, count: number, query: Record<string, string>, word: string): Need[] {
  if (count <= mostOfAKind) return [];
  const what = <a href={linkTo(at, '/bouncers', query)}>{countOf(count - mostOfAKind)} more bouncers</a>;
  return [{ tone: 'warn', word, what }];
}

export function AttentionList({ needs }: { needs: readonly Need[] }) {
  return (
    <Panel label="Needs attention">
      <ul class="attention">
        {needs.map(({ tone, word, what }) => (
          <li>
            <Tag tone={tone}>{word}</Tag>
            <span class="wrap">{what}</span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
