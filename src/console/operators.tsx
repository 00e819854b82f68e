// Operators’ tokens: who has one, in which role, until when. For admins.

import type { Context } from 'hono';
import type * as z from 'zod';
import { roles } from '../config/roles.ts';
import type { AppEnv } from '../env.ts';
import type { tokenShape } from '../operators/tokens.ts';
import { linkTo, type At } from './at.ts';
import { call, onceBy, part } from './call.ts';
import { Post, RefusedBanner, SelectField, TextField, type Sent } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Done, Lines, Pages, Table, Tag, Time } from './parts.tsx';

type Token = z.input<typeof tokenShape>;

const pageRows = 100;

const columns = [
  { title: 'Name' },
  { title: 'Role' },
  { title: 'State' },
  { title: 'Made', n: true },
  { title: 'Ends', n: true },
  { title: 'Digest' },
  { title: 'Revoke' },
];

export function showOperators(c: Context<AppEnv>, at: At): Promise<Response> {
  return operatorsPage(c, at);
}

async function operatorsPage(c: Context<AppEnv>, at: At, sent?: Sent): Promise<Response> {
  const { after, done } = c.req.query();
  const answer = await call<{ operator_tokens: Token[]; next: number | null }>(c, 'GET', '/operator-tokens', {
    query: { after, limit: pageRows },
  });
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { operator_tokens: tokens, next } = answer.body;
  return respond(
    <Page
      at={at}
      title="Operators"
      nav="/operators"
      sub="Tokens that were made here. Who signs in by an issuer, or with OPERATOR_TOKEN, is in the audit log alone."
    >
      <Done
        done={done}
        words={{ revoked: 'Revoked. It opens nothing from now on, and its sessions are over.' }}
      />
      <RefusedBanner sent={sent} />
      {tokens.length === 0 ? (
        <p class="soft">{after === undefined ? 'There is none.' : 'There are no more.'}</p>
      ) : (
        <Table label="Operators’ tokens" columns={columns}>
          {tokens.map((token) => (
            <Row at={at} token={token} />
          ))}
        </Table>
      )}
      <Pages
        before={after === undefined ? null : linkTo(at, '/operators')}
        beforeText="← to the first"
        after={next === null ? null : linkTo(at, '/operators', { after: next })}
      />
      <h2>New token</h2>
      <Post at={at} to="/operators" needs="admin" what="Making one">
        <div class="fields">
          <TextField name="name" label="Name" required sent={sent} hint="The audit log has it in each row." />
          <SelectField
            name="role"
            label="Role"
            value="viewer"
            options={roles.map((role) => [role, role] as const)}
            sent={sent}
            hint="Each may do what the one before it may, too."
          />
          <TextField
            name="expires_in"
            label="Expires in"
            value="90d"
            required
            sent={sent}
            hint="A duration of up to 365d."
          />
        </div>
        <button class="primary">Make it</button>
      </Post>
    </Page>,
    sent?.refused.status,
  );
}

function Row({ at, token }: { at: At; token: Token }) {
  const { name, role, state } = token;
  return (
    <tr>
      <th scope="row">
        <a href={linkTo(at, '/audit', { actor: `token:${name}` })}>{name}</a>
      </th>
      <td>{role}</td>
      <td>
        <Tag tone={state === 'live' ? 'ok' : 'off'}>{state}</Tag>
      </td>
      <td class="n">
        <Time at={at} iso={token.created_at} />
      </td>
      <td class="n">
        <Time at={at} iso={token.expires_at} />
      </td>
      <td class="mono">{token.digest_prefix}…</td>
      <td>
        {state !== 'live' ? null : (
          <details>
            <summary>Revoke…</summary>
            <Post at={at} to={`/operators/${name}/revoke`} needs="admin" what="Revoking it">
              <p>It opens nothing from the next request on, and its sessions here are over.</p>
              <button class="danger">Revoke {name}</button>
            </Post>
          </details>
        )}
      </td>
    </tr>
  );
}

export async function createOperator(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call<{ token?: string }>(c, 'POST', '/operator-tokens', {
    body: {
      name: form.get('name')?.trim(),
      role: form.get('role'),
      expires_in: form.get('expires_in')?.trim(),
    },
    headers: onceBy(form),
  });
  if (!answer.ok) return operatorsPage(c, at, { values: form, refused: answer.refused });
  const { token } = answer.body;
  const sub =
    token === undefined
      ? 'It was shown once, and is not kept.'
      : 'It is shown this once, and is not kept: copy it now.';
  return respond(
    <Page at={at} title={`Token of ${form.get('name')?.trim()}`} nav="/operators" sub={sub}>
      {token === undefined ? (
        <p>This form was sent before. If nobody has the token, revoke it and make another.</p>
      ) : (
        <>
          <Lines id="token" text={token} />
          <h2>For curl, in a file of its own</h2>
          <Lines id="lines" text={`Authorization: Bearer ${token}`} />
        </>
      )}
      <p>
        <a href={linkTo(at, '/operators')}>To the operators</a>
      </p>
    </Page>,
    answer.status,
  );
}

export async function revokeOperator(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call(c, 'DELETE', `/operator-tokens/${part(c.req.param('name') ?? '')}`, {
    body: {},
    headers: onceBy(form),
  });
  if (!answer.ok) return operatorsPage(c, at, { values: form, refused: answer.refused });
  return c.redirect(linkTo(at, '/operators', { done: 'revoked' }), 303);
}
