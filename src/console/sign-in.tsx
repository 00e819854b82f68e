// Signing in by a token, typed once, and out again.

import type { Context } from 'hono';
import { generateCookie, getCookie, setCookie } from 'hono/cookie';
import { clientAddress, type AppEnv } from '../env.ts';
import { countRefusal } from '../feed/client.ts';
import { describeFailure, type Failure } from '../http/failure.ts';
import { endSession, sessionMs, startSession } from '../operators/sessions.ts';
import { baseOf, type At } from './at.ts';
import { Bare, failurePage, respond } from './frame.tsx';

const cookieName = 'lapidary_session';

export function sessionOf(c: Context<AppEnv>): string | null {
  return getCookie(c, cookieName, prefixOf(c)) ?? null;
}

/**
 * Over HTTPS the cookie's name begins with `__Secure-`: browsers take such a cookie from nothing else. `__Host-` is for cookies
 * that all paths get, and this one is for the console's alone.
 */
function prefixOf(c: Context<AppEnv>): 'secure' | undefined {
  const { headers, url } = c.req.raw;
  const isSecure = url.startsWith('https:') || headers.get('x-forwarded-proto') === 'https';
  return isSecure ? 'secure' : undefined;
}

/** A browser sends the cookie to the console alone, and never with a request that another site's page begins. */
function cookieOptions(c: Context<AppEnv>, maxAge: number) {
  const prefix = prefixOf(c);
  const options = { path: baseOf(c), httpOnly: true, sameSite: 'Strict', maxAge } as const;
  return prefix ? { ...options, prefix } : options;
}

/**
 * The page in place of the one that was asked for. `why`: how the request was refused. A link on another site's page comes
 * without the cookie: then the page asks for itself again, from here.
 */
export function askToSignIn(c: Context<AppEnv>, why: Failure | null): Promise<Response> {
  const to = c.req.method === 'GET' ? c.req.path + new URL(c.req.url).search : '/console';
  const fromElsewhere = why === null && c.req.header('sec-fetch-site') === 'cross-site';
  return signInPage(c, to, why, fromElsewhere);
}

async function signInPage(
  c: Context<AppEnv>,
  to: string,
  why: Failure | null,
  again = false,
): Promise<Response> {
  const { operatorIssuers, pathPrefix } = c.get('settings');
  const refused = why && describeFailure(why);
  const page = (
    <Bare title="Sign in" {...(again ? { refresh: pathPrefix + to } : {})}>
      <p class="sub">
        With a token of an operator.{' '}
        {operatorIssuers.length > 0
          ? 'Your issuer signs you in by itself where it is in front of this address.'
          : ''}
      </p>
      {refused ? (
        <div class="banner bad" role="alert">
          <p>{refused.detail}.</p>
        </div>
      ) : null}
      <form method="post" action={`${baseOf(c)}/sign-in`}>
        <input type="hidden" name="to" value={to} />
        <div class="fields">
          <div class="field">
            <label for="token">Token</label>
            <input
              id="token"
              name="token"
              type="password"
              autocomplete="current-password"
              required
              autofocus
            />
          </div>
        </div>
        <p>
          <button class="primary">Sign in</button>
        </p>
      </form>
      <p class="soft">
        <code>npm start</code> keeps one in <code>.lapidary/operator-token</code>. Others are made by an
        admin, below <code>/api/v1/operator-tokens</code>. The browser keeps no token: it gets a cookie for 12
        hours, which ends with the token.
      </p>
    </Bare>
  );
  return respond(page, refused?.status ?? 401);
}

export async function signIn(c: Context<AppEnv>, form: URLSearchParams): Promise<Response> {
  const to = form.get('to') ?? '';
  const address = clientAddress(c.req.raw, c.get('settings'));
  const started = await startSession(c.env, form.get('token')?.trim() ?? '', address, Date.now());
  if (!started.ok) {
    const { kind } = started.failure;
    if (kind === 'unauthorised' || kind === 'forbidden') countRefusal('operator', kind);
    return signInPage(c, pathOf(to), started.failure);
  }
  setCookie(c, cookieName, started.value, cookieOptions(c, sessionMs / 1000));
  return c.redirect(c.get('settings').pathPrefix + pathOf(to), 303);
}

/** The browser's cookie goes in any case. What is in it ends only where it was what said who asks. */
export async function signOut(c: Context<AppEnv>, at: At): Promise<Response> {
  const session = at.bySession ? sessionOf(c) : null;
  const operator = { actor: c.get('actor'), breakGlass: c.get('breakGlass') };
  const ended = session === null ? null : await endSession(c.env, operator, session, Date.now());
  const answer =
    ended === null || ended.ok
      ? c.redirect(`${baseOf(c)}/`, 303)
      : await failurePage(ended.failure, baseOf(c));
  answer.headers.append('set-cookie', generateCookie(cookieName, '', cookieOptions(c, 0)));
  return answer;
}

/** A page of the console, whatever was sent: nobody is led away from here. */
function pathOf(to: string): string {
  return /^\/console(\/[\w~@%:-][\w.~@%:-]*)*\/?(\?[\w.~@%:&=+/*-]*)?$/.test(to) ? to : '/console/';
}
