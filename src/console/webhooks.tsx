// Webhooks: who is told of what, what became of it, and a test. For operators: an address may have a secret in its path.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { backoffMs } from '../events/delivery.ts';
import { eventTypes } from '../events/kinds.ts';
import type { shownWebhook } from '../webhooks/webhooks.ts';
import { linkTo, type At } from './at.ts';
import { call, onceBy, part } from './call.ts';
import { Post, RefusedBanner, TextField, type Sent } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Done, Lines, Table, Tag, Time } from './parts.tsx';
import { agoOf, countOf, some } from './words.ts';

export type Webhook = z.input<typeof shownWebhook>;

const columns = [
  { title: 'Name' },
  { title: 'Address' },
  { title: 'Events' },
  { title: 'Last answer' },
  { title: 'Taken', n: true },
  { title: 'Test' },
  { title: 'Delete' },
];

/** What came of a test. */
interface Tested {
  readonly name: string;
  readonly ok: boolean;
  readonly status: number | null;
  readonly problem: string | null;
}

export function showWebhooks(c: Context<AppEnv>, at: At): Promise<Response> {
  return webhooksPage(c, at, {});
}

async function webhooksPage(
  c: Context<AppEnv>,
  at: At,
  { sent, tested }: { sent?: Sent; tested?: Tested },
): Promise<Response> {
  const { done } = c.req.query();
  // There are 20 at most.
  const answer = await call<{ webhooks: Webhook[] }>(c, 'GET', '/webhooks');
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { webhooks } = answer.body;
  return respond(
    <Page at={at} title="Webhooks" nav="/webhooks" sub={sentenceOf(webhooks)} live={!sent && !tested}>
      <Done done={done} words={{ deleted: 'Deleted, with the messages that waited for it.' }} />
      <RefusedBanner sent={sent} />
      {tested === undefined ? null : <TestBanner tested={tested} />}
      {webhooks.length === 0 ? null : (
        <Table label="Webhooks" columns={columns}>
          {webhooks.map((webhook) => (
            <Row at={at} webhook={webhook} />
          ))}
        </Table>
      )}
      <NewWebhook at={at} sent={sent} />
    </Page>,
    sent?.refused.status,
  );
}

function sentenceOf(webhooks: readonly Webhook[]): string {
  if (webhooks.length === 0) {
    return 'Nobody is told when a bouncer falls silent, an engine refuses, or a key ends.';
  }
  const failing = webhooks.filter(isFailing).length;
  if (failing === 0) return `${some(webhooks.length, 'webhook')}, and none fails.`;
  const does = failing === 1 ? 'does not take its' : 'do not take their';
  return `${countOf(failing)} of ${some(webhooks.length, 'webhook')} ${does} messages.`;
}

export function isFailing({ delivery }: Webhook): boolean {
  return delivery !== null && delivery.failures > 0;
}

function TestBanner({ tested: { name, ok, status, problem } }: { tested: Tested }) {
  return (
    <div class={`banner ${ok ? 'ok' : 'bad'}`} role={ok ? 'status' : 'alert'}>
      <p>
        {ok
          ? `${name} took the test message: it answered ${status}. What waits for it is sent now.`
          : `${name} did not take the test message: ${problem}.`}
      </p>
    </div>
  );
}

function Row({ at, webhook }: { at: At; webhook: Webhook }) {
  const { name, url, events, delivery } = webhook;
  return (
    <tr>
      <th scope="row">
        <a href={linkTo(at, '/audit', { target: name })}>{name}</a>
      </th>
      <td class="wrap">
        <code>{url}</code>
      </td>
      <td class="wrap">{events === null ? 'all' : events.join(', ')}</td>
      <td class="wrap">
        <LastAnswer at={at} webhook={webhook} />
      </td>
      <td class="n">
        <Time at={at} iso={delivery?.last_delivered_at} />
      </td>
      <td>
        <Post at={at} to={`/webhooks/${name}/test`} needs="operator" what="Testing it">
          <button>Test {name}</button>
        </Post>
      </td>
      <td>
        <details>
          <summary>Delete…</summary>
          <Post at={at} to={`/webhooks/${name}/delete`} needs="operator" what="Deleting it">
            <p>It is told nothing more. One that is made anew has another secret.</p>
            <button class="danger">Delete {name}</button>
          </Post>
        </details>
      </td>
    </tr>
  );
}

/** The newest try, the next one, and what waits for it. */
function LastAnswer({ at, webhook }: { at: At; webhook: Webhook }) {
  const { delivery } = webhook;
  if (!delivery?.last_try) return <span class="soft">nothing was sent yet</span>;
  const { waiting, lost, failures, last_try: last } = delivery;
  const nextMs = Date.parse(last.at) + backoffMs(failures);
  const next = nextMs > at.nowMs ? agoOf(nextMs, at.nowMs) : 'with the next round';
  return (
    <>
      <Tag tone={isFailing(webhook) ? 'bad' : 'ok'}>{isFailing(webhook) ? 'fails' : 'takes messages'}</Tag>{' '}
      <span class="soft">
        {last.problem ?? `it answered ${last.status}`}, <Time at={at} iso={last.at} />
        {isFailing(webhook) ? `; next try ${next}` : ''}
      </span>
      {waiting === 0 ? null : <p class="soft">{some(waiting, 'message waits', 'messages wait')}</p>}
      {lost === 0 ? null : <p class="soft">{some(lost, 'message was', 'messages were')} given up</p>}
    </>
  );
}

function NewWebhook({ at, sent }: { at: At; sent?: Sent | undefined }) {
  const chosen = sent?.values.getAll('events') ?? [];
  const isWrong = sent?.refused.field?.startsWith('events') === true;
  return (
    <>
      <h2>New webhook</h2>
      <Post at={at} to="/webhooks" needs="operator" what="Making one">
        <div class="fields">
          <TextField name="name" label="Name" required sent={sent} />
          <TextField
            name="url"
            label="Address"
            type="url"
            placeholder="https://hooks.example.net/lapidary"
            required
            sent={sent}
            hint="It gets signed messages after the Standard Webhooks specification."
          />
        </div>
        <fieldset>
          <legend>Only these events</legend>
          {eventTypes.map((type) => (
            <label>
              <input type="checkbox" name="events" value={type} checked={chosen.includes(type)} />
              {type}
            </label>
          ))}
          <small>
            {isWrong ? <span class="wrong">{sent?.refused.detail.replace(/^\S+: /, '')}. </span> : null}
            None: all, also those of later versions.
          </small>
        </fieldset>
        <p>
          <button class="primary">Make it</button>
        </p>
      </Post>
    </>
  );
}

export async function createWebhook(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const name = form.get('name')?.trim() ?? '';
  const events = form.getAll('events');
  const answer = await call<{ secret?: string }>(c, 'POST', '/webhooks', {
    body: { name, url: form.get('url')?.trim(), events: events.length === 0 ? null : events },
    headers: onceBy(form),
  });
  if (!answer.ok) return webhooksPage(c, at, { sent: { values: form, refused: answer.refused } });
  const { secret } = answer.body;
  const sub =
    secret === undefined
      ? 'It was shown once, and is not shown again.'
      : 'It is shown this once: the receiver verifies messages with it.';
  return respond(
    <Page at={at} title={`Secret of ${name}`} nav="/webhooks" sub={sub}>
      {secret === undefined ? (
        <p>This form was sent before. If nobody has the secret, delete the webhook and make it anew.</p>
      ) : (
        <Lines id="secret" text={secret} />
      )}
      <p>
        <a href={linkTo(at, '/webhooks')}>To the webhooks</a>, where it can be sent a test.
      </p>
    </Page>,
    answer.status,
  );
}

export async function testWebhook(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const name = c.req.param('name') ?? '';
  const answer = await call<Omit<Tested, 'name'>>(c, 'POST', `/webhooks/${part(name)}/test`, {
    headers: onceBy(form),
  });
  if (!answer.ok) return refusedPage(at, answer.refused);
  return webhooksPage(c, at, { tested: { ...answer.body, name } });
}

export async function deleteWebhook(c: Context<AppEnv>, at: At, form: URLSearchParams): Promise<Response> {
  const answer = await call(c, 'DELETE', `/webhooks/${part(c.req.param('name') ?? '')}`, {
    body: {},
    headers: onceBy(form),
  });
  if (!answer.ok) return webhooksPage(c, at, { sent: { values: form, refused: answer.refused } });
  return c.redirect(linkTo(at, '/webhooks', { done: 'deleted' }), 303);
}
