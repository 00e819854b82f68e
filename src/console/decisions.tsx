// Decisions: what is active, and what operators ban and unban here.

import type { Context } from 'hono';
import type { DecisionBody } from '../decisions/api.ts';
import type { AppEnv } from '../env.ts';
import { localOrigin } from '../formats/decision.ts';
import { linkTo, may, type At } from './at.ts';
import { call, filledIn, onceBy } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { LookUpLink, lookUpLink, Pages, Table } from './parts.tsx';
import { some, spanOf, utcOf } from './words.ts';

const pageRows = 100;

const filters = ['value', 'scope', 'type', 'origin', 'scenario', 'engine'] as const;

/** `GET /decisions?value=&…&after=`: the parameters of the API's list. */
export async function decisionList(c: Context<AppEnv>, at: At): Promise<Response> {
  const { after, ...rest } = c.req.query();
  const asked = filters.map((name) => [name, rest[name]?.trim() ?? ''] as const);
  const filter = Object.fromEntries(asked.filter(([, text]) => text !== ''));
  const answer = await call<{ decisions: DecisionBody[]; next: number | null }>(c, 'GET', '/decisions', {
    query: { ...filter, after, limit: pageRows },
  });
  if (!answer.ok && answer.refused.status !== 400) return refusedPage(at, answer.refused);
  const { decisions, next } = answer.ok ? answer.body : { decisions: [], next: null };
  const link = (query: Record<string, string | number | null>): string => linkTo(at, '/decisions', query);
  const isFirst = after === undefined;
  return respond(
    <Page
      at={at}
      title="Decisions"
      nav="/decisions"
      sub="What bouncers enforce: the engines’ decisions, and those made here."
      live
    >
      <Filter at={at} filter={filter} engines={c.get('settings').engines.map(({ name }) => name)} />
      {!answer.ok ? (
        <div class="banner bad" role="alert">
          <p>{answer.refused.detail}.</p>
        </div>
      ) : decisions.length > 0 ? (
        <DecisionTable at={at} label="Decisions" decisions={decisions} />
      ) : (
        <p class="soft">{!isFirst ? 'There are no more.' : noneWords(filter)}</p>
      )}
      <Pages
        before={isFirst ? null : link(filter)}
        beforeText="← to the first"
        after={next === null ? null : link({ ...filter, after: next })}
      />
    </Page>,
    answer.ok ? 200 : 400,
  );
}

type Filters = Readonly<Record<string, string>>;

function noneWords(filter: Filters): string {
  if (Object.keys(filter).length === 0) return 'There is none: nothing is banned.';
  return filter['value'] === undefined
    ? 'None is like that.'
    : `Nothing that is known bans ${filter['value']} like that.`;
}

function Filter({ at, filter, engines }: { at: At; filter: Filters; engines: readonly string[] }) {
  const input = (name: string, label: string) => (
    <input name={name} value={filter[name] ?? ''} placeholder={label} aria-label={label} />
  );
  return (
    <div class="bar">
      <form class="bar" role="search" method="get" action={linkTo(at, '/decisions')}>
        {input('value', 'Address, range, country, AS')}
        {input('origin', 'Origin')}
        {input('scenario', 'Scenario')}
        {engines.length > 1 || filter['engine'] !== undefined ? input('engine', 'Engine') : null}
        <button>Filter</button>
      </form>
      <span class="end">
        <a href={linkTo(at, '/decisions', { origin: localOrigin })}>Made here</a>
        {may(at, 'operator') ? (
          <>
            {' · '}
            <a href={linkTo(at, '/ban')}>Ban</a>
            {' · '}
            <a href={linkTo(at, '/unban')}>Unban</a>
          </>
        ) : null}
      </span>
    </div>
  );
}

const columns = [
  { title: 'Value' },
  { title: 'Type' },
  { title: 'Origin' },
  { title: 'Scenario' },
  { title: 'Engine' },
  { title: 'Left', n: true },
];

export function DecisionTable(props: { at: At; label: string; decisions: readonly DecisionBody[] }) {
  const { at, label, decisions } = props;
  const all = may(at, 'operator') ? [...columns, { title: 'Unban' }] : columns;
  return (
    <Table label={label} columns={all}>
      {decisions.map((decision) => {
        const { value, scope, type, engine, left_behind: leftBehind } = decision;
        const untilMs = Date.parse(decision.until);
        return (
          <tr>
            <th scope="row">
              <LookUpLink at={at} value={value} scope={scope} />{' '}
              {scope === 'Ip' || scope === 'Range' ? null : <span class="soft">{scope}</span>}
            </th>
            <td>{type}</td>
            <td class="wrap">{decision.origin}</td>
            <td class="wrap mono">{decision.scenario}</td>
            <td>
              {engine ?? 'decided here'}
              {leftBehind ? <span class="soft">, which does not confirm it any more</span> : null}
            </td>
            <td class="n">
              <time datetime={decision.until} title={`until ${utcOf(untilMs)}`}>
                {spanOf(untilMs - at.nowMs)}
              </time>
            </td>
            {may(at, 'operator') ? (
              <td>
                {engine === null || leftBehind ? (
                  <a href={linkTo(at, '/unban', { value, scope, type })}>Unban…</a>
                ) : (
                  <span class="soft">at the engine</span>
                )}
              </td>
            ) : null}
          </tr>
        );
      })}
    </Table>
  );
}

export function showBan(c: Context<AppEnv>, at: At): Promise<Response> {
  return banPage(at, c.req.query());
}

const types = [
  ['ban', 'ban'],
  ['captcha', 'captcha'],
  ['throttle', 'throttle'],
] as const;

function banPage(at: At, { value, scope }: Match, sent?: Sent): Promise<Response> {
  return respond(
    <Page
      at={at}
      title="Ban"
      nav="/decisions"
      sub="With or without an engine: every bouncer whose view it is in gets it with its next poll."
    >
      <RefusedBanner sent={sent} />
      <Post at={at} to="/ban" needs="operator" what="Banning">
        <div class="fields">
          <TextField
            name="value"
            label="Value"
            value={value ?? ''}
            required
            sent={sent}
            hint="An address, a CIDR range, or what the scope calls for."
          />
          <TextField
            name="duration"
            label="For"
            value="4h"
            required
            sent={sent}
            hint="A duration like 30m, 4h or 7d."
          />
          <SelectField name="type" label="Type" options={types} sent={sent} />
          <TextField
            name="scope"
            label="Scope"
            value={scope ?? ''}
            sent={sent}
            placeholder="Ip or Range, by the value"
            hint="Country (FR), AS (64500), or one of your own."
          />
          <TextField
            name="scenario"
            label="Why"
            sent={sent}
            placeholder="manual 'ban' from lapidary"
            hint="Bouncers get it as the scenario."
          />
        </div>
        <button class="primary">Ban</button>
      </Post>
    </Page>,
    sent?.refused.status,
  );
}

export async function ban(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call<{ decision: DecisionBody }>(c, 'POST', '/decisions', {
    body: filledIn(form, ['value', 'duration', 'type', 'scope', 'scenario']),
    headers: onceBy(form),
  });
  if (!answer.ok) return banPage(at, {}, { values: form, refused: answer.refused });
  const { value, scope } = answer.body.decision;
  return c.redirect(lookUpLink(at, value, scope, 'banned'), 303);
}

interface Unbanned {
  readonly removed: number;
  readonly still_banned_by: readonly string[];
}

type Match = Readonly<Record<string, string | undefined>>;

export function showUnban(c: Context<AppEnv>, at: At): Promise<Response> {
  return unbanPage(at, c.req.query());
}

function unbanPage(at: At, { value, scope, type }: Match, sent?: Sent, done?: Unbanned): Promise<Response> {
  return respond(
    <Page
      at={at}
      title="Unban"
      nav="/decisions"
      sub="Every decision about a value that was made here is removed, in whatever spelling. Bouncers learn of it with their next poll."
    >
      <RefusedBanner sent={sent} />
      {done ? (
        <div class="banner ok" role="status">
          <p>
            {done.removed === 0
              ? `Nothing was banned here.`
              : `${some(done.removed, 'decision was', 'decisions were')} removed.`}{' '}
            {done.still_banned_by.length === 0
              ? ''
              : `Still banned by ${done.still_banned_by.join(', ')}: only the engine can remove its own.`}
          </p>
        </div>
      ) : null}
      <Post at={at} to="/unban" needs="operator" what="Unbanning">
        <div class="fields">
          <TextField
            name="value"
            label="Value"
            value={value ?? ''}
            required
            sent={sent}
            hint="An address, a range, a country or an AS."
          />
          <TextField name="scope" label="Scope" value={scope ?? ''} sent={sent} placeholder="any" />
          <TextField name="type" label="Type" value={type ?? ''} sent={sent} placeholder="any" />
        </div>
        <button class="danger">Unban</button>
      </Post>
      <p>
        {value ? <a href={lookUpLink(at, value, scope)}>Look it up</a> : null}
        {value ? ' · ' : ''}
        <a href={linkTo(at, '/decisions')}>Back to the decisions</a>
      </p>
    </Page>,
    sent?.refused.status,
  );
}

export async function unban(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const query = filledIn(form, ['value', 'scope', 'type']);
  const answer = await call<Unbanned>(c, 'DELETE', '/decisions', { query });
  if (!answer.ok) return unbanPage(at, query, { values: form, refused: answer.refused });
  return unbanPage(at, query, undefined, answer.body);
}
