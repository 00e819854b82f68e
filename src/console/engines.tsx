// Engines: how each stands, since when, and why.

import type { Context } from 'hono';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { AppEnv } from '../env.ts';
import type { At } from './at.ts';
import { call } from './call.ts';
import { AllowLists } from './engine-allow-lists.tsx';
import { FirstEngine } from './first-steps.tsx';
import { Post, SelectField } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { EngineLink, Table, Tag, Time, type Tone } from './parts.tsx';
import { countOf, some } from './words.ts';

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

const kinds: Readonly<Record<Engine['kind'], string>> = {
  lapi: 'engine',
  list: 'list',
  hosted: 'hosted integration',
};

const columns = [
  { title: 'Engine' },
  { title: 'Kind' },
  { title: 'State' },
  { title: 'Decisions', n: true },
  { title: 'Last answer', n: true },
  { title: 'Last full list', n: true },
];

export function EngineTable({ at, engines }: { at: At; engines: readonly Engine[] }) {
  const rows = engines.map((engine) => {
    const { tone, word, why } = stateOf(engine);
    const error = engine.last_error === null ? '' : `${engine.last_error}.`;
    return { engine, tone, word, why: `${why} ${error}`.trim() };
  });
  // Where all is well there is no why.
  const hasWhy = rows.some(({ why }) => why !== '');
  return (
    <Table label="Engines" columns={hasWhy ? [...columns, { title: 'Why' }] : columns}>
      {rows.map(({ engine, tone, word, why }) => {
        return (
          <tr>
            <th scope="row">
              <EngineLink at={at} name={engine.name} />
            </th>
            <td>{kinds[engine.kind]}</td>
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
            {hasWhy ? <td class="wrap">{why}</td> : null}
          </tr>
        );
      })}
    </Table>
  );
}

/** What `POST /feed/sync` answers, whether the engines did or not. */
interface Round {
  readonly ok: boolean;
  readonly added: number;
  readonly removed: number;
  readonly error: string | null;
  readonly warning: string | null;
}

export function showEngines(c: Context<AppEnv>, at: At): Promise<Response> {
  return enginesPage(c, at);
}

async function enginesPage(c: Context<AppEnv>, at: At, round?: Round): Promise<Response> {
  const answer = await call<FeedBody>(c, 'GET', '/feed');
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { engines, left_behind: leftBehind, sequence, tombstones } = answer.body;
  const fresh = engines.filter((engine) => stateOf(engine).tone === 'ok').length;
  const sub =
    engines.length === 0
      ? 'There is none: what operators ban here is served.'
      : `${countOf(fresh)} of ${some(engines.length, 'engine')} fresh.`;
  return respond(
    <Page at={at} title="Engines" nav="/engines" sub={sub} live>
      <RoundBanner round={round} />
      {engines.length === 0 ? <FirstEngine /> : <EngineTable at={at} engines={engines} />}
      {engines.map((engine) => (
        <Details at={at} engine={engine} />
      ))}
      {leftBehind.length === 0 ? null : (
        <>
          <h2>Left behind</h2>
          <p>
            Decisions that no engine confirms any more. They stay until they end; an operator can unban them.
          </p>
          <Table
            label="Left behind"
            columns={[{ title: 'Engine' }, { title: 'Why' }, { title: 'Decisions', n: true }]}
          >
            {leftBehind.map(({ engine, why, decisions }) => (
              <tr>
                <th scope="row">{engine}</th>
                <td>
                  {why === 'engine-removed' ? 'it is not configured any more' : 'it has another database now'}
                </td>
                <td class="n">{countOf(decisions)}</td>
              </tr>
            ))}
          </Table>
        </>
      )}
      {engines.length === 0 ? null : (
        <>
          <h2>Ask them now</h2>
          <Sync at={at} engines={engines.map(({ name }) => name)} />
        </>
      )}
      <h2>The feed</h2>
      <p class="soft">
        Sequence {countOf(sequence)}: so many changes were made. {some(tombstones, 'ended decision')}{' '}
        remembered, for bouncers that have not polled since.
      </p>
    </Page>,
    round && !round.ok ? 502 : 200,
  );
}

function Details({ at, engine }: { at: At; engine: Engine }) {
  const {
    name,
    kind,
    key,
    key_pending: pending,
    skipped,
    skipped_sample: sample,
    left_out: leftOut,
  } = engine;
  return (
    <>
      <h2 id={`engine-${name}`}>{name}</h2>
      <div class="panel pad">
        <dl>
          <dt>Key</dt>
          <dd>
            {kind === 'list'
              ? 'it needs none'
              : key === null
                ? 'none yet'
                : key === 'host'
                  ? 'sent by its host'
                  : 'in the settings'}
            {pending ? '; its host has sent another, which the engine does not accept yet' : ''}
          </dd>
          <dt>Could not be read</dt>
          <dd>
            {skipped === 0 ? 'nothing' : some(skipped, 'element')}
            {sample === null ? '' : `; one of them: ${sample}`}
          </dd>
          <dt>No room for</dt>
          <dd>{leftOut === 0 ? 'nothing' : `${some(leftOut, 'decision')} (MAX_DECISIONS)`}</dd>
          {kind === 'lapi' ? (
            <>
              <dt>Its own allow-lists</dt>
              <dd>
                <AllowLists at={at} engine={engine} />
              </dd>
            </>
          ) : null}
        </dl>
      </div>
    </>
  );
}

const modes = [
  ['', 'what changed'],
  ['full', 'the whole list'],
  ['force', 'the whole list, accepted even where it is doubtful'],
] as const;

function Sync({ at, engines }: { at: At; engines: readonly string[] }) {
  return (
    <Post at={at} to="/engines/sync" needs="operator" what="Asking them">
      <div class="fields">
        <SelectField
          name="engine"
          label="Engine"
          options={[['', 'all'], ...engines.map((name) => [name, name] as const)]}
        />
        <SelectField
          name="mode"
          label="For"
          options={modes}
          hint="A list that misses too much is doubtful: a second one has to confirm it."
        />
      </div>
      <button>Ask now</button>
    </Post>
  );
}

function RoundBanner({ round }: { round: Round | undefined }) {
  if (!round) return null;
  const { ok, added, removed, error, warning } = round;
  return (
    <div class={`banner ${ok ? 'ok' : 'bad'}`} role={ok ? 'status' : 'alert'}>
      <p>
        {some(added, 'decision')} added, {countOf(removed)} removed. {error === null ? '' : `${error}. `}
        {warning === null ? '' : `${warning}.`}
      </p>
    </div>
  );
}

export async function syncEngines(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const mode = form.get('mode') ?? '';
  const query = { engine: form.get('engine') || undefined, ...(mode === '' ? {} : { [mode]: 'true' }) };
  const answer = await call<Round>(c, 'POST', '/feed/sync', { query });
  if (answer.ok) return enginesPage(c, at, answer.body);
  // An engine that does not answer is no mistake of the form.
  return answer.refused.status === 502
    ? enginesPage(c, at, answer.refused.body as Round)
    : refusedPage(at, answer.refused);
}
