// The frame of every page: head, policy, navigation, and what goes wrong. Everything that is shown is escaped by hono/jsx;
// the style and the script are the only raw texts, and the policy lets nothing else run.

import { sha256 } from '@noble/hashes/sha2.js';
import { html, raw } from 'hono/html';
import type { Child } from 'hono/jsx';
import { toBase64 } from '../formats/bytes.ts';
import { describeFailure, type Failure } from '../http/failure.ts';
import { linkTo, type At } from './at.ts';
import type { Refused } from './call.ts';
import { FormFields } from './forms.tsx';
import { script } from './script.ts';
import { style } from './style.ts';

const hashOf = (text: string): string => `'sha256-${toBase64(sha256(new TextEncoder().encode(text)))}'`;

let headers: Record<string, string> | undefined;

/** Made at the first page: an isolate that only serves bouncers hashes nothing. */
function headersOf(): Record<string, string> {
  headers ??= {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': [
      "default-src 'none'",
      `style-src ${hashOf(style)}`,
      `script-src ${hashOf(script)}`,
      "connect-src 'self'",
      "form-action 'self'",
      "base-uri 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
    'cache-control': 'no-store',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'same-origin',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
  };
  return headers;
}

/** A page as a response. */
export async function respond(page: unknown, status = 200): Promise<Response> {
  const text = await html`<!doctype html>${page}`;
  return new Response(String(text), { status, headers: headersOf() });
}

const pages = [
  ['/', 'Overview'],
  ['/lookup', 'Look-up'],
  ['/bouncers', 'Bouncers'],
  ['/decisions', 'Decisions'],
  ['/allow-list', 'Allow-list'],
  ['/engines', 'Engines'],
  ['/hosts', 'Hosts'],
  ['/rotations', 'Rotations'],
  ['/webhooks', 'Webhooks'],
  ['/audit', 'Audit'],
  ['/operators', 'Operators'],
] as const;

export interface PageOf {
  readonly at: At;
  readonly title: string;
  /** The page's path in the navigation. */
  readonly nav: string;
  /** In place of the title on the page. */
  readonly heading?: unknown;
  /** The answer to the page's first question, in one sentence. */
  readonly sub?: unknown;
  /** Its numbers are brought up to date while it is looked at. */
  readonly live?: boolean;
  readonly children?: Child;
}

export function Page({ at, title, nav, heading, sub, live, children }: PageOf) {
  return (
    <Document title={title}>
      <header>
        <strong>Lapidary</strong>
        <nav aria-label="Pages">
          {pages.map(([path, name]) => (
            <a href={linkTo(at, path)} {...(path === nav ? { 'aria-current': 'page' } : {})}>
              {name}
            </a>
          ))}
        </nav>
        <form
          class="find"
          role="search"
          aria-label="All decisions"
          method="get"
          action={linkTo(at, '/lookup')}
        >
          <input
            name="value"
            placeholder="Address, range, FR, AS64500"
            aria-label="Look up an address, a range, a country or an AS"
            autocomplete="off"
            spellcheck={false}
          />
        </form>
        <SignedIn at={at} />
      </header>
      <main id="main" {...(live ? { 'data-live': '' } : {})}>
        <h1>{heading ?? title}</h1>
        <p class="sub">{sub}</p>
        {children}
      </main>
    </Document>
  );
}

function SignedIn({ at }: { at: At }) {
  const who = (
    <span class="who" title={`Signed in as ${at.actor}, with the role ${at.role}`}>
      {at.actor.replace(/^(token|oidc:[^:]*):/, '')}
    </span>
  );
  if (!at.bySession) return <form>{who}</form>;
  return (
    <form method="post" action={linkTo(at, '/sign-out')}>
      <FormFields at={at} />
      {who}
      <button>Sign out</button>
    </form>
  );
}

/** `refresh`: where the page goes by itself. */
function Document({ title, refresh, children }: { title: string; refresh?: string; children?: Child }) {
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        {refresh === undefined ? null : <meta http-equiv="refresh" content={`0; url=${refresh}`} />}
        <title>{title} · Lapidary</title>
        <style>{raw(style)}</style>
      </head>
      <body>
        <a class="skip" href="#main">
          To the content
        </a>
        {children}
        <script type="module">{raw(script)}</script>
      </body>
    </html>
  );
}

/** A page for whoever is not signed in. */
export function Bare({ title, refresh, children }: { title: string; refresh?: string; children?: Child }) {
  return (
    <Document title={title} {...(refresh === undefined ? {} : { refresh })}>
      <header>
        <strong>Lapidary</strong>
      </header>
      <main id="main">
        <h1>{title}</h1>
        {children}
      </main>
    </Document>
  );
}

const next: Readonly<Record<number, string>> = {
  404: 'It may have been deleted, or the address has a mistake.',
  503: 'Bouncers are served meanwhile from what is known. Load the page again in a moment.',
};

/** A failure as a page, for whoever may not be signed in. `base`: where the console is. */
export function failurePage(failure: Failure, base: string): Promise<Response> {
  const { status, title, detail } = describeFailure(failure);
  const page = (
    <Bare title={title}>
      <p class="sub">{detail}</p>
      <p>{next[status] ?? ''}</p>
      <p>
        <a href={`${base}/`}>To the overview</a>
      </p>
    </Bare>
  );
  return respond(page, status);
}

/** What the API refused, in place of a page. */
export function refusedPage(at: At, { status, title, detail }: Refused): Promise<Response> {
  const page = (
    <Page at={at} title={title} nav="" sub={`${detail}.`}>
      <p>{next[status] ?? ''}</p>
    </Page>
  );
  return respond(page, status);
}
