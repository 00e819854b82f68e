// The console's pages before very much of everything: each is as long as it is with little, and quick. The whole, with the
// times asserted: CONSOLE_BOUNCERS=10000 CONSOLE_DECISIONS=100000.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cpuSeconds } from '../bench/cpu.ts';
import { median } from '../bench/table.ts';
import { describeWith } from '../lab/ability.ts';
import {
  type BigInstallation,
  busiest,
  crowded,
  nameOf,
  openBigInstallation,
  withheld,
} from '../lab/big-installation.ts';

const bouncers = Number(process.env['CONSOLE_BOUNCERS'] ?? 200);
const decisions = Number(process.env['CONSOLE_DECISIONS'] ?? 5000);
const isTimed = process.env['CONSOLE_BOUNCERS'] !== undefined;
const patienceMs = 120_000 + 40 * bouncers + 4 * decisions;

/** Nothing is said of the time of one. */
const loads = isTimed ? 5 : 1;
const mostMs = 300;
const mostBytes = 150_000;

const pages: readonly string[] = [
  '/',
  `/lookup?value=${crowded}`,
  '/lookup?value=2001:db8:10:0::1',
  `/lookup?value=2001:db8:10:0::1&after=${bouncers / 2}`,
  `/lookup?value=${encodeURIComponent(withheld)}`,
  '/lookup?value=198.51.100.1',
  '/lookup?value=FR',
  '/lookup?value=AS64500',
  '/bouncers',
  ...['-name', 'pull', '-pull', 'lag', '-lag', 'key', '-key'].map((sort) => `/bouncers?sort=${sort}`),
  ...['seen', 'silent', 'unseen', 'paused', 'keyless'].map((state) => `/bouncers?state=${state}`),
  '/bouncers?q=nginx',
  `/bouncers?page=${Math.floor(bouncers / 50) - 1}`,
  `/bouncers/${nameOf(0)}`,
  `/bouncers/${busiest}`,
  '/new-bouncer',
  '/decisions',
  ...['ends-first', 'ends-last', 'most-decisions'].map((order) => `/decisions?order=${order}`),
  `/decisions?value=${crowded}`,
  '/decisions?value=FR',
  '/decisions?origin=lists',
  '/decisions?origin=nobody',
  '/decisions?scenario=scenario-7',
  '/decisions?type=captcha',
  '/decisions?engine=default',
  '/decisions?scope=Country',
  '/ban',
  '/unban',
  '/allow-list',
  `/allow-list?after=${bouncers - 50}`,
  '/allow-list/1',
  `/allow-list/${bouncers}`,
  '/engines',
  '/hosts',
  '/hosts?state=registered',
  '/hosts?state=clone-suspected',
  `/hosts?after=${bouncers - 60}`,
  '/enrolments',
  '/enrolments?after=50',
  '/rotations',
  '/rotations/1',
  '/rotations/1?state=waiting&page=3',
  '/audit',
  '/audit?actor=token:operator-1',
  '/audit?action=decision.ban',
  '/audit?target=bouncer-7',
  '/audit?actor=token:operator-1&action=decision.ban',
  '/audit?actor=nobody',
  `/audit?before=${5 * bouncers}`,
  '/operators',
  '/operators?after=5',
];

/** Pages that have nothing to show, and what they say instead. */
const empty = [
  '/lookup?value=198.51.100.1',
  '/bouncers?state=silent',
  '/decisions?origin=nobody',
  '/audit?actor=token:operator-1&action=decision.ban',
  '/audit?actor=nobody',
];
const nothing =
  /Nothing that is known here|No (row|bouncer) is like that|None is (like that|in that state)|There are no more|>There is none/;

describeWith(`the console of ${bouncers} bouncers and ${decisions} decisions`, ['lab', 'sqlite'], () => {
  let installation: BigInstallation;
  let cookie: string;
  beforeAll(async () => {
    installation = await openBigInstallation({ bouncers, decisions });
    const token = await readFile(join(installation.lapidary.stateDir, 'operator-token'), 'utf8');
    const body = new URLSearchParams({ token: token.trim() });
    const headers = { 'sec-fetch-site': 'same-origin' };
    const url = `${installation.lapidary.url}/console/sign-in`;
    const { headers: answered } = await fetch(url, { method: 'POST', redirect: 'manual', body, headers });
    cookie = (answered.get('set-cookie') ?? '').split(';')[0] as string;
  }, patienceMs);
  afterAll(() => installation?.close());

  async function get(path: string): Promise<string> {
    const response = await fetch(`${installation.lapidary.url}/console${path}`, { headers: { cookie } });
    const text = await response.text();
    expect([path, response.status]).toEqual([path, 200]);
    return text;
  }

  async function measure(path: string) {
    const { workerd } = await installation.lapidary.pids();
    const times: number[] = [];
    let cpuMs = 0;
    let text = '';
    for (let at = 0; at < loads; at++) {
      // What was kept of all bouncers does not count after a change.
      if (isTimed) await installation.lapidary.ban('203.0.113.1');
      const [startedMs, cpuBefore] = [performance.now(), cpuSeconds(workerd)];
      text = await get(path);
      times.push(performance.now() - startedMs);
      cpuMs += (1000 * (cpuSeconds(workerd) - cpuBefore)) / loads;
    }
    const [first] = times;
    return {
      path,
      ms: median(times),
      first,
      cpuMs,
      bytes: Buffer.byteLength(text),
      isEmpty: nothing.test(text),
    };
  }

  it(
    'has pages of a bounded length, wherever one is in a list, which come at once',
    async () => {
      const found = [];
      for (const path of pages) found.push(await measure(path));
      const lines = found.map(
        ({ path, ms, first, cpuMs, bytes }) =>
          [ms, first ?? 0, cpuMs, bytes].map((n) => String(Math.round(n)).padStart(8)).join('') + `  ${path}`,
      );
      console.log(['      ms   first     cpu   bytes', ...lines].join('\n'));
      expect(found.filter(({ bytes }) => bytes > mostBytes)).toEqual([]);
      expect(found.filter(({ isEmpty }) => isEmpty).map(({ path }) => path)).toEqual(empty);
      // On a machine that does other things, too, what counts is what it did for this.
      if (isTimed) expect(found.filter(({ ms, cpuMs }) => Math.min(ms, cpuMs) > mostMs)).toEqual([]);
    },
    patienceMs,
  );
});
