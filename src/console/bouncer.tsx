// One bouncer: what it is, its keys, who polls with them, what they may do; and what an operator may do about it.

import type { Context } from 'hono';
import type { AppEnv } from '../env.ts';
import { limitsIn as limitsOfView } from '../bouncers/policy.ts';
import { askFeed } from '../feed/client.ts';
import { etagOf } from '../operations/mutate.ts';
import { mostRead } from '../stream/clients.ts';
import { linkTo, may, type At } from './at.ts';
import { keyPage, type BouncerBody } from './bouncers.tsx';
import { call, filledIn, onceBy, part, type Answered } from './call.ts';
import { Facts, type One } from './facts.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Post, RefusedBanner, type Sent } from './forms.tsx';
import { Rotate, Versions } from './keys.tsx';
import { kindOf } from './kinds.ts';
import { LimitsForm, limitsIn } from './limits.tsx';
import { Done, Table, Tag, Time } from './parts.tsx';
import { Pause } from './pause.tsx';
import { describeState, keyEndOf, readRoster, stateOf } from './roster.ts';
import { countOf } from './words.ts';

type Changed = { readonly bouncer: BouncerBody; readonly key?: string };

const doneWords = {
  revoked: 'Revoked. The version is refused everywhere within 5 s.',
  asked: 'Its host was asked for a new key. It makes one when it next renews.',
  limited: 'Saved. It holds everywhere within 5 s.',
  paused: 'Paused. Its requests are refused everywhere within 5 s.',
  resumed: 'Resumed. It is served everywhere within 5 s, and gets what it missed with its next poll.',
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
  const state = stateIn(bouncer, at.nowMs);
  const viewSize = row?.view ? await sizeOf(c.env, row.view, bouncer) : null;
  const engines = c.get('settings').upstreams.map((upstream) => upstream.name);
  return respond(
    <Page
      at={at}
      title={name}
      nav="/bouncers"
      live
      heading={
        <>
          {name} <Tag tone={state.tone}>{state.word}</Tag>
        </>
      }
      sub={sentenceOf(bouncer, state.why)}
    >
      <Done done={c.req.query('done')} words={doneWords} />
      <RefusedBanner sent={sent} />
      {bouncer.paused ? <Pause at={at} bouncer={bouncer} /> : null}
      <Facts at={at} bouncer={bouncer} row={row} viewSize={viewSize} />
      <h2>Versions of its key</h2>
      <Versions at={at} bouncer={bouncer} />
      <Rotate at={at} bouncer={bouncer} sent={sent} />
      <h2>Clients</h2>
      <Clients at={at} bouncer={bouncer} />
      <h2>What its keys may do</h2>
      <div class="panel pad">
        <LimitsForm at={at} bouncer={bouncer} engines={engines} sent={sent} />
      </div>
      {bouncer.paused ? null : <Pause at={at} bouncer={bouncer} />}
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

/** By what was just read: the roster of very many may be older. */
function stateIn({ paused: isPaused, key_versions: versions, last_pull: lastPull }: One, nowMs: number) {
  const ends = versions.map(({ state, valid_until: end }) => {
    return { state, expiresMs: end === null ? null : Date.parse(end), deadlineMs: null };
  });
  const keyEndMs = keyEndOf(ends, nowMs);
  const seenMs = lastPull === null ? null : Date.parse(lastPull);
  return describeState({ state: stateOf({ isPaused, keyEndMs, seenMs }, nowMs), keyEndMs, seenMs }, nowMs);
}

async function sizeOf(env: Env, request: string, { view }: One): Promise<number | null> {
  const asked = [{ request, limits: limitsOfView(view) }];
  const [size] = await askFeed(env, async (feed) => feed.viewSizes(asked));
  return size ?? null;
}

function sentenceOf({ type, version, host }: BouncerBody, why: string): string {
  const what =
    type === null ? 'It has not polled yet' : `${type} ${version === 'N/A' ? '' : (version ?? '')}`.trim();
  const owner = host === undefined ? '' : `; the host ${host} registers its key`;
  return `${what}${owner}${why === '' ? '' : `; ${why}`}.`;
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
          The last {mostClients} of {countOf(clients.length)}
          {clients.length < mostRead ? '' : ' or more'}.
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

/** The revision that a form was made for. */
function seenIn(form: URLSearchParams): Record<string, string> {
  const revision = Number(/^\d{1,15}$/.exec(form.get('revision') ?? '')?.[0] ?? 0);
  return { 'if-match': etagOf(revision) };
}

export function pauseBouncer(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  return changePolicy(c, at, form, { paused: true }, 'paused');
}

export function resumeBouncer(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  return changePolicy(c, at, form, { paused: false }, 'resumed');
}

export async function changeLimits(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const before = await call<One>(c, 'GET', `/bouncers/${part(nameIn(c))}`);
  if (!before.ok) return refusedPage(at, before.refused);
  // If it is another one by now, the revision is too.
  return changePolicy(c, at, form, limitsIn(form, before.body), 'limited');
}

async function changePolicy(
  c: Context<AppEnv>,
  at: At,
  form: URLSearchParams,
  change: object,
  done: keyof typeof doneWords,
): Promise<Response> {
  const answer = await send<Changed>(c, form, 'PATCH', '', change, seenIn(form));
  if (answer.ok) return doneAt(c, at, done);
  if (answer.refused.status === 412) return doneAt(c, at, 'stale');
  return bouncerPage(c, at, { values: form, refused: answer.refused });
}

export async function deleteBouncer(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await send<null>(c, form, 'DELETE', '');
  if (!answer.ok) return bouncerPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, '/bouncers', { done: 'deleted' }), 303);
}
