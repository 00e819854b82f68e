// Tokens with which hosts enrol themselves: those that were made, who used each, and new ones.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import type { enrolmentShape } from '../hosts/enrolments.ts';
import { linkTo, type At } from './at.ts';
import { call, filledIn, onceBy, part } from './call.ts';
import { Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Done, Lines, Pages, Table, Tag, Time } from './parts.tsx';
import { countOf } from './words.ts';

export type Enrolment = z.input<typeof enrolmentShape>;

export interface EnrolmentPage {
  readonly enrolments: Enrolment[];
  readonly next: number | null;
}

const pageRows = 50;

/** `GET /enrolments?after=`, the newest first. */
export function showEnrolments(c: Context<AppEnv>, at: At): Promise<Response> {
  return enrolmentsPage(c, at);
}

async function enrolmentsPage(c: Context<AppEnv>, at: At, sent?: Sent): Promise<Response> {
  const { after, done } = c.req.query();
  const query = { order: 'newest', after, limit: pageRows };
  const answer = await call<EnrolmentPage>(c, 'GET', '/enrolments', { query });
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { enrolments, next } = answer.body;
  return respond(
    <Page
      at={at}
      title="Enrolment tokens"
      nav="/hosts"
      sub="With one, a host that nobody knows makes its SSH key known, and gets its bouncer’s key. The newest first."
      live
    >
      <Done done={done} words={{ revoked: 'Revoked: no further host can use it. Hosts that did stay.' }} />
      <RefusedBanner sent={sent} />
      <Enrolments at={at} enrolments={enrolments} isFirst={after === undefined} />
      <Pages
        before={after === undefined ? null : linkTo(at, '/enrolments')}
        beforeText="← to the newest"
        after={next === null ? null : linkTo(at, '/enrolments', { after: next })}
      />
      <h2>New token</h2>
      <NewEnrolment at={at} engines={c.get('settings').engines.map(({ name }) => name)} sent={sent} />
    </Page>,
    sent?.refused.status,
  );
}

const columns = [
  { title: 'Hosts' },
  { title: 'State' },
  { title: 'Used' },
  { title: 'Bouncer' },
  { title: 'Made', n: true },
  { title: 'Ends', n: true },
  { title: 'Revoke' },
];

export function Enrolments(props: { at: At; enrolments: readonly Enrolment[]; isFirst?: boolean }) {
  const { at, enrolments, isFirst = true } = props;
  if (enrolments.length === 0) return <p class="soft">{isFirst ? 'There is none.' : 'There are no more.'}</p>;
  return (
    <Table label="Enrolment tokens" columns={columns}>
      {enrolments.map((each) => (
        <Row at={at} enrolment={each} />
      ))}
    </Table>
  );
}

function Row({ at, enrolment }: { at: At; enrolment: Enrolment }) {
  const { id, hosts, state, bouncer, machine } = enrolment;
  return (
    <tr>
      <th scope="row">
        <code>{hosts}</code>
        <br />
        <span class="mono soft">{enrolment.digest_prefix}…</span>
      </th>
      <td>
        <Tag tone={state === 'live' ? 'ok' : 'off'}>{state}</Tag>
      </td>
      <td class="wrap">
        <Used enrolment={enrolment} />
      </td>
      <td class="wrap">
        <code>{bouncer}</code>
        {machine === null ? null : <span class="soft"> and a machine at {machine}</span>}
      </td>
      <td class="n">
        <Time at={at} iso={enrolment.created_at} />
      </td>
      <td class="n">
        <Time at={at} iso={enrolment.expires_at} />
      </td>
      <td>
        {state !== 'live' ? null : (
          <details>
            <summary>Revoke…</summary>
            <Post at={at} to={`/enrolments/${id}/revoke`} needs="operator" what="Revoking it">
              <p>No further host can use it. Hosts that used it stay, with their keys.</p>
              <button class="danger">Revoke the token for {hosts}</button>
            </Post>
          </details>
        )}
      </td>
    </tr>
  );
}

const mostNamed = 5;
/** A token may be for 10,000 hosts. */
const mostListed = 100;

function Used({ enrolment: { used_by: usedBy, max_hosts: maxHosts } }: { enrolment: Enrolment }) {
  const named = usedBy.slice(0, mostNamed).map(({ host }) => host);
  const used = `${countOf(usedBy.length)} of ${countOf(maxHosts)}`;
  if (usedBy.length <= mostNamed)
    return <>{[used, named.join(', ')].filter((text) => text !== '').join(': ')}</>;
  return (
    <details>
      <summary>
        {used}: {named.join(', ')}, …
      </summary>
      {usedBy
        .slice(0, mostListed)
        .map(({ host }) => host)
        .join(', ')}
      {usedBy.length > mostListed ? ', …' : ''}
    </details>
  );
}

function NewEnrolment({ at, engines, sent }: { at: At; engines: readonly string[]; sent: Sent | undefined }) {
  const machines = [['', 'none'] as const, ...engines.map((name) => [name, `at ${name}`] as const)];
  return (
    <Post at={at} to="/enrolments" needs="operator" what="Making one">
      <div class="fields">
        <TextField
          name="hosts"
          label="Hosts"
          required
          sent={sent}
          placeholder="web-*"
          hint="The names that may use it; * is any text."
        />
        <TextField
          name="max_hosts"
          label="How many"
          value="1"
          type="number"
          required
          sent={sent}
          hint="Each host counts once, however often it comes."
        />
        <TextField
          name="expires_in"
          label="Expires in"
          value="1h"
          required
          sent={sent}
          hint="A duration of up to 24h. Who gets the token meanwhile can be first."
        />
        <TextField
          name="bouncer"
          label="Its bouncer"
          value="{host}"
          required
          sent={sent}
          hint="The bouncer’s name; {host} is the host’s."
        />
        <SelectField
          name="machine"
          label="An account for a log processor"
          options={machines}
          value=""
          sent={sent}
          hint="The engine at which the host may have one."
        />
      </div>
      <button class="primary">Make it</button>
    </Post>
  );
}

/** What the fields of the form say, as the API takes it. */
function fieldsOf(form: URLSearchParams): Record<string, unknown> {
  const { max_hosts: maxHosts, ...fields } = filledIn(form, [
    'hosts',
    'max_hosts',
    'expires_in',
    'bouncer',
    'machine',
  ]);
  return maxHosts === undefined ? fields : { ...fields, max_hosts: Number(maxHosts) };
}

export async function createEnrolment(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call<{ enrolment: Enrolment; token?: string }>(c, 'POST', '/enrolments', {
    body: fieldsOf(form),
    headers: onceBy(form),
  });
  if (!answer.ok) return enrolmentsPage(c, at, { values: form, refused: answer.refused });
  const { token, enrolment } = answer.body;
  const sub =
    token === undefined
      ? 'It was shown once, and is not kept.'
      : 'It is shown this once, and is not kept: copy it now.';
  return respond(
    <Page at={at} title={`Enrolment token for ${enrolment.hosts}`} nav="/hosts" sub={sub}>
      {token === undefined ? (
        <p>This form was sent before. If nobody has the token, revoke it and make another.</p>
      ) : (
        <>
          <h2>The token, for {tokenFile} on each host</h2>
          <Lines id="token" text={token} />
          <h2>For the host’s NixOS configuration</h2>
          <Lines id="lines" text={nixLines(at.url, enrolment.machine !== null)} />
        </>
      )}
      <p>
        <a href={linkTo(at, '/enrolments')}>To the enrolment tokens</a>
      </p>
    </Page>,
    answer.status,
  );
}

const tokenFile = '/run/secrets/lapidary-enrolment';

/** As in nix/examples/fleet.nix. */
function nixLines(url: string, hasMachine: boolean): string {
  const lines = [
    `brokerUrl = ${JSON.stringify(url)};`,
    `enrolTokenFile = "${tokenFile}";`,
    'firewallBouncer.enable = true;',
    ...(hasMachine ? ['machine.enable = true;'] : []),
  ];
  return `services.lapidary = {\n${lines.map((line) => `  ${line}\n`).join('')}};`;
}

export async function revokeEnrolment(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const path = `/enrolments/${part(c.req.param('id') ?? '')}`;
  const answer = await call(c, 'DELETE', path, { body: {}, headers: onceBy(form) });
  if (!answer.ok) return enrolmentsPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, '/enrolments', { done: 'revoked' }), 303);
}
