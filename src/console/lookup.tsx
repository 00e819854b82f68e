// Look-up: which decisions cover an address, and which bouncers have been sent them. What is said of a bouncer is what the
// API says (decisions/sent-api.ts): what went out, never that it arrived.

import type { Context } from 'hono';
import type { DecisionBody } from '../decisions/api.ts';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { SentPage } from '../decisions/sent-api.ts';
import type { AppEnv } from '../env.ts';
import { parseNetwork } from '../formats/ip.ts';
import { linkTo, may, type At } from './at.ts';
import { call } from './call.ts';
import { DecisionTable, Withheld } from './decision-table.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Done, EngineLink, Pages } from './parts.tsx';
import { countsOf, SentTable } from './sent.tsx';
import { listOf, some, spanOf, utcOf } from './words.ts';

/** Of bouncers: each page is evaluated by itself. */
const pageRows = 50;

const title = 'Look-up';
const parameters = ['value', 'scope', 'bouncer'] as const;
const question = 'Which decisions cover an address, and which bouncers have been sent them.';

/** `GET /lookup?value=&scope=&bouncer=&after=`: the parameters of the API. */
export async function lookUp(c: Context<AppEnv>, at: At): Promise<Response> {
  const { after, done, ...query } = c.req.query();
  const [value = '', scope = '', bouncer = ''] = parameters.map((name) => query[name]?.trim());
  const form = <LookUpForm at={at} value={value} scope={scope} />;
  if (value === '') {
    return respond(
      <Page at={at} title={title} nav="/lookup" sub={question}>
        {form}
        <p class="soft">
          An address and a range find every decision that covers all of it, a country (<code>FR</code>) and an
          AS (<code>AS64500</code>) those about it.
        </p>
      </Page>,
    );
  }
  const [answer, feed] = await Promise.all([
    call<SentPage>(c, 'GET', '/decisions/sent', {
      query: { value, scope: scope || null, bouncer: bouncer || null, after, limit: pageRows },
    }),
    call<FeedBody>(c, 'GET', '/feed'),
  ]);
  if (!feed.ok) return refusedPage(at, feed.refused);
  if (!answer.ok) {
    if (answer.refused.status !== 400) return refusedPage(at, answer.refused);
    return respond(
      <Page at={at} title={title} nav="/lookup" sub={question}>
        {form}
        <div class="banner bad" role="alert">
          <p>{answer.refused.detail}.</p>
        </div>
      </Page>,
      400,
    );
  }
  const { decisions, more_decisions: isCut } = answer.body;
  return respond(
    <Page
      at={at}
      title={value}
      heading={<code>{value}</code>}
      nav="/lookup"
      sub={coveredBy(value, decisions, isCut)}
      live
    >
      <Done
        done={done}
        words={{ banned: 'Banned. Each bouncer whose view it is in gets it with its next poll.' }}
      />
      {form}
      <Unknown at={at} engines={feed.body.engines} />
      {decisions.length === 0 ? (
        <BanLink at={at} value={value} scope={scope} />
      ) : (
        <>
          <Verdict at={at} decisions={decisions} isCut={isCut} />
          <BanLink at={at} value={value} scope={scope} />
          <h2>Decisions that cover it</h2>
          <DecisionTable at={at} label="Decisions that cover it" decisions={decisions} />
          {isCut ? (
            <p class="soft pages">The first {decisions.length}, by their ids. There are more.</p>
          ) : null}
          <Reach at={at} found={answer.body} query={{ value, scope, bouncer }} after={after} />
        </>
      )}
    </Page>,
  );
}

function LookUpForm({ at, value, scope }: { at: At; value: string; scope: string }) {
  return (
    <form class="bar" role="search" aria-label={title} method="get" action={linkTo(at, '/lookup')}>
      <input
        name="value"
        value={value}
        placeholder="Address, range, country, AS"
        aria-label="Address, range, country, AS"
        required
        autocomplete="off"
        spellcheck={false}
      />
      <input name="scope" value={scope} placeholder="Any scope" aria-label="Scope" autocomplete="off" />
      <button class="primary">Look up</button>
    </form>
  );
}

function coveredBy(value: string, decisions: readonly DecisionBody[], isCut: boolean): string {
  if (decisions.length === 0) return `Nothing that is known here covers ${value}.`;
  const makers = [...new Set(decisions.map(({ engine }) => engine))];
  const engines = makers.filter((engine) => engine !== null);
  const parts = [
    ...(engines.length > 3 ? [some(engines.length, 'engine')] : engines),
    ...(makers.includes(null) ? ['operators of Lapidary'] : []),
  ];
  const count = `${isCut ? 'More than ' : ''}${some(decisions.length, 'decision')}`;
  return `Covered by ${count}, of ${listOf(parts)}.`;
}

/** What keeps the page from knowing all. */
function Unknown({ at, engines }: { at: At; engines: FeedBody['engines'] }) {
  const parts = engines.flatMap(({ name, freshness, age_seconds: age }) => {
    if (freshness === 'cold') return [`No full list of ${name} is known: what it bans is not here.`];
    if (freshness === 'stale') {
      const since = age === null ? '' : ` for ${spanOf(age * 1000)}`;
      return [`${name} has not answered${since}: what it decided since is not here.`];
    }
    return [];
  });
  if (parts.length === 0) return null;
  return (
    <div class="banner warn" role="status">
      <p>
        {parts.join(' ')} <a href={linkTo(at, '/engines')}>Engines</a>
      </p>
    </div>
  );
}

function BanLink({ at, value, scope }: { at: At; value: string; scope: string }) {
  if (!may(at, 'operator')) return <p class="soft">Banning takes the role operator; yours is {at.role}.</p>;
  return (
    <p class="bar">
      <a href={linkTo(at, '/ban', { value, scope })}>Ban it…</a>
      {parseNetwork(value) ? <a href={linkTo(at, '/allow-list', { value })}>Allow it…</a> : null}
    </p>
  );
}

/** Of the decisions that bouncers are served, all or some of them, the one that lasts longest: a ban, where there is one. */
function Verdict({ at, decisions, isCut }: { at: At; decisions: readonly DecisionBody[]; isCut: boolean }) {
  const served = decisions.filter(({ withheld_by: entry }) => entry === null || entry.bouncers !== null);
  if (served.length === 0) {
    return (
      <div class="banner warn">
        <p>
          <b>Withheld</b>: no bouncer that follows the stream is sent {isCut ? 'any of the first' : 'it'}.{' '}
          <Withheld at={at} entry={decisions[0]?.withheld_by ?? null} />
        </p>
      </div>
    );
  }
  const bans = served.filter(({ type }) => type === 'ban');
  const counted = bans.length > 0 ? bans : served;
  const longest = counted.reduce((a, b) => (Date.parse(b.until) > Date.parse(a.until) ? b : a));
  const untilMs = Date.parse(longest.until);
  return (
    <div class="banner bad">
      <p>
        <b>
          {longest.type === 'ban' ? 'Banned' : longest.type} until {utcOf(untilMs)}
        </b>{' '}
        <span class="soft">({spanOf(untilMs - at.nowMs)} left)</span>
      </p>
      <p class="wide">
        By the longest{isCut ? ' of the first' : ''}: <code>{longest.scenario}</code>,{' '}
        {longest.engine === null ? (
          'decided here'
        ) : (
          <>
            engine <EngineLink at={at} name={longest.engine} />
          </>
        )}
        .
      </p>
    </div>
  );
}

function noneOf(bouncer: string, after: string | undefined): string {
  if (after !== undefined) return 'There are no more bouncers.';
  return bouncer === '' ? 'There is no bouncer yet.' : 'No bouncer’s name has that in it.';
}

function Reach(props: {
  at: At;
  found: SentPage;
  query: Readonly<Record<(typeof parameters)[number], string>>;
  after: string | undefined;
}) {
  const { at, found, query, after } = props;
  const { decisions, bouncers, next } = found;
  const link = (more: Record<string, number>): string => linkTo(at, '/lookup', { ...query, ...more });
  const isPart = after !== undefined || next !== null;
  return (
    <>
      <h2 id="reach">Who has been sent it</h2>
      <p class="soft">
        This is what answers had in them. Nobody can know that an answer arrived, so each decision goes out in
        two. A bouncer may have been sent more by now, and not less.
      </p>
      <form class="bar" role="search" method="get" action={`${linkTo(at, '/lookup')}#reach`}>
        <input type="hidden" name="value" value={query.value} />
        {query.scope === '' ? null : <input type="hidden" name="scope" value={query.scope} />}
        <input
          name="bouncer"
          value={query.bouncer}
          placeholder="Bouncer’s name"
          aria-label="A part of the bouncer’s name"
          autocomplete="off"
          spellcheck={false}
        />
        <button>Filter</button>
      </form>
      {bouncers.length === 0 ? (
        <p class="soft">{noneOf(query.bouncer, after)}</p>
      ) : (
        <>
          <div class="cards">
            {countsOf(bouncers).map(({ count, words }) => (
              <div class="card">
                <b>{count}</b>
                <span>{words}</span>
              </div>
            ))}
          </div>
          {isPart ? <p class="soft pages">Of the {some(bouncers.length, 'bouncer')} of this page.</p> : null}
          <SentTable at={at} decisions={decisions} bouncers={bouncers} />
        </>
      )}
      <Pages
        before={after === undefined ? null : link({})}
        beforeText="← to the first"
        after={next === null ? null : link({ after: next })}
      />
    </>
  );
}
