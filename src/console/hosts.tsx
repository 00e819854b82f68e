// Hosts that register their keys themselves, and the tokens with which they enrol.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import type { hostShape } from '../hosts/hosts.ts';
import { linkTo, may, type At } from './at.ts';
import { call, onceBy, part } from './call.ts';
import { Enrolments, type EnrolmentPage } from './enrolments.tsx';
import { Post } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { BouncerLink, Done, Pages, Table, Tag, Time, type Tone } from './parts.tsx';
import { countOf } from './words.ts';

type Host = z.input<typeof hostShape>;

const pageRows = 50;
/** All of them have a page of their own. */
const newestEnrolments = 5;

const states: Readonly<Record<Host['state'], readonly [Tone, string]>> = {
  waiting: ['off', 'waiting'],
  registered: ['ok', 'registered'],
  'clone-suspected': ['warn', 'clone suspected'],
};

const columns = [
  { title: 'Host' },
  { title: 'State' },
  { title: 'Bouncers' },
  { title: 'Account at' },
  { title: 'Last seen', n: true },
  { title: 'Last refusal' },
];

export async function showHosts(c: Context<AppEnv>, at: At): Promise<Response> {
  const { after, state, done } = c.req.query();
  const [hosts, enrolments] = await Promise.all([
    call<{ hosts: Host[]; next: number | null }>(c, 'GET', '/hosts', {
      query: { state, after, limit: pageRows },
    }),
    call<EnrolmentPage>(c, 'GET', '/enrolments', { query: { order: 'newest', limit: newestEnrolments } }),
  ]);
  if (!hosts.ok) return refusedPage(at, hosts.refused);
  if (!enrolments.ok) return refusedPage(at, enrolments.refused);
  const { next } = hosts.body;
  return respond(
    <Page
      at={at}
      title="Hosts"
      nav="/hosts"
      sub="Machines that make their own keys, and prove who they are by their SSH host key."
      live
    >
      <Done
        done={done}
        words={{ recovered: 'Allowed: its next registration is taken, once for each of its keys.' }}
      />
      <States at={at} now={state} />
      {hosts.body.hosts.length === 0 ? (
        <p class="soft">{noneWords(after === undefined, state)}</p>
      ) : (
        <Table label="Hosts" columns={columns}>
          {hosts.body.hosts.map((host) => (
            <Row at={at} host={host} />
          ))}
        </Table>
      )}
      <Pages
        before={after === undefined ? null : linkTo(at, '/hosts', { state })}
        beforeText="← to the first"
        after={next === null ? null : linkTo(at, '/hosts', { state, after: next })}
      />
      <h2>Enrolment tokens</h2>
      <Enrolments at={at} enrolments={enrolments.body.enrolments} />
      <p class="pages">
        <a href={linkTo(at, '/enrolments')}>
          {may(at, 'operator') ? 'All tokens, and a new one' : 'All tokens'}
        </a>
      </p>
    </Page>,
  );
}

function noneWords(isFirst: boolean, state: string | undefined): string {
  if (!isFirst) return 'There are no more.';
  if (state !== undefined) return 'None is in that state.';
  return 'There is none. A host enrols by a token, or is made known below /api/v1/hosts.';
}

function States({ at, now }: { at: At; now: string | undefined }) {
  const link = (state: string | null, words: string) => (
    <a
      href={linkTo(at, '/hosts', { state })}
      {...(state === (now ?? null) ? { 'aria-current': 'true' } : {})}
    >
      {words}
    </a>
  );
  return (
    <p class="bar">
      {link(null, 'All')}
      {Object.entries(states).map(([state, [, word]]) => link(state, word))}
    </p>
  );
}

function Row({ at, host }: { at: At; host: Host }) {
  const [tone, word] = states[host.state];
  const { machine, last_refused_at: refusedAt, last_refused_why: why } = host;
  return (
    <tr>
      <th scope="row">
        {host.name}
        <br />
        <code class="soft">{host.fingerprint.slice(0, 20)}…</code>
      </th>
      <td>
        <Tag tone={tone}>{word}</Tag>
        {host.suspected_at === null ? null : (
          <>
            {' '}
            <Time at={at} iso={host.suspected_at} />
            <Recover at={at} name={host.name} />
          </>
        )}
      </td>
      <td>
        {host.bouncers.map((bouncer) => (
          <div>
            <BouncerLink at={at} name={bouncer.name} />{' '}
            <span class="soft">
              generation {countOf(bouncer.generation)}
              {bouncer.recovery_allowed ? ', recovery allowed' : ''}
              {bouncer.rotation_asked_at === null ? '' : ', asked for a new key'}
            </span>
          </div>
        ))}
      </td>
      <td>
        {machine === null ? '' : machine.engine}{' '}
        {machine === null ? null : (
          <span class="soft">
            {machine.validated_at === null ? 'not validated yet' : (machine.name ?? '')}
          </span>
        )}
      </td>
      <td class="n">
        <Time at={at} iso={host.last_seen} />
      </td>
      <td class="wrap">
        {refusedAt === null ? null : (
          <>
            <Time at={at} iso={refusedAt} />: {why}
          </>
        )}
      </td>
    </tr>
  );
}

function Recover({ at, name }: { at: At; name: string }) {
  if (!may(at, 'operator')) return null;
  return (
    <details>
      <summary>It was rebuilt…</summary>
      <Post at={at} to={`/hosts/${name}/recover`} needs="operator" what="Allowing it">
        <p>
          It registered with another count than ours: a copy of {name} may exist. If it was rebuilt, its next
          registration is taken, once for each of its keys.
        </p>
        <button>Let {name} register once more</button>
      </Post>
    </details>
  );
}

export async function recoverHost(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call(c, 'POST', `/hosts/${part(c.req.param('name') ?? '')}/recoveries`, {
    body: {},
    headers: onceBy(form),
  });
  if (!answer.ok) return refusedPage(at, answer.refused);
  return c.redirect(linkTo(at, '/hosts', { done: 'recovered' }), 303);
}
