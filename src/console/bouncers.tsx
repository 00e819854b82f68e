// The list of bouncers, and how a new one is made.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { bouncerShape } from '../bouncers/bouncers.ts';
import type { AppEnv } from '../env.ts';
import { linkTo, may, type At } from './at.ts';
import { call, onceBy } from './call.ts';
import { FirstBouncer } from './first-steps.tsx';
import { Page, respond } from './frame.tsx';
import { ExpiryField, Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { kindNamed, kindOf, kindOptions } from './kinds.ts';
import { BouncerLink, Done, Lines, Moment, Pages, Table, Tag, type Column } from './parts.tsx';
import { bouncerStates, describeState, readRoster, type RosterRow } from './roster.ts';
import { countOf, some } from './words.ts';

export type BouncerBody = z.input<typeof bouncerShape>;

const pageRows = 50;

/** What the list may be sorted by: the newest, the furthest behind and the next to end come first. */
const sorts = {
  name: { title: 'Bouncer', of: (row: RosterRow) => row.name },
  pull: { title: 'Last pull', of: (row: RosterRow) => -(row.seenMs ?? -Infinity) },
  lag: { title: 'Behind', of: (row: RosterRow) => -(row.lag ?? -1) },
  key: { title: 'Key ends', of: (row: RosterRow) => row.keyEndMs ?? -Infinity },
} as const;

type Sort = keyof typeof sorts;

function sorted(rows: readonly RosterRow[], sort: Sort, descending: boolean): RosterRow[] {
  const { of } = sorts[sort];
  const order = descending ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [x, y] = [of(a), of(b)];
    return x === y ? 0 : x < y ? -order : order;
  });
}

/** `GET /bouncers?q=&state=&sort=&page=`: `sort` begins with a dash where it is the other way round. */
export async function bouncerList(c: Context<AppEnv>, at: At): Promise<Response> {
  const { q = '', state = '', sort: asked = 'name', page: pageText = '1', done } = c.req.query();
  const all = await readRoster(c.env, at.nowMs);
  const by = asked.replace(/^-/, '');
  const sort: Sort = Object.hasOwn(sorts, by) ? (by as Sort) : 'name';
  const descending = asked.startsWith('-');
  const wanted = q.trim().toLowerCase();
  const found = all.filter((row) => {
    const isNamed = row.name.toLowerCase().includes(wanted) || row.type.toLowerCase().includes(wanted);
    return isNamed && (state === '' || row.state === state);
  });
  const last = Math.max(1, Math.ceil(found.length / pageRows));
  const page = Math.min(last, /^\d{1,6}$/.test(pageText) ? Math.max(1, Number(pageText)) : 1);
  const shown = sorted(found, sort, descending).slice((page - 1) * pageRows, page * pageRows);
  const link = (more: Record<string, string | number>): string =>
    linkTo(at, '/bouncers', { q, state, sort: asked, ...more });
  const columns = columnsOf(sort, descending, (to) => link({ sort: to }));
  return respond(
    <Page at={at} title="Bouncers" nav="/bouncers" sub={summary(all)} live>
      <Done done={done} words={{ deleted: 'Deleted. Its keys are refused everywhere within 5 s.' }} />
      {all.length === 0 ? (
        <FirstBouncer at={at} />
      ) : (
        <>
          <Filter at={at} q={q} state={state} sort={asked} />
          {found.length === 0 ? (
            <p class="soft">No bouncer is like that.</p>
          ) : (
            <Table label="Bouncers" columns={columns}>
              {shown.map((row) => (
                <Row at={at} row={row} />
              ))}
            </Table>
          )}
          <p class="soft pages">
            {found.length > pageRows ? `Page ${countOf(page)} of ${countOf(last)}, ` : ''}
            {some(found.length, 'bouncer')}
          </p>
          <Pages
            before={page > 1 ? link({ page: page - 1 }) : null}
            after={page < last ? link({ page: page + 1 }) : null}
          />
        </>
      )}
    </Page>,
  );
}

function columnsOf(sort: Sort, descending: boolean, link: (sort: string) => string): Column[] {
  const head = (by: Sort, n = false): Column => {
    const now = by !== sort ? null : descending ? ('descending' as const) : ('ascending' as const);
    return { title: sorts[by].title, n, sort: { to: link(by === sort && !descending ? `-${by}` : by), now } };
  };
  return [
    head('name'),
    { title: 'State' },
    { title: 'Type' },
    head('pull', true),
    head('lag', true),
    head('key', true),
  ];
}

function summary(all: readonly RosterRow[]): string {
  if (all.length === 0) return 'There is none yet.';
  const counts = bouncerStates.map((state) => all.filter((row) => row.state === state).length);
  const [seen = 0, silent = 0, unseen = 0, paused = 0, keyless = 0] = counts;
  const parts = [
    `${some(seen, 'bouncer')} of ${countOf(all.length)} seen in the last hour`,
    ...(silent > 0 ? [`${countOf(silent)} silent`] : []),
    ...(unseen > 0 ? [`${countOf(unseen)} never seen`] : []),
    ...(paused > 0 ? [`${countOf(paused)} paused`] : []),
    ...(keyless > 0 ? [`${countOf(keyless)} without a key that is good`] : []),
  ];
  return `${parts.join(', ')}.`;
}

function Filter({ at, q, state, sort }: { at: At; q: string; state: string; sort: string }) {
  const words = { seen: 'seen', silent: 'silent', unseen: 'never seen', paused: 'paused', keyless: 'no key' };
  return (
    <div class="bar">
      <form class="bar" role="search" method="get" action={linkTo(at, '/bouncers')}>
        <input name="q" value={q} placeholder="Name or type" aria-label="Name or type" />
        <select name="state" aria-label="State">
          <option value="">any state</option>
          {bouncerStates.map((each) => (
            <option value={each} selected={each === state}>
              {words[each]}
            </option>
          ))}
        </select>
        <input type="hidden" name="sort" value={sort} />
        <button>Filter</button>
      </form>
      {may(at, 'operator') ? (
        <a class="end" href={linkTo(at, '/new-bouncer')}>
          New bouncer
        </a>
      ) : null}
    </div>
  );
}

function Row({ at, row }: { at: At; row: RosterRow }) {
  const { tone, word, why } = describeState(row, at.nowMs);
  const { keyEndMs, seenMs, lag } = row;
  return (
    <tr>
      <th scope="row">
        <BouncerLink at={at} name={row.name} />
      </th>
      <td>
        <Tag tone={tone}>{word}</Tag> <span class="soft">{why}</span>
      </td>
      <td class="wrap">
        {row.type} <span class="soft">{row.version}</span>
      </td>
      <td class="n">{seenMs === null ? 'never' : <Moment at={at} ms={seenMs} />}</td>
      <td class="n">{lag === null ? '' : lag === 0 ? 'up to date' : some(lag, 'change')}</td>
      <td class="n">
        {keyEndMs === null ? '' : keyEndMs === Infinity ? 'never' : <Moment at={at} ms={keyEndMs} />}
      </td>
    </tr>
  );
}

export function newBouncer(_: Context<AppEnv>, at: At): Promise<Response> {
  return newBouncerPage(at);
}

function newBouncerPage(at: At, sent?: Sent): Promise<Response> {
  return respond(
    <Page at={at} title="New bouncer" nav="/bouncers" sub="It gets a key, which is shown once.">
      <RefusedBanner sent={sent} />
      <Post at={at} to="/new-bouncer" needs="operator" what="Making a bouncer">
        <div class="fields">
          <TextField
            name="name"
            label="Name"
            required
            sent={sent}
            hint="1 to 64 letters, digits, dots, dashes, underscores or @; best the machine’s name."
          />
          <SelectField
            name="kind"
            label="Kind"
            options={kindOptions}
            sent={sent}
            hint="Only for the lines to paste."
          />
          <ExpiryField label="The key expires in" sent={sent} />
        </div>
        <button class="primary">Make it</button>
      </Post>
    </Page>,
    sent?.refused.status,
  );
}

export async function createBouncer(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const name = form.get('name')?.trim() ?? '';
  const expiresIn = form.get('expires_in')?.trim() || undefined;
  const answer = await call<{ bouncer: BouncerBody; key?: string }>(c, 'POST', '/bouncers', {
    body: { name, expires_in: expiresIn },
    headers: onceBy(form),
  });
  if (!answer.ok) return newBouncerPage(at, { values: form, refused: answer.refused });
  return keyPage(at, name, kindNamed(form.get('kind')), answer.body.key, answer.status);
}

/** A key, this once. Undefined: it was shown before, and the form was sent twice. */
export function keyPage(
  at: At,
  name: string,
  kind: ReturnType<typeof kindOf>,
  key: string | undefined,
  status: number,
): Promise<Response> {
  const back = (
    <p>
      <BouncerLink at={at} name={name} /> says when the key was first used.
    </p>
  );
  if (key === undefined) {
    return respond(
      <Page at={at} title={`Key of ${name}`} nav="/bouncers" sub="It was shown once, and is not kept.">
        <p>This form was sent before. If nobody has the key, rotate it: that makes a new one.</p>
        {back}
      </Page>,
      status,
    );
  }
  return respond(
    <Page
      at={at}
      title={`Key of ${name}`}
      nav="/bouncers"
      sub="It is shown this once, and is not kept: copy it now."
    >
      <h2>The key</h2>
      <Lines id="key" text={key} />
      <h2>For {kind.file}</h2>
      <Lines id="lines" text={kind.lines(at.url, key)} />
      {back}
    </Page>,
    status,
  );
}
