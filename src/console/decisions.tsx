// Decisions: what is active, and what operators ban and unban here.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { DecisionBody } from '../decisions/api.ts';
import type { DecidedValue, valuesShape } from '../decisions/values-api.ts';
import type { AppEnv } from '../env.ts';
import { localOrigin } from '../formats/decision.ts';
import { linkTo, may, type At } from './at.ts';
import { Withheld } from './decision-table.tsx';
import { call, filledIn, onceBy } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { LookUpLink, lookUpLink, Pages, Table, type Column } from './parts.tsx';
import { countOf, some, spanOf, utcOf } from './words.ts';

const pageRows = 100;

const filters = ['value', 'scope', 'type', 'origin', 'scenario', 'engine', 'order'] as const;

type Filters = Readonly<Record<string, string>>;
type Values = z.input<typeof valuesShape>;
type Totals = Values['totals'];

/** `GET /decisions?value=&…&order=&after=`: the parameters of `GET /api/v1/decisions/values`. */
export async function decisionList(c: Context<AppEnv>, at: At): Promise<Response> {
  const { after, ...rest } = c.req.query();
  const asked = filters.map((name) => [name, rest[name]?.trim() ?? ''] as const);
  const filter: Filters = Object.fromEntries(asked.filter(([, text]) => text !== ''));
  const answer = await call<Values>(c, 'GET', '/decisions/values', {
    query: { ...filter, after, limit: pageRows },
  });
  if (!answer.ok && answer.refused.status !== 400) return refusedPage(at, answer.refused);
  const { values, totals, next } = answer.ok ? answer.body : { values: [], totals: null, next: null };
  const isFirst = after === undefined;
  return respond(
    <Page at={at} title="Decisions" nav="/decisions" sub={totals && sentenceOf(totals, filter)} live>
      <Filter at={at} filter={filter} engines={c.get('settings').upstreams.map(({ name }) => name)} />
      {!answer.ok ? (
        <div class="banner bad" role="alert">
          <p>{answer.refused.detail}.</p>
        </div>
      ) : values.length > 0 ? (
        <Values at={at} values={values} filter={filter} />
      ) : (
        <p class="soft">{!isFirst ? 'There are no more.' : noneWords(filter)}</p>
      )}
      <Pages
        before={isFirst ? null : linkTo(at, '/decisions', filter)}
        beforeText="← to the first"
        after={next === null ? null : linkTo(at, '/decisions', { ...filter, after: next })}
      />
    </Page>,
    answer.ok ? 200 : 400,
  );
}

function isNarrowed(filter: Filters): boolean {
  return Object.keys(filter).some((name) => name !== 'order');
}

function sentenceOf({ values, decisions, made_here: madeHere }: Totals, filter: Filters): string {
  const narrowed = isNarrowed(filter) ? ' like that' : '';
  const here = madeHere === 0 ? 'none' : countOf(madeHere);
  return `${some(decisions, 'decision')}${narrowed} on ${some(values, 'value')}, ${here} of them made here.`;
}

function noneWords(filter: Filters): string {
  if (!isNarrowed(filter)) return 'There is none: nothing is banned.';
  return filter['value'] === undefined
    ? 'None is like that.'
    : `Nothing that is known bans ${filter['value']} like that.`;
}

function Filter({ at, filter, engines }: { at: At; filter: Filters; engines: readonly string[] }) {
  const input = (name: string, label: string) => (
    <input name={name} value={filter[name] ?? ''} placeholder={label} aria-label={label} />
  );
  const kept = (name: string) =>
    filter[name] === undefined ? null : <input type="hidden" name={name} value={filter[name]} />;
  return (
    <div class="bar">
      <form class="bar" role="search" method="get" action={linkTo(at, '/decisions')}>
        {input('value', 'Address, range, country, AS')}
        {input('origin', 'Origin')}
        {input('scenario', 'Scenario')}
        {input('type', 'Type')}
        {engines.length > 1 || filter['engine'] !== undefined ? input('engine', 'Engine') : null}
        {kept('scope')}
        {kept('order')}
        <button>Filter</button>
        {isNarrowed(filter) ? <a href={linkTo(at, '/decisions')}>All</a> : null}
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

function columnsOf(at: At, filter: Filters): Column[] {
  const { order } = filter;
  const to = (by: string): string => linkTo(at, '/decisions', { ...filter, order: by });
  const most = { to: to('most-decisions'), now: order === 'most-decisions' ? 'descending' : null } as const;
  const left =
    order === 'ends-last'
      ? ({ to: to('ends-first'), now: 'descending' } as const)
      : ({ to: to('ends-last'), now: order === 'ends-first' ? 'ascending' : null } as const);
  return [
    { title: 'Value' },
    { title: 'Decisions', n: true, sort: most },
    { title: 'Type' },
    { title: 'Origin' },
    { title: 'Scenario' },
    { title: 'Engine' },
    { title: 'Left', n: true, sort: left },
    ...(may(at, 'operator') ? [{ title: 'Unban' }] : []),
  ];
}

function Values({ at, values, filter }: { at: At; values: readonly DecidedValue[]; filter: Filters }) {
  return (
    <>
      {(filter['order'] ?? 'newest') === 'newest' ? null : (
        <p>
          <a href={linkTo(at, '/decisions', { ...filter, order: null })}>The newest first</a>
        </p>
      )}
      <Table label="Decisions" columns={columnsOf(at, filter)}>
        {values.map((value) => (
          <ValueRow at={at} value={value} />
        ))}
      </Table>
    </>
  );
}

/** A value with its decisions: one in the row itself, several behind what opens. */
function ValueRow({
  at,
  value: { value, scope, total, origins, decisions },
}: {
  at: At;
  value: DecidedValue;
}) {
  const lastMs = Math.max(...decisions.map(({ until }) => Date.parse(until)));
  const own = decisions.filter(isRemovable);
  const types = [...new Set(decisions.map(({ type }) => type))];
  const engines = [...new Set(decisions.map(engineWords))];
  return (
    <tr>
      <th scope="row">
        <LookUpLink at={at} value={value} scope={scope} />{' '}
        {scope === 'Ip' || scope === 'Range' ? null : <span class="soft">{scope}</span>}
        <Withheld at={at} entry={decisions[0]?.withheld_by ?? null} />
      </th>
      <td class="n">{countOf(total)}</td>
      <td>{types.join(', ')}</td>
      <td class="wrap">
        {origins.map(({ origin, decisions: count }) => (
          <div>
            {total === 1 ? '' : `${countOf(count)} `}
            {origin}
          </div>
        ))}
      </td>
      <td class="wrap mono">
        {total === 1 ? decisions[0]?.scenario : <Several at={at} total={total} decisions={decisions} />}
      </td>
      <td>{engines.join(', ')}</td>
      <td class="n">
        <Left at={at} untilMs={lastMs} />
      </td>
      {may(at, 'operator') ? (
        <td>
          {own.length === 0 ? (
            <span class="soft">at the engine</span>
          ) : (
            <a href={linkTo(at, '/unban', { value, scope, type: total === 1 ? types[0] : null })}>Unban…</a>
          )}
        </td>
      ) : null}
    </tr>
  );
}

interface SeveralOf {
  readonly at: At;
  readonly total: number;
  readonly decisions: readonly DecisionBody[];
}

function Several({ at, total, decisions }: SeveralOf) {
  return (
    <details>
      <summary>{total === 2 ? 'both' : `all ${countOf(total)}`}</summary>
      <ul class="several">
        {decisions.map((decision) => (
          <li>
            {decision.scenario}
            <br />
            <span class="soft">
              {decision.value}, {decision.type}, {decision.origin}, {engineWords(decision)},{' '}
              <Left at={at} untilMs={Date.parse(decision.until)} />
            </span>
          </li>
        ))}
      </ul>
      {total > decisions.length ? (
        <p class="soft">{countOf(decisions.length)} are shown; GET /api/v1/decisions lists all.</p>
      ) : null}
    </details>
  );
}

function Left({ at, untilMs }: { at: At; untilMs: number }) {
  return (
    <time datetime={new Date(untilMs).toISOString()} title={`until ${utcOf(untilMs)}`}>
      {spanOf(untilMs - at.nowMs)}
    </time>
  );
}

function engineWords({ engine, left_behind: leftBehind }: DecisionBody): string {
  return `${engine ?? 'decided here'}${leftBehind ? ', which does not confirm it any more' : ''}`;
}

function isRemovable({ engine, left_behind: leftBehind }: DecisionBody): boolean {
  return engine === null || leftBehind;
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
