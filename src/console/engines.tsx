// Engines: how each stands, since when, and why.

import type { FeedBody } from '../decisions/feed-api.ts';
import type { At } from './at.ts';
import { Table, Tag, Time, type Tone } from './parts.tsx';
import { countOf } from './words.ts';

type Engine = FeedBody['engines'][number];

/** An engine's state in one word, and what it means for bouncers. */
export function stateOf(engine: Pick<Engine, 'state' | 'freshness'>): {
  tone: Tone;
  word: string;
  why: string;
} {
  const { state, freshness } = engine;
  if (state === 'waiting-for-key') {
    return { tone: 'bad', word: 'no key', why: 'There is no key to ask it with: its host has to send one.' };
  }
  if (state === 'refused') {
    return { tone: 'bad', word: 'refused', why: 'It refuses the key of the feed. What is known is served.' };
  }
  if (freshness === 'cold') {
    return {
      tone: 'bad',
      word: 'cold',
      why: 'No full list of it was ever accepted: nothing of it is served.',
    };
  }
  if (freshness === 'stale') {
    return { tone: 'warn', word: 'stale', why: 'It has not answered in time. The last good list is served.' };
  }
  if (state === 'failing') return { tone: 'warn', word: 'failing', why: 'Its newest answer was an error.' };
  return { tone: 'ok', word: 'fresh', why: '' };
}

const columns = [
  { title: 'Engine' },
  { title: 'State' },
  { title: 'Decisions', n: true },
  { title: 'Last answer', n: true },
  { title: 'Last full list', n: true },
  { title: 'Why' },
];

export function EngineTable({ at, engines }: { at: At; engines: readonly Engine[] }) {
  return (
    <Table label="Engines" columns={columns}>
      {engines.map((engine) => {
        const { tone, word, why } = stateOf(engine);
        return (
          <tr>
            <th scope="row">{engine.name}</th>
            <td>
              <Tag tone={tone}>{word}</Tag>
            </td>
            <td class="n">{countOf(engine.decisions)}</td>
            <td class="n">
              <Time at={at} iso={engine.last_sync_at} />
            </td>
            <td class="n">
              <Time at={at} iso={engine.last_resync_at} />
            </td>
            <td class="wrap">
              {why} {engine.last_error === null ? '' : `${engine.last_error}.`}
            </td>
          </tr>
        );
      })}
    </Table>
  );
}
