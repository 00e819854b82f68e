// The documents: their links lead somewhere, README's quick start runs as it stands, and the calls and messages that they
// name exist.
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { processes } from '../../scripts/processes.mjs';
import { describeWith } from '../lab/ability.ts';
import { type Checkout, copyCheckout } from '../lab/checkout.ts';
import { type Child, atProcessEnd, startChild } from '../lab/child.ts';
import { isRunning, startLapidary, workerdsOn } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

const root = resolve(import.meta.dirname, '../..');
const inDocs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`);
const documents = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'nix/README.md', ...inDocs];

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

const fence = /^( *)```(\w*).*\n([\s\S]*?)^\1```$/gm;

/** What stands in fenced blocks of this language. */
function blocksOf(text: string, language: string): string[] {
  return [...text.matchAll(fence)].flatMap(([, , named, block = '']) => (named === language ? [block] : []));
}

function proseOf(text: string): string {
  return text.replaceAll(fence, '');
}

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of proseOf(text).matchAll(/^#+ (.+)$/gm)) {
    const words = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const anchor = words.replaceAll(/[^\p{L}\p{N}_ -]/gu, '').replaceAll(' ', '-');
    let unique = anchor;
    for (let i = 1; anchors.has(unique); i++) unique = `${anchor}-${i}`;
    anchors.add(unique);
  }
  return anchors;
}

/** The targets of a document's links to this repository. */
function linksOf(text: string): string[] {
  const prose = proseOf(text).replaceAll(/`[^`\n]*`/g, '');
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$/gm)];
  return links.flatMap(([, target = '', defined = target]) => (/^\w+:/.test(defined) ? [] : [defined]));
}

function leadsNowhere(from: string, link: string): boolean {
  const [path = '', anchor] = link.split('#');
  const target = path === '' ? join(root, from) : resolve(root, dirname(from), path);
  if (!existsSync(target)) return true;
  return anchor !== undefined && !anchorsOf(readFileSync(target, 'utf8')).has(anchor);
}

describe.each(documents)('%s', (document) => {
  test('has links that lead somewhere', () => {
    expect(linksOf(read(document)).filter((link) => leadsNowhere(document, link))).toEqual([]);
  });

  test('has commands that a shell can read', async () => {
    for (const block of blocksOf(read(document), 'sh')) await promisify(execFile)('sh', ['-nc', block]);
  });
});

/** Who has to link a document: README, and for `docs/lists/f5.md` `docs/lists.md`. */
function aboveOf(path: string): string {
  return /^docs\/.+\//.test(path) ? `${dirname(path)}.md` : 'README.md';
}

test('README is short, and every document is linked from above', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(200);
  const isLinked = (path: string): boolean => {
    const above = aboveOf(path);
    return linksOf(read(above)).some((link) => {
      return resolve(root, dirname(above), link.split('#')[0] as string) === resolve(root, path);
    });
  };
  expect(documents.filter((path) => path !== 'README.md' && !isLinked(path))).toEqual([]);
});

describeWith('the quick start of README', ['hostTools'], () => {
  const [, chapter = ''] = /^## Quick start\n([\s\S]*?)^## /m.exec(read('README.md')) ?? [];
  /** What is typed into each terminal, and what the second one shows then. */
  const [serve = '', ask = ''] = blocksOf(chapter, 'sh');
  const [shown = ''] = blocksOf(chapter, 'text');

  let checkout: Checkout;
  let terminal: Child | undefined;
  afterEach(async () => {
    const supervisors = supervisorsIn(checkout.dir);
    for (const pid of supervisors) if (isRunning(pid)) process.kill(pid);
    await until('npm start has ended', () => !supervisors.some(isRunning));
    await terminal?.end();
    await checkout.remove();
  });

  test('runs as it stands, and ends with the ban in the bouncer’s answer', async () => {
    checkout = await copyCheckout();
    const port = await freePort();
    atProcessEnd(() => supervisorsIn(checkout.dir).forEach((pid) => process.kill(pid)));
    const options = { cwd: checkout.dir, env: { PATH: process.env['PATH'] ?? '', HOME: checkout.dir } };
    const [install, ...start] = serve.trim().split('\n');
    // Whoever runs this has installed the packages.
    expect(install).toBe('npm ci');
    const environment = { ...options.env, PORT: String(port) };
    terminal = startChild('bash', ['-euc', start.join('\n')], { ...options, env: environment });
    await until('it serves', (saw) => {
      saw(terminal?.log());
      return terminal?.log().includes('lapidary serves') ?? false;
    });
    const typed = ask.replaceAll('127.0.0.1:8787', `127.0.0.1:${port}`);
    const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', typed], options);
    const answer = JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
    const expected = JSON.parse(shown);
    expect(expected.new).toMatchObject([{ type: 'ban', value: '192.0.2.1' }]);
    const sameBut = { duration: expect.stringMatching(/^3h59m\d+s$/) };
    expect(answer).toEqual({ ...expected, new: [{ ...expected.new[0], ...sameBut }] });
  });
});

/** The processes that keep a workerd running on the state of this checkout. */
function supervisorsIn(checkoutDir: string): number[] {
  const workerds = workerdsOn(join(checkoutDir, '.lapidary'));
  return processes()
    .filter(({ pid }) => workerds.includes(pid))
    .map(({ parent }) => parent);
}

interface Call {
  readonly method: string;
  readonly path: string;
}

/** The calls that a document names in its sentences, tables and commands. LAPI's own are not ours to describe. */
function callsIn(text: string): Call[] {
  const named = [...proseOf(text).matchAll(/`(GET|POST|PUT|PATCH|DELETE) (\/[^\s`?[]*)/g)];
  const calls = named.map(([, method = '', path = '']) => ({
    method,
    path: /^\/(api\/|bootstrap\/|metrics$)/.test(path) ? path : `/api/v1${path}`,
  }));
  const lines = blocksOf(text, 'sh').flatMap((block) => block.replaceAll('\\\n', ' ').split('\n'));
  const typed = lines.flatMap((line) => {
    const path = /https?:\/\/[^/\s]+(\/(?:api|bootstrap)\/v1\/[^\s'"?]*)/.exec(line)?.[1];
    const method = / -X (\w+)/.exec(line)?.[1] ?? (/ -d /.test(line) ? 'POST' : 'GET');
    return path === undefined ? [] : [{ method, path }];
  });
  return [...calls, ...typed].filter(
    ({ path }) => !/^\/api\/v1\/(v1\/|lists\/|health$|openapi\.json$)/.test(path),
  );
}

test('every call that a document names is one of the API', async () => {
  const lapidary = await startLapidary();
  try {
    const { paths } = (await (await fetch(`${lapidary.url}/openapi.json`)).json()) as {
      paths: Record<string, Record<string, unknown>>;
    };
    const operations = Object.entries(paths).flatMap(([path, methods]) => {
      const pattern = new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`);
      return Object.keys(methods).map((method) => ({ method: method.toUpperCase(), pattern }));
    });
    const isKnown = ({ method, path }: Call): boolean =>
      operations.some((each) => each.method === method && each.pattern.test(path));
    const unknown = documents.flatMap((document) =>
      callsIn(read(document))
        .filter((call) => !isKnown(call))
        .map(({ method, path }) => `${document}: ${method} ${path}`),
    );
    expect(unknown).toEqual([]);
  } finally {
    await lapidary.close();
  }
});

test('the messages that docs/troubleshooting.md explains are those of the code', () => {
  const sources = ['src', 'scripts'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(ts|tsx|mjs)$/.test(name))
      .map((name) => read(join(folder, name))),
  );
  // A text that is broken over two lines is one.
  const code = sources.join('\n').replaceAll(/['`] \+\s+['`]/g, '');
  const rows = read('docs/troubleshooting.md').matchAll(/^\| ([^|]*) \|/gm);
  const messages = [...rows].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`([^`]+ [^`]+)`/g)].map(([, message = '']) => message),
  );
  expect(messages.length).toBeGreaterThan(30);
  // `…` stands for what differs.
  const parts = messages.flatMap((message) => message.split('…')).map((part) => part.trim());
  expect(parts.filter((part) => !code.includes(part))).toEqual([]);
});
