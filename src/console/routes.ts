// The console: pages for operators, below /console/. Who asks is found out as for the API, or by the cookie of a session. A
// page reads; every change is a form that posts, with a token that only our own pages have.

import { Hono, type Context } from 'hono';
import type { AppEnv } from '../env.ts';
import { readText } from '../http/body.ts';
import type { Failure } from '../http/failure.ts';
import { isFromElsewhere } from '../http/site.ts';
import { fixPublicUrl } from '../hosts/public-url.ts';
import { mayAct } from '../config/roles.ts';
import { isLoopbackUrl } from '../config/public-url.ts';
import { identifyBySession, identifyOperator } from '../operators/caller.ts';
import { idempotencyKeyRule } from '../operations/operation.ts';
import { formToken, isFormToken } from '../operators/sessions.ts';
import { allow, changeEntry, removeEntry, showAllowList, showEntry } from './allow-list.tsx';
import { baseOf, type At } from './at.ts';
import { bouncerList, createBouncer, newBouncer } from './bouncers.tsx';
import {
  changeLimits,
  deleteBouncer,
  pauseBouncer,
  resumeBouncer,
  revokeVersion,
  rotateKey,
  showBouncer,
} from './bouncer.tsx';
import { showEngineAllowLists } from './engine-allow-lists.tsx';
import { ban, decisionList, showBan, showUnban, unban } from './decisions.tsx';
import { acknowledgeBreaks, showAudit, verifyAudit } from './audit.tsx';
import { showEngines, syncEngines } from './engines.tsx';
import { createEnrolment, revokeEnrolment, showEnrolments } from './enrolments.tsx';
import { failurePage } from './frame.tsx';
import { recoverHost, showHosts } from './hosts.tsx';
import { createOperator, revokeOperator, showOperators } from './operators.tsx';
import { showRotation, showRotations } from './rotations.tsx';
import { lookUp } from './lookup.tsx';
import { overview } from './overview.tsx';
import { createWebhook, deleteWebhook, showWebhooks, testWebhook } from './webhooks.tsx';
import { askToSignIn, sessionOf, signIn, signOut } from './sign-in.tsx';

type Show = (c: Context<AppEnv>, at: At) => Promise<Response> | Response;
type Change = (c: Context<AppEnv>, at: At, form: URLSearchParams) => Promise<Response> | Response;

export const consoleRoutes = new Hono<AppEnv>();

/** A form's body. Lists of addresses are the largest field. */
const formLimitBytes = 64 * 1024;

consoleRoutes.post('/sign-in', async (c) => {
  if (isFromElsewhere(c.req.raw)) return refuse(c, fromElsewhere);
  const form = await readForm(c);
  return form instanceof Response ? form : signIn(c, form);
});
change('/sign-out', signOut);
show('/', overview);
show('/lookup', lookUp);
show('/decisions', decisionList);
show('/ban', showBan);
change('/ban', ban);
show('/unban', showUnban);
change('/unban', unban);
show('/allow-list', showAllowList);
change('/allow-list', allow);
show('/allow-list/engines', showEngineAllowLists);
show('/allow-list/:id', showEntry);
change('/allow-list/:id', changeEntry);
change('/allow-list/:id/remove', removeEntry);
show('/bouncers', bouncerList);
show('/new-bouncer', newBouncer);
change('/new-bouncer', createBouncer);
show('/bouncers/:name', showBouncer);
change('/bouncers/:name/rotate', rotateKey);
change('/bouncers/:name/versions/:number/revoke', revokeVersion);
change('/bouncers/:name/limits', changeLimits);
change('/bouncers/:name/pause', pauseBouncer);
change('/bouncers/:name/resume', resumeBouncer);
change('/bouncers/:name/delete', deleteBouncer);
show('/engines', showEngines);
change('/engines/sync', syncEngines);
show('/hosts', showHosts);
change('/hosts/:name/recover', recoverHost);
show('/enrolments', showEnrolments);
change('/enrolments', createEnrolment);
change('/enrolments/:id/revoke', revokeEnrolment);
show('/rotations', showRotations);
show('/rotations/:id', showRotation);
show('/webhooks', showWebhooks);
change('/webhooks', createWebhook);
change('/webhooks/:name/test', testWebhook);
change('/webhooks/:name/delete', deleteWebhook);
show('/audit', showAudit);
show('/audit/verify', verifyAudit);
change('/audit/acknowledge', acknowledgeBreaks);
show('/operators', showOperators);
change('/operators', createOperator);
change('/operators/:name/revoke', revokeOperator);
// Whoever is not signed in learns of no path whether it is there.
consoleRoutes.all('/*', (c) => asOperator(c, () => refuse(c, { kind: 'not-found', what: 'this page' })));

function show(path: string, handle: Show): void {
  consoleRoutes.get(path, (c) => asOperator(c, (at) => handle(c, at)));
}

function change(path: string, handle: Change): void {
  consoleRoutes.post(path, (c) =>
    asOperator(c, async (at) => {
      if (isFromElsewhere(c.req.raw)) return refuse(c, fromElsewhere);
      const form = await readForm(c);
      if (form instanceof Response) return form;
      const isOurs = await isFormToken(c.env, formOwner(c, at), form.get('form-token') ?? '', at.nowMs);
      const isWhole = idempotencyKeyRule.test(form.get('request') ?? '');
      return isOurs && isWhole ? handle(c, at, form) : refuse(c, oldForm);
    }),
  );
}

const fromElsewhere: Failure = { kind: 'forbidden', problem: 'a page of another site sent this form' };
const oldForm: Failure = {
  kind: 'forbidden',
  problem: 'this form is too old, or was made for somebody else: load its page again. Nothing was changed',
};

/** Answers whoever may read. */
async function asOperator(
  c: Context<AppEnv>,
  answer: (at: At) => Promise<Response> | Response,
): Promise<Response> {
  const session = hasCredentials(c) ? null : sessionOf(c);
  if (session === null && !hasCredentials(c)) return askToSignIn(c, null);
  // A form that is refused shows its page again.
  const refused =
    session === null ? await identifyOperator(c, { shows: true }) : await identifyBySession(c, session);
  if (refused?.kind === 'unauthorised' && session !== null) return askToSignIn(c, refused);
  if (refused) return refuse(c, refused);
  const [actor, role] = [c.get('actor'), c.get('role')];
  if (!mayAct(role, 'viewer')) {
    return refuse(c, { kind: 'forbidden', problem: `this takes the role viewer; yours is ${role}` });
  }
  const nowMs = Date.now();
  const from = { base: baseOf(c), url: urlOf(c), bySession: session !== null };
  const at: At = { ...from, actor, role, nowMs, formToken: '' };
  const withToken = { ...at, formToken: await formToken(c.env, formOwner(c, at), nowMs) };
  const [response] = await Promise.all([answer(withToken), fixPublicUrl(c, nowMs)]);
  return response;
}

/** Whether the request itself says who asks: the header of a proxy, such as Cloudflare Access. */
function hasCredentials(c: Context<AppEnv>): boolean {
  const { operatorIssuers } = c.get('settings');
  const { headers } = c.req.raw;
  // A proxy that asks for a password of its own passes that on.
  const isBearer = /^Bearer /i.test(headers.get('authorization') ?? '');
  return isBearer || operatorIssuers.some(({ header }) => header !== 'authorization' && headers.has(header));
}

/** Whose form it is. A form of another session is not good. */
function formOwner(c: Context<AppEnv>, { actor, bySession }: At): string {
  return `${actor} ${bySession ? sessionOf(c) : ''}`;
}

/** Where bouncers reach Lapidary: PUBLIC_URL, unless that is for this machine only; else as the browser does. */
function urlOf(c: Context<AppEnv>): string {
  const { publicUrl, pathPrefix } = c.get('settings');
  return publicUrl !== '' && !isLoopbackUrl(publicUrl) ? publicUrl : new URL(c.req.url).origin + pathPrefix;
}

async function readForm(c: Context<AppEnv>): Promise<URLSearchParams | Response> {
  const text = await readText(c.req.raw, formLimitBytes);
  return text.ok ? new URLSearchParams(text.value) : refuse(c, text.failure);
}

function refuse(c: Context<AppEnv>, failure: Failure): Promise<Response> {
  return failurePage(failure, baseOf(c));
}
