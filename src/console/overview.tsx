// The overview: whether all is served, what needs somebody, and how much there is.

import type { Context } from 'hono';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { AppEnv } from '../env.ts';
import { askFeed } from '../feed/client.ts';
import { readTotals } from '../metrics/read.ts';
import type { Kind } from '../mirror/census.ts';
import { linkTo, type At } from './at.ts';
import { attentionOf, AttentionList } from './attention.tsx';
import { call } from './call.ts';
import { EngineTable } from './engines.tsx';
import { FirstSteps } from './first-steps.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { BouncerLink, Moment, Table } from './parts.tsx';
import { readRoster, type RosterRow } from './roster.ts';
import { countOf, some, spanOf } from './words.ts';

export async function overview(c: Context<AppEnv>, at: At): Promise<Response> {
  const [feed, kinds, roster, totals] = await Promise.all([
    call<FeedBody>(c, 'GET', '/feed'),
    askFeed(c.env, async (each) => each.census()),
    readRoster(c.env, at.nowMs),
    askFeed(c.env, async (each) => each.counts()).then((counts) => readTotals(c.env, counts)),
  ]);
  if (!feed.ok) return refusedPage(at, feed.refused);
  const { engines } = feed.body;
  const suspected = totals.hosts.get('clone-suspected') ?? 0;
  const needs = attentionOf(at, feed.body, roster, suspected);
  // Counted at once with its parts, which may be 5 s old.
  const decisions = kinds.reduce((sum, { count }) => sum + count, 0);
  const isServed = engines.every(({ freshness }) => freshness !== 'cold');
  const served = isServed ? 'Everything is served.' : 'Not everything is served.';
  const need = needs.length === 0 ? 'Nothing needs' : `${some(needs.length, 'thing needs', 'things need')}`;
  const alone = engines.length === 0 ? ' There is no engine: what operators ban here is served.' : '';
  return respond(
    <Page at={at} title="Overview" nav="/" sub={`${served} ${need} attention.${alone}`} live>
      {roster.length === 0 ? <FirstSteps at={at} engines={engines.length} /> : null}
      <Cards at={at} feed={feed.body} kinds={kinds} decisions={decisions} roster={roster} />
      {needs.length === 0 ? null : (
        <>
          <h2>Needs attention</h2>
          <AttentionList needs={needs} />
        </>
      )}
      {engines.length === 0 ? null : (
        <>
          <h2>Engines</h2>
          <EngineTable at={at} engines={engines} />
        </>
      )}
      <h2>Decisions by origin</h2>
      <Origins kinds={kinds} decisions={decisions} />
      {roster.some(hasEnd) ? (
        <>
          <h2>Keys by their end</h2>
          <Keys at={at} roster={roster} />
        </>
      ) : null}
    </Page>,
  );
}

function hasEnd({ keyEndMs }: RosterRow): boolean {
  return keyEndMs !== null && Number.isFinite(keyEndMs);
}

interface Known {
  readonly at: At;
  readonly feed: FeedBody;
  readonly kinds: readonly Kind[];
  readonly decisions: number;
  readonly roster: readonly RosterRow[];
}

function Cards({ at, feed, kinds, decisions, roster }: Known) {
  const ours = kinds.filter(({ engine }) => engine === '').reduce((sum, { count }) => sum + count, 0);
  const [next] = nextEnds(roster, at.nowMs);
  const seen = roster.filter(({ state }) => state === 'seen').length;
  const { age_seconds: age, full_age_seconds: fullAge } = feed;
  return (
    <div class="cards">
      <div class="card">
        <b>{countOf(decisions)}</b>
        <span>
          <a href={linkTo(at, '/decisions')}>decisions</a>, {countOf(ours)} of them made here
        </span>
      </div>
      <div class="card">
        <b>{countOf(seen)}</b>
        <span>
          of {some(roster.length, 'bouncer')} <a href={linkTo(at, '/bouncers')}>seen in the last hour</a>
        </span>
      </div>
      {feed.engines.length === 0 ? null : (
        <div class="card">
          <b>{age === null ? 'never' : spanOf(age * 1000)}</b>
          <span>
            {age === null ? 'did every engine answer' : 'since every engine answered'} ·{' '}
            {fullAge === null
              ? 'not every full list is there'
              : `full lists are ${spanOf(fullAge * 1000)} old`}
          </span>
        </div>
      )}
      <div class="card">
        <b>{next ? spanOf((next.keyEndMs ?? 0) - at.nowMs) : 'never'}</b>
        {next ? (
          <span>
            until the next key ends (<BouncerLink at={at} name={next.name} />)
          </span>
        ) : (
          <span>does a key end that is good now</span>
        )}
      </div>
    </div>
  );
}

/** The bouncers whose keys are good and end, the next one first. */
function nextEnds(roster: readonly RosterRow[], nowMs: number): RosterRow[] {
  const ending = roster.filter((row) => hasEnd(row) && (row.keyEndMs ?? 0) > nowMs);
  return ending.toSorted((a, b) => (a.keyEndMs ?? 0) - (b.keyEndMs ?? 0));
}

const mostKeys = 10;

function Keys({ at, roster }: { at: At; roster: readonly RosterRow[] }) {
  const ending = nextEnds(roster, at.nowMs);
  const columns = [{ title: 'Bouncer' }, { title: 'Key ends', n: true }];
  return (
    <>
      <Table label="Keys by their end" columns={columns}>
        {ending.slice(0, mostKeys).map((row) => (
          <tr>
            <th scope="row">
              <BouncerLink at={at} name={row.name} />
            </th>
            <td class="n">
              <Moment at={at} ms={row.keyEndMs ?? 0} />
            </td>
          </tr>
        ))}
      </Table>
      {ending.length > mostKeys ? (
        <p class="soft pages">
          <a href={linkTo(at, '/bouncers', { sort: 'key' })}>All {countOf(ending.length)}</a>
        </p>
      ) : null}
    </>
  );
}

/** Scenarios are many, origins few. An engine may still make up any number of them. */
const mostOrigins = 30;

function Origins({ kinds, decisions }: { kinds: readonly Kind[]; decisions: number }) {
  const counts = new Map<string, Kind & { count: number }>();
  for (const kind of kinds) {
    const key = `${kind.engine}\n${kind.origin}\n${kind.type}`;
    const known = counts.get(key);
    if (known) known.count += kind.count;
    else counts.set(key, { ...kind });
  }
  if (decisions === 0) return <p class="soft">There are none: no address is banned.</p>;
  const rows = [...counts.values()].sort((a, b) => b.count - a.count);
  const columns = [
    { title: 'Origin' },
    { title: 'Engine' },
    { title: 'Type' },
    { title: 'Decisions', n: true },
  ];
  return (
    <Table label="Decisions by origin" columns={columns}>
      {rows.slice(0, mostOrigins).map(({ origin, engine, type, count }) => (
        <tr>
          <th scope="row" class="mono wrap">
            {origin}
          </th>
          <td>{engine === '' ? 'decided here' : engine}</td>
          <td>{type}</td>
          <td class="n">{countOf(count)}</td>
        </tr>
      ))}
    </Table>
  );
}
