// One bouncer: what it is, its keys, who polls with them, what they may do; and what an operator may do about it.

import type { Context } from 'hono';
import type { AppEnv } from '../env.ts';
import { etagOf } from '../operations/mutate.ts';
import { linkTo, may, type At } from './at.ts';
import { keyPage, type BouncerBody } from './bouncers.tsx';
import { call, filledIn, onceBy, part, type Answered } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { ExpiryField, Post, RefusedBanner, TextField, type Sent } from './forms.tsx';
import { kindOf } from './kinds.ts';
import { LimitsForm, limitsIn } from './limits.tsx';
import { Done, Table, Tag, Time, type Tone } from './parts.tsx';
import { describeState, readRoster, type RosterRow } from './roster.ts';
import { countOf, some } from './words.ts';

/** What `GET /bouncers/{name}` has besides. */
type One = BouncerBody & { readonly metrics: unknown; readonly metrics_at: string | null };
type Changed = { readonly bouncer: BouncerBody; readonly key?: string };

const doneWords = {
  revoked: 'Revoked. The version is refused everywhere within 5 s.',
  asked: 'Its host was asked for a new key. It makes one when it next renews.',
  limited: 'Saved. It holds everywhere within 5 s.',
  stale: 'Nothing was changed: somebody else had changed it meanwhile. This is how it stands now.',
};

function nameIn(c: Context<AppEnv>): string {
  return c.req.param('name') ?? '';
}

export function showBouncer(c: Context<AppEnv>, at: At): Promise<Response> {
  return bouncerPage(c, at);
}

/** `sent`: a form of this page that was refused. */
async function bouncerPage(c: Context<AppEnv>, at: At, sent?: Sent): Promise<Response> {
  const name = nameIn(c);
  const [answer, roster] = await Promise.all([
    call<One>(c, 'GET', `/bouncers/${part(name)}`),
    readRoster(c.env, at.nowMs),
  ]);
  if (!answer.ok) return refusedPage(at, answer.refused);
  const bouncer = answer.body;
  const row = roster.find((each) => each.name === name);
  const state = row && describeState(row, at.nowMs);
  const engines = c.get('settings').engines.map((engine) => engine.name);
  return respond(
    <Page
      at={at}
      title={name}
      nav="/bouncers"
      live
      heading={
        <>
          {name} {state ? <Tag tone={state.tone}>{state.word}</Tag> : null}
        </>
      }
      sub={sentenceOf(bouncer, state?.why ?? '')}
    >
      <Done done={c.req.query('done')} words={doneWords} />
      <RefusedBanner sent={sent} />
      <Facts at={at} bouncer={bouncer} row={row} />
      <h2>Versions of its key</h2>
      <Versions at={at} bouncer={bouncer} />
      <Rotate at={at} bouncer={bouncer} sent={sent} />
      <h2>Clients</h2>
      <Clients at={at} bouncer={bouncer} />
      <h2>What its keys may do</h2>
      <div class="panel pad">
        <LimitsForm at={at} bouncer={bouncer} engines={engines} sent={sent} />
      </div>
      {may(at, 'operator') ? (
        <>
          <h2>Delete it</h2>
          <details>
            <summary>Delete {name}…</summary>
            <Post at={at} to={`/bouncers/${name}/delete`} needs="operator" what="Deleting it">
              <p>
                {name} is refused everywhere within 5 s, with all its keys. What it enforces then depends on
                its kind: some keep their bans, some lift them. This can not be taken back: a new bouncer gets
                a new key.
              </p>
              <button class="danger">Delete {name}</button>
            </Post>
          </details>
        </>
      ) : null}
    </Page>,
    sent?.refused.status,
  );
}

function sentenceOf({ type, version, host }: BouncerBody, why: string): string {
  const what =
    type === null ? 'It has not polled yet' : `${type} ${version === 'N/A' ? '' : (version ?? '')}`.trim();
  const owner = host === undefined ? '' : `; the host ${host} registers its key`;
  return `${what}${owner}${why === '' ? '' : `; ${why}`}.`;
}

function Facts({ at, bouncer, row }: { at: At; bouncer: One; row: RosterRow | undefined }) {
  const reported = reportedIn(bouncer.metrics);
  return (
    <div class="panel pad">
      <dl>
        <dt>Last pull</dt>
        <dd>
          <Time at={at} iso={bouncer.last_pull} />
          {bouncer.address === null ? '' : ' from '}
          <code>{bouncer.address}</code>
        </dd>
        <dt>Behind the feed</dt>
        <dd>
          {row?.lag === null || row === undefined
            ? 'not known: it looks up, or has not pulled'
            : row.lag === 0
              ? 'up to date'
              : some(row.lag, 'change')}
        </dd>
        <dt>Enforces</dt>
        <dd>
          {reported === null ? (
            'it has not reported'
          ) : (
            <>
              {some(reported, 'decision')}, as it reported <Time at={at} iso={bouncer.metrics_at} />
            </>
          )}
        </dd>
        <dt>Made</dt>
        <dd>
          <Time at={at} iso={bouncer.created_at} />
          {bouncer.lapi_name === null ? '' : `, imported as ${bouncer.lapi_name}`}
        </dd>
        {bouncer.rotation_asked_at ? (
          <>
            <dt>Its host was asked for a new key</dt>
            <dd>
              <Time at={at} iso={bouncer.rotation_asked_at} />
            </dd>
          </>
        ) : null}
      </dl>
    </div>
  );
}

/** The `active_decisions` of the last window of a report, of which nothing is known but that it is JSON; null: none. */
function reportedIn(metrics: unknown): number | null {
  const windows = fieldOf(metrics, 'metrics');
  const items = Array.isArray(windows) ? fieldOf(windows.at(-1), 'items') : undefined;
  if (!Array.isArray(items)) return null;
  const values = items
    .filter((item) => fieldOf(item, 'name') === 'active_decisions')
    .map((item) => fieldOf(item, 'value'))
    .filter((value) => typeof value === 'number');
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

const versionStates: Readonly<Record<BouncerBody['key_versions'][number]['state'], [Tone, string, string]>> =
  {
    next: ['warn', 'next', 'not used yet'],
    current: ['ok', 'current', 'in use'],
    previous: ['off', 'previous', 'good until its grace ends'],
  };

function Versions({ at, bouncer }: { at: At; bouncer: BouncerBody }) {
  const versions = bouncer.key_versions;
  if (versions.length === 0) {
    return <p>It has none: {bouncer.name} is refused until its key is rotated.</p>;
  }
  const columns = [
    { title: 'Version' },
    { title: 'State' },
    { title: 'First used', n: true },
    { title: 'Last used', n: true },
    { title: 'Ends', n: true },
    { title: 'Digest' },
    ...(may(at, 'operator') ? [{ title: 'Revoke' }] : []),
  ];
  return (
    <Table label="Versions of its key" columns={columns}>
      {versions.map((version) => {
        const [tone, word, why] = versionStates[version.state];
        const isOver = version.valid_until !== null && Date.parse(version.valid_until) <= at.nowMs;
        return (
          <tr>
            <th scope="row">{version.number}</th>
            <td>
              {isOver ? <Tag tone="bad">ended</Tag> : <Tag tone={tone}>{word}</Tag>}{' '}
              <span class="soft">{isOver ? '' : why}</span>
            </td>
            <td class="n">
              <Time at={at} iso={version.first_used} />
            </td>
            <td class="n">
              <Time at={at} iso={version.last_used} />
            </td>
            <td class="n">
              <Time at={at} iso={version.valid_until} />
            </td>
            <td class="mono">{version.digest_prefix}…</td>
            {may(at, 'operator') ? (
              <td>
                <details>
                  <summary>Revoke…</summary>
                  <Post
                    at={at}
                    to={`/bouncers/${bouncer.name}/versions/${version.number}/revoke`}
                    needs="operator"
                    what="Revoking it"
                  >
                    <p>
                      {versions.length === 1
                        ? `It is the only one: ${bouncer.name} is refused within 5 s, until its key is rotated.`
                        : 'It is refused within 5 s; the other version stays.'}
                    </p>
                    <button class="danger">Revoke version {version.number}</button>
                  </Post>
                </details>
              </td>
            ) : null}
          </tr>
        );
      })}
    </Table>
  );
}

function Rotate({ at, bouncer, sent }: { at: At; bouncer: BouncerBody; sent: Sent | undefined }) {
  if (!may(at, 'operator')) return null;
  return (
    <details class="panel pad" open={sent?.values.has('grace') ?? false}>
      <summary>Rotate its key…</summary>
      <Post at={at} to={`/bouncers/${bouncer.name}/rotate`} needs="operator" what="Rotating it">
        <p>
          {bouncer.host === undefined
            ? 'It gets a new version of its key, which is shown once. The old one is good until the new one is first used, and then for the grace.'
            : `The host ${bouncer.host} is asked for a new key. The old one is good until the new one is first used, and then for the grace.`}
        </p>
        <div class="fields">
          <TextField
            name="grace"
            label="Grace"
            value="15m"
            sent={sent}
            hint="0s: the old key is revoked now."
          />
          <TextField
            name="max_overlap"
            label="Both are good for at most"
            value="7d"
            sent={sent}
            hint="Then a new key that is not used yet expires."
          />
          <ExpiryField label="The new key expires in" sent={sent} />
        </div>
        <button class="primary">Rotate</button>
      </Post>
    </details>
  );
}

/** A bouncer may have thousands. */
const mostClients = 50;

function Clients({ at, bouncer }: { at: At; bouncer: BouncerBody }) {
  const { clients } = bouncer;
  if (clients.length === 0) return <p class="soft">None was seen.</p>;
  const columns = [{ title: 'Address' }, { title: 'Last pull', n: true }];
  return (
    <>
      <Table label="Clients" columns={columns}>
        {clients.slice(0, mostClients).map(({ address, last_pull: lastPull }) => (
          <tr>
            <th scope="row" class="mono">
              {address}
            </th>
            <td class="n">
              <Time at={at} iso={lastPull} />
            </td>
          </tr>
        ))}
      </Table>
      {clients.length > mostClients ? (
        <p class="soft">
          The last {mostClients} of {countOf(clients.length)}.
        </p>
      ) : null}
    </>
  );
}

/** Sends a form of the page to the API. */
function send<Body>(
  c: Context<AppEnv>,
  form: URLSearchParams,
  method: string,
  path: string,
  body: unknown = {},
  headers: Record<string, string> = {},
): Promise<Answered<Body>> {
  return call<Body>(c, method, `/bouncers/${part(nameIn(c))}${path}`, {
    body,
    headers: { ...onceBy(form), ...headers },
  });
}

function doneAt(c: Context<AppEnv>, at: At, done: keyof typeof doneWords): Response {
  return c.redirect(linkTo(at, `/bouncers/${part(nameIn(c))}`, { done }), 303);
}

export async function rotateKey(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const body = filledIn(form, ['grace', 'max_overlap', 'expires_in']);
  const answer = await send<Changed>(c, form, 'POST', '/rotate', body);
  if (!answer.ok) return bouncerPage(c, at, { values: form, refused: answer.refused });
  if (answer.status === 202) return doneAt(c, at, 'asked');
  const { bouncer, key } = answer.body;
  return keyPage(at, bouncer.name, kindOf(bouncer.type), key, answer.status);
}

export async function revokeVersion(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const path = `/versions/${part(c.req.param('number') ?? '')}/revoke`;
  const answer = await send<Changed>(c, form, 'POST', path);
  if (!answer.ok) return bouncerPage(c, at, { values: form, refused: answer.refused });
  return doneAt(c, at, 'revoked');
}

export async function changeLimits(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const revision = Number(/^\d{1,15}$/.exec(form.get('revision') ?? '')?.[0] ?? 0);
  const seen = { 'if-match': etagOf(revision) };
  const before = await call<One>(c, 'GET', `/bouncers/${part(nameIn(c))}`);
  if (!before.ok) return refusedPage(at, before.refused);
  // If it is another one by now, the revision is too.
  const answer = await send<Changed>(c, form, 'PATCH', '', limitsIn(form, before.body), seen);
  if (answer.ok) return doneAt(c, at, 'limited');
  if (answer.refused.status === 412) return doneAt(c, at, 'stale');
  return bouncerPage(c, at, { values: form, refused: answer.refused });
}

export async function deleteBouncer(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await send<null>(c, form, 'DELETE', '');
  if (!answer.ok) return bouncerPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, '/bouncers', { done: 'deleted' }), 303);
}
