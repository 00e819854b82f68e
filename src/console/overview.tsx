// The overview: whether all is served, what needs somebody, and how much there is.

import type { Context } from 'hono';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { AppEnv } from '../env.ts';
import { askFeed, report } from '../feed/client.ts';
import { readTotals } from '../metrics/read.ts';
import { openBreaks } from '../operators/audit.ts';
import type { Kind } from '../mirror/census.ts';
import { linkTo, may, type At } from './at.ts';
import { attentionOf, AttentionList } from './attention.tsx';
import { call } from './call.ts';
import { EngineTable } from './engines.tsx';
import { FirstSteps } from './first-steps.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { BouncerLink, Moment, Table } from './parts.tsx';
import { LastDay } from './plots.tsx';
import { readRoster, type RosterRow } from './roster.ts';
import type { Webhook } from './webhooks.tsx';
import { countOf, some, spanOf } from './words.ts';

export async function overview(c: Context<AppEnv>, at: At): Promise<Response> {
  const [feed, kinds, roster, totals, breaks, hooks, steps] = await Promise.all([
    call<FeedBody>(c, 'GET', '/feed'),
    askFeed(c.env, async (each) => each.census()),
    readRoster(c.env, at.nowMs),
    askFeed(c.env, async (each) => each.counts()).then((counts) => readTotals(c.env, counts)),
    openBreaks(c.env),
    // Asked by one who may not, it would count as a refusal.
    may(at, 'operator') ? call<{ webhooks: Webhook[] }>(c, 'GET', '/webhooks') : null,
    // What this isolate has counted is in them.
    report(c.env).then(() => askFeed(c.env, async (each) => each.steps())),
  ]);
  if (!feed.ok) return refusedPage(at, feed.refused);
  const { engines } = feed.body;
  const webhooks = hooks?.ok ? hooks.body.webhooks : [];
  const suspected = totals.hosts.get('clone-suspected') ?? 0;
  const needs = attentionOf(at, { feed: feed.body, roster, suspected, breaks, webhooks });
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
      <LastDay at={at} steps={steps} />
      <h2>Decisions by origin</h2>
      <Origins kinds={kinds} decisions={decisions} />
      <Keys at={at} roster={roster} />
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
          <Others at={at} roster={roster} />
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

/** Those that were not seen, by why. */
function Others({ at, roster }: { at: At; roster: readonly RosterRow[] }) {
  const words = { silent: 'silent', paused: 'paused', keyless: 'without a good key', unseen: 'never seen' };
  return (
    <>
      {Object.entries(words).map(([state, word]) => {
        const count = roster.filter((row) => row.state === state).length;
        return count === 0 ? null : (
          <>
            {' · '}
            <a href={linkTo(at, '/bouncers', { state })}>
              {countOf(count)} {word}
            </a>
          </>
        );
      })}
    </>
  );
}

const mostKeys = 10;

function Keys({ at, roster }: { at: At; roster: readonly RosterRow[] }) {
  const good = roster.filter(({ state }) => state !== 'keyless');
  if (good.length === 0) return null;
  const ending = nextEnds(good, at.nowMs);
  return (
    <>
      <h2>Keys by age</h2>
      <Ages at={at} roster={good} />
      <h2>Keys by their end</h2>
      {ending.length === 0 ? (
        <p class="soft">No key that is good now has an end.</p>
      ) : (
        <Ends at={at} ending={ending} />
      )}
    </>
  );
}

const dayMs = 86_400_000;
const ages: readonly (readonly [words: string, upToMs: number])[] = [
  ['up to 30 d', 30 * dayMs],
  ['30 to 90 d', 90 * dayMs],
  ['90 to 365 d', 365 * dayMs],
  ['over 365 d', Infinity],
];

function Ages({ at, roster }: { at: At; roster: readonly RosterRow[] }) {
  const old = roster.map(({ keyMadeMs }) => at.nowMs - (keyMadeMs ?? 0));
  const columns = [{ title: 'Made' }, { title: 'Bouncers', n: true }];
  return (
    <Table label="Keys by age" columns={columns}>
      {ages.map(([words, upToMs], index) => {
        const overMs = ages[index - 1]?.[1] ?? -Infinity;
        return (
          <tr>
            <th scope="row">{words} ago</th>
            <td class="n">{countOf(old.filter((ms) => ms > overMs && ms <= upToMs).length)}</td>
          </tr>
        );
      })}
    </Table>
  );
}

function Ends({ at, ending }: { at: At; ending: readonly RosterRow[] }) {
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
