// The allow-list: its entries, a form for another one, and each with what it withholds.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { effectShape, entryShape } from '../allowlist/entries.ts';
import type { AppEnv } from '../env.ts';
import { linkTo, may, type At } from './at.ts';
import { call, filledIn, listIn, onceBy, part } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { ExpiryField, Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { Done, Pages, Table, Time } from './parts.tsx';
import { listOf, some } from './words.ts';

type Entry = z.input<typeof entryShape>;
type Effect = { readonly [Field in keyof typeof effectShape]: z.input<(typeof effectShape)[Field]> };

const pageRows = 100;

const doneWords = { removed: 'Removed. What it withheld is in every bouncer’s next poll.' };

/** `GET /allow-list?after=` */
export function showAllowList(c: Context<AppEnv>, at: At): Promise<Response> {
  return listPage(c, at);
}

async function listPage(c: Context<AppEnv>, at: At, sent?: Sent): Promise<Response> {
  const { after, done, value } = c.req.query();
  const query = { after, limit: pageRows };
  const answer = await call<{ entries: Entry[]; next: number | null }>(c, 'GET', '/allowlist', { query });
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { entries, next } = answer.body;
  return respond(
    <Page
      at={at}
      title="Allow-list"
      nav="/allow-list"
      sub="Addresses and ranges on which no bouncer, or none of some, is served a decision, whoever made it."
    >
      <Done done={done} words={doneWords} />
      {entries.length > 0 ? <EntryTable at={at} entries={entries} /> : <p class="soft">There is none.</p>}
      <Pages
        before={after === undefined ? null : linkTo(at, '/allow-list')}
        beforeText="← to the first"
        after={next === null ? null : linkTo(at, '/allow-list', { after: next })}
      />
      <p class="pages">
        <a href={linkTo(at, '/allow-list/engines')}>Engines’ own allow-lists</a>
      </p>
      <h2>Allow</h2>
      <RefusedBanner sent={sent} />
      <Post at={at} to="/allow-list" needs="operator" what="Allowing">
        <div class="fields">
          <TextField
            name="value"
            label="Address or range"
            value={value ?? ''}
            required
            sent={sent}
            hint="An IP address or a CIDR range."
          />
          <TextField
            name="comment"
            label="Why"
            required
            sent={sent}
            hint="For those who read the list later."
          />
          <ExpiryField label="For" sent={sent} />
          <TextField
            name="bouncers"
            label="Bouncers"
            placeholder="all"
            sent={sent}
            hint="Their names, with * for any characters, and commas between them: web-*, vpn-1."
          />
          <SelectField
            name="force"
            label="If much is let free"
            options={[
              ['', 'refuse'],
              ['true', 'allow it all the same'],
            ]}
            sent={sent}
            hint="A wide entry, or one in a wide banned range, which is withheld as a whole."
          />
        </div>
        <button class="primary">Allow</button>
      </Post>
    </Page>,
    sent?.refused.status,
  );
}

const columns = [
  { title: 'Address or range' },
  { title: 'Why' },
  { title: 'Bouncers' },
  { title: 'By' },
  { title: 'Since' },
  { title: 'Ends' },
];

function EntryTable({ at, entries }: { at: At; entries: readonly Entry[] }) {
  return (
    <Table label="Allow-list" columns={columns}>
      {entries.map((entry) => (
        <tr>
          <th scope="row">
            <a href={linkTo(at, `/allow-list/${entry.id}`)}>
              <code>{entry.value}</code>
            </a>
          </th>
          <td class="wrap">{entry.comment}</td>
          <td class="wrap">{entry.bouncers?.join(', ') ?? 'all'}</td>
          <td class="wrap">{entry.created_by}</td>
          <td>
            <Time at={at} iso={entry.created_at} />
          </td>
          <td>
            <Time at={at} iso={entry.expires_at} never="never" />
          </td>
        </tr>
      ))}
    </Table>
  );
}

export async function allow(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const bouncers = listIn(form.get('bouncers'), /,/);
  const fields = filledIn(form, ['value', 'comment', 'expires_in']);
  const body = { ...fields, bouncers, force: form.get('force') === 'true' };
  const answer = await call<{ entry: Entry }>(c, 'POST', '/allowlist', { body, headers: onceBy(form) });
  if (!answer.ok) return listPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, `/allow-list/${answer.body.entry.id}`, { done: 'allowed' }), 303);
}

export function showEntry(c: Context<AppEnv>, at: At): Promise<Response> {
  return entryPage(c, at);
}

const entryWords = {
  allowed: 'Allowed. What it withholds ends at every bouncer with its next poll.',
  changed: 'Changed.',
};

async function entryPage(c: Context<AppEnv>, at: At, sent?: Sent): Promise<Response> {
  const id = c.req.param('id') ?? '';
  const answer = await call<Entry & Effect>(c, 'GET', `/allowlist/${part(id)}`);
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { value, comment, expires_at: until, created_by: by, bouncers, revision } = answer.body;
  const { decisions, warnings } = answer.body;
  return respond(
    <Page
      at={at}
      title={value}
      nav="/allow-list"
      heading={<code>{value}</code>}
      sub={`Allowed by ${by}: ${comment}. It withholds ${some(decisions, 'decision')}${fromWhom(bouncers)}.`}
    >
      <Done done={c.req.query('done')} words={entryWords} />
      {warnings.map((warning) => (
        <div class="banner warn" role="status">
          <p>{warning}.</p>
        </div>
      ))}
      <p>
        Ends: <Time at={at} iso={until} never="never" />.{' '}
        <a href={linkTo(at, '/decisions', { value })}>Decisions on it</a>
      </p>
      <RefusedBanner sent={sent} />
      <h2>Change</h2>
      <Post at={at} to={`/allow-list/${id}`} needs="operator" what="Changing it">
        <input type="hidden" name="revision" value={String(revision)} />
        <div class="fields">
          <TextField name="comment" label="Why" value={comment} required sent={sent} />
          <TextField
            name="expires_in"
            label="Ends in"
            sent={sent}
            placeholder="as it is"
            hint="A duration like 8h, from now on. never: it does not end. Empty: as it is."
          />
        </div>
        <button>Change</button>
      </Post>
      {may(at, 'operator') ? (
        <Post at={at} to={`/allow-list/${id}/remove`} needs="operator" what="Removing it">
          <button class="danger">Remove</button>
        </Post>
      ) : null}
    </Page>,
    sent?.refused.status,
  );
}

function fromWhom(bouncers: Entry['bouncers']): string {
  return bouncers === null ? '' : ` from ${listOf(bouncers)}`;
}

export async function changeEntry(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const id = c.req.param('id') ?? '';
  const fields = filledIn(form, ['comment', 'expires_in']);
  const body = fields['expires_in'] === 'never' ? { ...fields, expires_in: null } : fields;
  const headers = { ...onceBy(form), 'if-match': `"${form.get('revision') ?? ''}"` };
  const answer = await call(c, 'PATCH', `/allowlist/${part(id)}`, { body, headers });
  if (!answer.ok) return entryPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, `/allow-list/${id}`, { done: 'changed' }), 303);
}

export async function removeEntry(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const path = `/allowlist/${part(c.req.param('id') ?? '')}`;
  const answer = await call(c, 'DELETE', path, { headers: onceBy(form) });
  if (!answer.ok) return refusedPage(at, answer.refused);
  return c.redirect(linkTo(at, '/allow-list', { done: 'removed' }), 303);
}
