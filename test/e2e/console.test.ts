// The console in a real browser, on what `npm start` runs: an operator's first hour, as people and as axe-core see it.
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { faultsOf, startChromium } from '../lab/chromium.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

/** Where pictures of the pages go, for docs/console.md. */
const pictures = process.env['CONSOLE_PICTURES'];

describeWith('the console', ['chromium', 'lab'], () => {
  let engine: Engine;
  let second: Engine;
  let lapidary: Lapidary;
  let browser: Browser;
  beforeAll(async () => {
    [engine, second] = await Promise.all([startEngine(), startEngine()]);
    const paris = { name: 'paris', url: second.url, key: await second.addBouncer('lapidary') };
    const { login: machine, password } = engine.machine;
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: {
        UPSTREAMS: JSON.stringify([paris]),
        UPSTREAM_ALLOWLISTS: JSON.stringify({ machine, password }),
      },
    });
    await until('the list is there', async () => (await lapidary.health()).feed === 'fresh');
    browser = await startChromium();
  });
  afterAll(async () => {
    await browser.close();
    await lapidary.close();
    await Promise.all([engine.close(), second.close()]);
  });

  const operatorToken = async (): Promise<string> =>
    (await readFile(join(lapidary.stateDir, 'operator-token'), 'utf8')).trim();

  async function open(options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> {
    const page = await browser.newPage(options);
    page.on('pageerror', (error) => troubles.push(String(error)));
    page.on('console', (message) => {
      // A page that is refused is in the console, too.
      if (message.type() === 'error' && !/status of 4\d\d/.test(message.text()))
        troubles.push(message.text());
    });
    return page;
  }
  /** What the browser complained of: an error of a script, or something that the policy keeps out. */
  const troubles: string[] = [];

  async function signIn(page: Page, token: string): Promise<void> {
    await page.goto(`${lapidary.url}/`);
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL('**/console');
  }

  async function picture(page: Page, name: string): Promise<void> {
    if (pictures === undefined) return;
    await mkdir(pictures, { recursive: true });
    await page.evaluate('scrollTo(0, 0)');
    await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  }

  const asBouncer = async (
    key: string,
    startup = true,
    agent = 'crowdsec-firewall-bouncer/v0.0.34',
  ): Promise<any> => {
    const headers = { 'x-api-key': key, 'user-agent': agent };
    const response = await fetch(`${lapidary.url}/v1/decisions/stream?startup=${startup}`, { headers });
    return { status: response.status, body: response.status === 200 ? await response.json() : null };
  };

  test('an operator’s first hour', async () => {
    const page = await open();
    await signIn(page, await operatorToken());
    const goTo = (name: string) => page.getByRole('navigation', { name: 'Pages' }).getByText(name).click();
    await page.getByRole('heading', { name: 'Connect a bouncer' }).waitFor();

    await page.getByRole('link', { name: 'Make one here' }).click();
    await page.getByLabel('Name').fill('web-1');
    await page.getByLabel('Kind').selectOption('Firewall');
    await page.getByRole('button', { name: 'Make it' }).click();
    const key = (await page.locator('#key').textContent())!.trim();
    expect(await page.locator('#lines').textContent()).toContain(`api_key: ${key}`);

    await asBouncer(key);
    await goTo('Decisions');
    await page.getByRole('link', { name: 'Ban', exact: true }).click();
    await page.getByLabel('Value').fill('192.0.2.77');
    await page.getByRole('button', { name: 'Ban' }).click();
    await page.getByText('Banned. Each bouncer whose view it is in gets it with its next poll.').waitFor();
    await page.getByRole('row', { name: /^web-1 not yet/ }).waitFor();
    for (const sent of [/^web-1 sent once/, /^web-1 sent twice/]) {
      const { body } = await asBouncer(key, false);
      expect(body.new).toMatchObject([{ value: '192.0.2.77', type: 'ban' }]);
      await page.getByLabel('Look up an address, a range, a country or an AS').fill('192.0.2.77');
      await page.keyboard.press('Enter');
      await page.getByRole('row', { name: sent }).waitFor();
    }

    await goTo('Bouncers');
    await page.getByText('1 bouncer of 1 seen in the last hour.').waitFor();
    await page.getByRole('link', { name: 'web-1' }).click();
    await page.getByText('crowdsec-firewall-bouncer v0.0.34.').waitFor();
    await page.getByText('Rotate its key…').click();
    await page.getByRole('button', { name: 'Rotate' }).click();
    const second = (await page.locator('#key').textContent())!.trim();
    expect([(await asBouncer(key)).status, (await asBouncer(second)).status]).toEqual([200, 200]);

    await page.getByRole('link', { name: 'web-1' }).click();
    await page.getByText('Pause web-1…').click();
    await page.getByRole('button', { name: 'Pause web-1' }).click();
    await page.getByText('Paused. Its requests are refused everywhere within 5 s.').waitFor();
    await until('it is refused', async () => (await asBouncer(second)).status === 403);
    await page.getByRole('button', { name: 'Resume web-1' }).click();
    await page.getByText('Resumed. It is served everywhere within 5 s').waitFor();
    await until('it is served', async () => (await asBouncer(second)).status === 200);
    await page
      .getByRole('row', { name: /^2 current/ })
      .getByText('Revoke…')
      .click();
    await page.getByRole('button', { name: 'Revoke version 2' }).click();
    await page.getByText('The version is refused everywhere within 5 s.').waitFor();
    await page.getByText('Delete web-1…').click();
    await page.getByRole('button', { name: 'Delete web-1' }).click();
    await page.getByText('Its keys are refused everywhere within 5 s.').waitFor();
    expect((await lapidary.operator('GET', '/bouncers')).body.bouncers).toEqual([]);

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.goto(`${lapidary.url}/console/bouncers`);
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(troubles).toEqual([]);
    await page.close();
  });

  test('works without JavaScript, and by the keyboard alone', async () => {
    const page = await open({ javaScriptEnabled: false });
    await page.goto(`${lapidary.url}/console/`);
    // The field is where one types.
    await page.locator('#token:focus').waitFor();
    await page.keyboard.type(await operatorToken());
    await page.keyboard.press('Enter');
    await page.waitForURL('**/console');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    expect(page.url()).toContain('#main');
    await page.goto(`${lapidary.url}/console/new-bouncer`);
    await page.getByLabel('Name').focus();
    await page.keyboard.type('by-hand');
    await page.keyboard.press('Enter');
    await page.locator('#key').waitFor();
    await page.getByRole('link', { name: 'by-hand' }).press('Enter');
    await page.getByText('Delete by-hand…').press('Enter');
    await page.getByRole('button', { name: 'Delete by-hand' }).press('Enter');
    await page.getByText('Its keys are refused everywhere within 5 s.').waitFor();
    await page.close();
  });

  test('numbers are brought up to date, but not under somebody who types', async () => {
    const page = await open();
    await page.clock.install();
    await signIn(page, await operatorToken());
    await page.goto(`${lapidary.url}/console/bouncers`);
    await lapidary.addBouncer('came-later');
    await page.clock.runFor(15_000);
    await page.getByRole('link', { name: 'came-later' }).click();
    await page.getByLabel('Origins').fill('crowdsec');
    await page.getByRole('heading', { name: 'came-later' }).click();
    await page.clock.runFor(60_000);
    expect(await page.getByLabel('Origins').inputValue()).toBe('crowdsec');
    await lapidary.operator('DELETE', '/bouncers/came-later');
    await page.close();
  });

  test('a viewer reads which role each change takes; a token that ends, ends its session', async () => {
    const tokenOf = async (role: string, expiresIn: string): Promise<string> => {
      const body = { name: `${role}-${expiresIn}`, role, expires_in: expiresIn };
      return (await lapidary.operator('POST', '/operator-tokens', body)).body.token;
    };
    const page = await open();
    await signIn(page, await tokenOf('viewer', '1h'));
    await page.goto(`${lapidary.url}/console/lookup?value=192.0.2.5`);
    await page.getByText('Banning takes the role operator; yours is viewer.').waitFor();
    expect(await page.getByRole('link', { name: /^(Ban|Unban)/ }).count()).toBe(0);
    for (const path of ['/ban', '/new-bouncer', '/operators', '/webhooks']) {
      await page.goto(`${lapidary.url}/console${path}`);
      await page.getByText(/the role (operator|admin)/).waitFor();
      expect(await page.locator('main form[method=post]').count()).toBe(0);
    }
    await lapidary.operator('DELETE', '/operator-tokens/viewer-1h');
    await page.getByRole('navigation', { name: 'Pages' }).getByText('Bouncers').click();
    await page.getByText('this operator token is revoked').waitFor();
    await signIn(page, await tokenOf('operator', '20s'));
    await until('its time is over', async () => (await page.reload())?.status() === 401);
    await page.getByText('this operator token is expired').waitFor();
    await page.close();
  });

  test('markup that others write runs on no page', async () => {
    const markup = '<img src=x onerror=alert(1)><script>alert(2)</script>"\'>';
    const decision = { value: markup, scope: 'Session', scenario: markup, duration: '4h' };
    const made = [
      await lapidary.operator('POST', '/decisions', decision),
      await lapidary.operator('POST', '/allowlist', { value: '192.0.2.200', comment: markup }),
      await lapidary.operator('POST', '/webhooks', { name: 'markup', url: `https://127.0.0.1:9/${markup}` }),
    ];
    expect(made.map(({ status }) => status)).toEqual([201, 201, 201]);
    await engine.ban('198.51.100.99', { reason: markup });
    await lapidary.sync();
    const key = await lapidary.addBouncer('markup');
    await asBouncer(key, true, `${markup}/${markup}`);
    const metrics = { name: markup, type: markup, version: markup, os: { name: markup, version: markup } };
    await fetch(`${lapidary.url}/v1/usage-metrics`, {
      method: 'POST',
      headers: { 'x-api-key': key, 'user-agent': `${markup}/${markup}` },
      body: JSON.stringify({
        remediation_components: [{ ...metrics, metrics: [], feature_flags: [markup] }],
      }),
    });
    // What can have no markup is refused where it is made.
    for (const [path, body] of [
      ['/bouncers', { name: markup }],
      ['/enrolments', { hosts: markup }],
      ['/enrolments', { hosts: 'web-*', bouncer: markup }],
      ['/operator-tokens', { name: markup, role: 'viewer', expires_in: '1h' }],
      ['/webhooks', { name: markup, url: 'https://127.0.0.1:9/' }],
    ] as const) {
      expect([path, (await lapidary.operator('POST', path, body)).status]).toEqual([path, 400]);
    }
    const page = await open();
    page.on('dialog', (dialog) => troubles.push(dialog.message()));
    await signIn(page, await operatorToken());
    const text = encodeURIComponent(markup);
    const showing = [
      ...[
        `/lookup?value=${text}`,
        '/lookup?value=198.51.100.99',
        '/decisions',
        '/bouncers',
        '/bouncers/markup',
      ],
      ...['/allow-list', '/webhooks', '/audit?action=decision.ban'],
    ];
    for (const path of showing) {
      await page.goto(`${lapidary.url}/console${path}`);
      expect([path, await page.locator('main').textContent()]).toEqual([
        path,
        expect.stringContaining('<img'),
      ]);
      expect([path, await page.locator('main img, main script').count()]).toEqual([path, 0]);
    }
    const given = [
      '/bouncers?q',
      '/decisions?scenario',
      '/lookup?scope',
      '/audit?actor',
      '/hosts?state',
      '/allow-list/engines?list',
      '/ban?value',
    ];
    for (const path of given) {
      await page.goto(`${lapidary.url}/console${path}=${text}`);
      expect([path, await page.locator('main img, main script').count()]).toEqual([path, 0]);
    }
    expect(troubles).toEqual([]);
    await page.close();
    await lapidary.operator('DELETE', `/decisions?value=${text}`);
    await lapidary.operator('DELETE', `/allowlist/${made[1]!.body.entry.id}`);
    await lapidary.operator('DELETE', '/webhooks/markup');
    await lapidary.operator('DELETE', '/bouncers/markup');
    await engine.unban('198.51.100.99');
  });

  test('a day is drawn', async () => {
    const key = await lapidary.addBouncer('draws');
    await lapidary.ban('192.0.2.90');
    for (const startup of [true, false, false]) await asBouncer(key, startup);
    expect((await asBouncer('no-key')).status).toBe(403);
    const page = await open();
    await signIn(page, await operatorToken());
    // What is counted in five minutes is drawn once they are over.
    const counted = /in all, at most|None\.|no five minutes are over/;
    for (const [name, words] of [
      ['Decisions', /^\d+ now, /],
      ['Changes', counted],
      ['Polls and look-ups', counted],
      ['Refused attempts', counted],
    ] as const) {
      const plot = page.getByRole('img', { name: `${name} in the last 24 hours` });
      await plot.waitFor();
      expect([name, await plot.locator('desc').textContent()]).toEqual([name, expect.stringMatching(words)]);
    }
    const decisions = page.getByRole('img', { name: 'Decisions in the last 24 hours' });
    expect(await decisions.locator('path.curve').count()).toBe(1);
    await page.getByText('The same hour by hour').click();
    await page
      .getByRole('table')
      .filter({ hasText: 'Decisions at its end' })
      .getByRole('row')
      .nth(1)
      .waitFor();
    expect(await faultsOf(page)).toEqual([]);
    await page.close();
    await lapidary.unban('192.0.2.90');
    await lapidary.operator('DELETE', '/bouncers/draws');
  });

  const paths = [
    ...['/', '/lookup', '/lookup?value=192.0.2.77', '/lookup?value=203.0.113.7', '/lookup?value=1.2'],
    ...['/bouncers', '/bouncers/web-7', '/bouncers/paused', '/new-bouncer', '/decisions', '/ban', '/unban'],
    ...[
      '/engines',
      '/allow-list',
      '/allow-list/1',
      '/allow-list/engines',
      '/hosts',
      '/enrolments',
      '/rotations',
      '/rotations/1',
    ],
    ...['/webhooks', '/audit', '/audit/verify', '/operators'],
  ];

  test.each([
    ['light', 1120],
    ['dark', 1120],
    ['light', 360],
    ['dark', 360],
  ] as const)('axe finds nothing: %s, %d px', async (colorScheme, width) => {
    await populate();
    const page = await open({ colorScheme, viewport: { width, height: 800 } });
    const faults: string[] = [];
    const look = async (name: string): Promise<void> => {
      for (const fault of await faultsOf(page)) faults.push(`${name}: ${fault}`);
      const scrolls = await page.evaluate('document.documentElement.scrollWidth > innerWidth');
      if (scrolls) faults.push(`${name} is wider than the screen`);
    };
    await page.goto(`${lapidary.url}/console/`);
    await look('sign-in');
    await signIn(page, await operatorToken());
    for (const path of paths) {
      await page.goto(`${lapidary.url}/console${path}`);
      await picture(
        page,
        `${path.replaceAll(/[^\w-]/g, '-').replace(/^-/, '') || 'overview'}-${colorScheme}-${width}`,
      );
      // What is folded away is read, too.
      for (const summary of await page.locator('main summary').all()) await summary.click();
      await look(path);
    }
    await page.goto(`${lapidary.url}/console/ban`);
    await page.getByLabel('Value').fill('nothing');
    await page.getByRole('button', { name: 'Ban' }).click();
    await look('refused');
    expect(faults).toEqual([]);
    await page.close();
  });

  let populated: Promise<void> | undefined;

  /** Something of everything, once. */
  function populate(): Promise<void> {
    populated ??= (async () => {
      await engine.ban('198.51.100.23', { reason: 'crowdsecurity/ssh-bf' });
      await engine.ban('203.0.113.0/25', { reason: 'crowdsecurity/http-probing' });
      await lapidary.sync({ full: true });
      await lapidary.unban('192.0.2.77');
      await lapidary.ban('192.0.2.77');
      await lapidary.ban('2001:db8:1234:5678::/64', { duration: '7d' });
      await lapidary.operator('POST', '/decisions', {
        value: 'FR',
        scope: 'Country',
        duration: '12h',
        scenario: 'asked by the lawyers',
      });
      await lapidary.addBouncer('mail-1');
      await lapidary.operator('POST', '/bouncers', { name: 'edge-fra-2', expires_in: '3d' });
      await asBouncer(await lapidary.addBouncer('web-7'));
      await lapidary.operator('POST', '/bouncers/web-7/rotate', {});
      await asBouncer(await lapidary.addBouncer('paused'));
      const pause = { paused: true, view: { scenarios_not_containing: ['manual'] } };
      await lapidary.operator('PATCH', '/bouncers/paused', pause, { 'if-match': '*' });
      const edge = await lapidary.addBouncer('edge-ams-1');
      await asBouncer(edge);
      await lapidary.ban('192.0.2.0/24', { duration: '1h' });
      await asBouncer(edge, false);
      await second.ban('203.0.113.7', { reason: 'crowdsecurity/http-cve-2021-41773', duration: '9h' });
      await lapidary.sync();
      await asBouncer(edge, false);
      const nginx = {
        'x-api-key': await lapidary.addBouncer('shop-nginx'),
        'user-agent': 'crowdsec-nginx-bouncer/v1.1.3',
      };
      await fetch(`${lapidary.url}/v1/decisions?ip=203.0.113.7`, { headers: nginx });
      await lapidary.operator('POST', '/allowlist', {
        value: '198.51.100.0/28',
        comment: 'the office in Lyon',
      });
      const events = ['bouncer.silent', 'bouncer.recovered'];
      await lapidary.operator('POST', '/webhooks', {
        name: 'ops',
        url: 'https://127.0.0.1:9/lapidary',
        events,
      });
      await lapidary.operator('POST', '/rotations', {
        selector: { names: ['mail-*', 'edge-*'] },
        spread: '1h',
      });
      await lapidary.operator('POST', '/enrolments', { hosts: 'web-*', max_hosts: 20 });
      await lapidary.operator('POST', '/operator-tokens', {
        name: 'grafana',
        role: 'viewer',
        expires_in: '90d',
      });
    })();
    return populated;
  }
});
