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
  let lapidary: Lapidary;
  let browser: Browser;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
    });
    await until('the list is there', async () => (await lapidary.health()).feed === 'fresh');
    browser = await startChromium();
  });
  afterAll(async () => {
    await browser.close();
    await lapidary.close();
    await engine.close();
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

  const asBouncer = async (key: string, startup = true): Promise<any> => {
    const headers = { 'x-api-key': key, 'user-agent': 'crowdsec-firewall-bouncer/v0.0.34' };
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

  test('markup that engines and operators write runs nowhere on the look-up', async () => {
    const markup = '<img src=x onerror=alert(1)><script>alert(2)</script>"\'>';
    const decision = { value: markup, scope: 'Session', scenario: markup, duration: '4h' };
    expect((await lapidary.operator('POST', '/decisions', decision)).status).toBe(201);
    await engine.ban('198.51.100.99', { reason: markup });
    await lapidary.sync();
    const page = await open();
    page.on('dialog', (dialog) => troubles.push(dialog.message()));
    await signIn(page, await operatorToken());
    for (const value of [markup, '198.51.100.99']) {
      await page.goto(`${lapidary.url}/console/lookup?value=${encodeURIComponent(value)}`);
      await page.getByText('Covered by 1 decision').waitFor();
      await page.locator('td', { hasText: markup }).first().waitFor();
      expect(await page.locator('main img, main script').count()).toBe(0);
    }
    expect(troubles).toEqual([]);
    await page.close();
    await lapidary.operator('DELETE', `/decisions?value=${encodeURIComponent(markup)}`);
    await engine.unban('198.51.100.99');
  });

  const paths = [
    ...['/', '/lookup', '/lookup?value=192.0.2.77', '/lookup?value=203.0.113.200', '/lookup?value=1.2'],
    ...['/bouncers', '/bouncers/web-7', '/bouncers/paused', '/new-bouncer', '/decisions', '/ban', '/unban'],
    '/engines',
    ...['/hosts', '/rotations', '/rotations/1', '/audit', '/audit/verify', '/operators'],
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
      await picture(
        page,
        `${name.replaceAll(/[^\w-]/g, '-').replace(/^-/, '') || 'overview'}-${colorScheme}-${width}`,
      );
    };
    await page.goto(`${lapidary.url}/console/`);
    await look('sign-in');
    await signIn(page, await operatorToken());
    for (const path of paths) {
      await page.goto(`${lapidary.url}/console${path}`);
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
