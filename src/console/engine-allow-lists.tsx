// What engines' own allow-lists have, and how they stand. Nothing is changed here: an engine's lists are its own.

import type { Context } from 'hono';
import type { EngineEntryBody } from '../allowlist/engines-api.ts';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { AppEnv } from '../env.ts';
import { linkTo, type At } from './at.ts';
import { call } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { EngineLink, LookUpLink, Pages, Table, Tag, Time } from './parts.tsx';
import { countOf, some } from './words.ts';

type Engine = FeedBody['engines'][number];

type Filter = Readonly<Record<'engine' | 'list', string | undefined>>;

const path = '/allow-list/engines';
const pageRows = 100;

/** `GET /allow-list/engines?engine=&list=&after=` */
export async function showEngineAllowLists(c: Context<AppEnv>, at: At): Promise<Response> {
  const { engine, list, after } = c.req.query();
  const filter: Filter = { engine: engine || undefined, list: list || undefined };
  const [answer, feed] = await Promise.all([
    call<{ entries: EngineEntryBody[]; next: number | null }>(c, 'GET', '/allowlist/engines', {
      query: { ...filter, after, limit: pageRows },
    }),
    call<FeedBody>(c, 'GET', '/feed'),
  ]);
  if (!answer.ok) return refusedPage(at, answer.refused);
  if (!feed.ok) return refusedPage(at, feed.refused);
  const { entries, next } = answer.body;
  const read = feed.body.engines.filter(({ allowlists }) => allowlists !== null);
  return respond(
    <Page
      at={at}
      title="Engines’ own allow-lists"
      nav="/allow-list"
      sub="What they have holds whoever bans it. Only the engine can change them."
    >
      {read.length === 0 ? (
        <p class="soft">
          No engine’s allow-lists are read: set <code>UPSTREAM_ALLOWLISTS</code>, or <code>allowlists</code>{' '}
          in an entry of <code>UPSTREAMS</code>.
        </p>
      ) : (
        <>
          <Stands at={at} engines={read} />
          <h2>Entries</h2>
          <Narrowed at={at} filter={filter} />
          {entries.length === 0 ? (
            <p class="soft">There is none.</p>
          ) : (
            <EntryTable at={at} entries={entries} />
          )}
          <Pages
            before={after === undefined ? null : linkTo(at, path, filter)}
            beforeText="← to the first"
            after={next === null ? null : linkTo(at, path, { ...filter, after: next })}
          />
        </>
      )}
      <p class="pages">
        <a href={linkTo(at, '/allow-list')}>To the allow-list that is kept here</a>
      </p>
    </Page>,
  );
}

function Stands({ at, engines }: { at: At; engines: readonly Engine[] }) {
  return (
    <div class="panel pad">
      <dl>
        {engines.map((engine) => (
          <>
            <dt>
              <EngineLink at={at} name={engine.name} />
            </dt>
            <dd>
              <AllowLists at={at} engine={engine} />
            </dd>
          </>
        ))}
      </dl>
    </div>
  );
}

function Narrowed({ at, filter: { engine, list } }: { at: At; filter: Filter }) {
  if (engine === undefined && list === undefined) return null;
  return (
    <p>
      {list === undefined ? 'All lists' : `The list ${list}`}
      {engine === undefined ? '' : ` of ${engine}`}. <a href={linkTo(at, path)}>All</a>
    </p>
  );
}

/** How the own allow-lists of an engine stand. */
export function AllowLists({ at, engine: { name, allowlists } }: { at: At; engine: Engine }) {
  if (allowlists === null) return <>not read</>;
  const { state, entries, skipped, error, read_at: readAt } = allowlists;
  if (state === 'none') return <>it has none: engines have them from 1.6.6 on</>;
  return (
    <>
      {state === 'failing' ? <Tag tone="warn">failing</Tag> : null}{' '}
      <a href={linkTo(at, path, { engine: name })}>{some(entries, 'entry', 'entries')}</a>
      {readAt === null ? (
        ', not read since the last start'
      ) : (
        <>
          , read <Time at={at} iso={readAt} />
        </>
      )}
      {skipped === 0 ? '' : `; ${countOf(skipped)} more could not be read, or are too wide`}
      {error === null ? '' : `; ${error}: what was read last holds`}
    </>
  );
}

const columns = [{ title: 'Address or range' }, { title: 'Engine' }, { title: 'List' }, { title: 'Ends' }];

function EntryTable({ at, entries }: { at: At; entries: readonly EngineEntryBody[] }) {
  return (
    <Table label="Engines’ own allow-lists" columns={columns}>
      {entries.map(({ value, engine, list, expires_at: until, holds }) => (
        <tr>
          <th scope="row">
            <LookUpLink at={at} value={value} scope="Ip" />
          </th>
          <td>
            <a href={linkTo(at, path, { engine })}>{engine}</a>
          </td>
          <td class="wrap">
            <a href={linkTo(at, path, { engine, list })}>{list}</a>
          </td>
          <td>
            <Time at={at} iso={until} never="never" />
            {holds ? null : <span class="soft">, so it does not hold</span>}
          </td>
        </tr>
      ))}
    </Table>
  );
}
