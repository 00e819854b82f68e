// The console as a browser has it: pages as text, forms that are sent with what stands in them, one cookie.
import { env } from 'cloudflare:workers';
import { expect } from 'vitest';
import { serveWith } from './edge.ts';
import { operatorToken } from './http.ts';

export interface Page {
  readonly status: number;
  readonly text: string;
  readonly headers: Headers;
}

/** Undoes what HTML escapes. */
export function plain(text: string): string {
  const named: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };
  return text.replace(/&(amp|lt|gt|quot|#39);/g, (_, name: string) => named[name]!);
}

/** A page's text, without its tags. */
export function wordsOf({ text }: Pick<Page, 'text'>): string {
  return plain(text.replace(/<[^>]*>/g, ' ')).replace(/\s+/g, ' ');
}

function attribute(tag: string, name: string): string {
  return plain(new RegExp(` ${name}="([^"]*)"`).exec(tag)?.[1] ?? '');
}

/** The form of a page that posts to a path that ends so, with the values that it has before anybody types. */
export function formOf(page: Page, action: string): Record<string, string> {
  const forms = [...page.text.matchAll(/<form[^>]*>[\s\S]*?<\/form>/g)].map(([form]) => form);
  const form = forms.find((each) => attribute(/<form[^>]*>/.exec(each)![0], 'action').endsWith(action));
  if (form === undefined) throw new Error(`no form posts to ${action} in ${page.text}`);
  const inputs = [...form.matchAll(/<input[^>]*>/g)].map(([tag]) => tag);
  const sent = inputs.filter((tag) => !/ type="(checkbox|radio)"/.test(tag) || / checked/.test(tag));
  const areas = [...form.matchAll(/<textarea[^>]* name="([^"]*)"[^>]*>([^<]*)/g)];
  return {
    ...Object.fromEntries(sent.map((tag) => [attribute(tag, 'name'), attribute(tag, 'value')])),
    ...Object.fromEntries(areas.map(([, name, value]) => [name!, plain(value!)])),
  };
}

export async function pageOf(response: Response): Promise<Page> {
  return { status: response.status, text: await response.text(), headers: response.headers };
}

export interface Browser {
  get(path: string, headers?: Record<string, string>): Promise<Page>;
  /** Sends a form of a page as it stands there, but for `values`. */
  submit(page: Page, action: string, values?: Record<string, string>): Promise<Page>;
  /** Sends just this. */
  post(path: string, values: Record<string, string>, headers?: Record<string, string>): Promise<Page>;
  cookie: string;
}

type Fetch = (path: string, init?: RequestInit) => Promise<Response>;

/** An isolate of its own: what it knows of the object's secret is not that of the test before. */
function ownIsolate(): Fetch {
  const bindings = { ...env };
  return (path, init) => serveWith(bindings, path, init);
}

/** A browser that follows no redirect. */
export function openBrowser(fetch: Fetch = ownIsolate()): Browser {
  const browser: Browser = {
    cookie: '',
    async get(path, headers = {}) {
      return keep(await fetch(path, { redirect: 'manual', headers: { ...cookies(), ...headers } }));
    },
    submit(page, action, values = {}) {
      return browser.post(`/console${action}`, { ...formOf(page, action), ...values });
    },
    async post(path, values, headers = {}) {
      const body = new URLSearchParams(values);
      const own = { 'sec-fetch-site': 'same-origin', ...cookies(), ...headers };
      return keep(await fetch(path, { method: 'POST', redirect: 'manual', body, headers: own }));
    },
  };
  function cookies(): Record<string, string> {
    return browser.cookie === '' ? {} : { cookie: browser.cookie };
  }
  function keep(response: Response): Promise<Page> {
    const set = response.headers.get('set-cookie');
    if (set !== null) browser.cookie = /Max-Age=0/.test(set) ? '' : set.split(';')[0]!;
    return pageOf(response);
  }
  return browser;
}

/** Somebody who has signed in with a token. */
export async function signedIn(token = operatorToken, fetch: Fetch = ownIsolate()): Promise<Browser> {
  const browser = openBrowser(fetch);
  const page = await browser.get('/console/');
  const { status } = await browser.submit(page, '/sign-in', { token });
  expect(status).toBe(303);
  return browser;
}
