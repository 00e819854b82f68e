// Lists as appliances get them from `npm start`: each kind as it asks, through bans, unbans, a rotation, trouble and a wrong
// key; what is on the wire; very many at once; and a list that is very long.
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { residentBytes } from '../bench/cpu.ts';
import { describeWith } from '../lab/ability.ts';
import { ask, kinds, startAppliance } from '../lab/appliances.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { startListEngine, type ListEngine } from '../lab/list-engine.ts';
import { nftCommand, openNamespace } from '../lab/netns.ts';
import { startRouter } from '../lab/router.ts';
import { ipsetCommand, proxyNames, startProxy } from '../lab/readers.ts';
import { until } from '../lab/wait.ts';

const basic = (key: string) => ({ authorization: `Basic ${Buffer.from(`any:${key}`).toString('base64')}` });

/** As many decisions as LIST_LINES says. */
const count = Number(process.env['LIST_LINES'] ?? 20_000);
const patienceMs = 120_000 + count;

const valueAt = (at: number): string => `2001:db8::${(at >> 16).toString(16)}:${(at & 0xffff).toString(16)}`;

describe('appliances', () => {
  let lapidary: Lapidary;
  let key: string;
  beforeAll(async () => {
    lapidary = await startLapidary();
    key = await lapidary.addBouncer('device');
  });
  afterAll(() => lapidary.close());

  const all = ['192.0.2.1', '192.0.2.7', '2001:db8::1'];
  const readBy = (name: string) =>
    all.filter((value) => !value.includes(':') || !['sophos', 'checkpoint'].includes(name));

  test('each has every ban, and each unban, up to the last one', async () => {
    const devices = Object.entries(kinds).map(([name, kind]) => {
      return [name, startAppliance(lapidary.url, kind, key)] as const;
    });
    const refreshed = async () => {
      for (const [, device] of devices) await device.refresh();
      return Object.fromEntries(devices.map(([name, device]) => [name, device.bans()]));
    };
    const each = (bans: (name: string) => string[]) =>
      Object.fromEntries(devices.map(([name]) => [name, bans(name)]));

    for (const value of all) await lapidary.ban(value);
    expect(await refreshed()).toEqual(each(readBy));
    expect(await refreshed()).toEqual(each(readBy));
    await lapidary.unban('192.0.2.1');
    expect(await refreshed()).toEqual(each((name) => readBy(name).slice(1)));
    for (const value of all.slice(1)) await lapidary.unban(value);
    expect(await refreshed()).toEqual(
      each((name) => (['cisco', 'pfsense'].includes(name) ? ['192.0.2.1'] : [])),
    );
    const statuses = Object.fromEntries(devices.map(([name, device]) => [name, device.statuses]));
    expect(statuses['fortigate']).toEqual([200, 304, 200, 200]);
    // HEAD and GET where something changed.
    expect(statuses['juniper']).toEqual([200, 200, 200, 200, 200, 200, 200]);
    expect(statuses['opnsense']).toEqual([200, 200, 200, 200]);
  });

  test('a rotation loses none that changes its password within the grace; a wrong one costs Palo Alto its list', async () => {
    await lapidary.ban('192.0.2.1');
    const old = await lapidary.addBouncer('rotated');
    const device = startAppliance(lapidary.url, kinds['paloalto']!, old);
    await device.refresh();
    const { body } = await lapidary.operator('POST', '/bouncers/rotated/rotate', { grace: '1h' });
    await device.refresh();
    device.password(body.key);
    await device.refresh();
    expect([device.statuses, device.bans()]).toEqual([[200, 200, 200], ['192.0.2.1']]);
    device.password(`${old}x`);
    await device.refresh();
    expect([device.statuses.at(-1), device.bans()]).toEqual([401, []]);
    await lapidary.unban('192.0.2.1');
  });

  test('RouterOS has each ban and each unban by the script of its page, of IPv6 alone, too; a refused fetch costs it none', async () => {
    const router = startRouter(lapidary.url, key);
    const has = async (values: string[]) => {
      expect([await router.run(), router.bans()]).toEqual([true, values]);
    };
    await has([]);
    for (const value of all) await lapidary.ban(value);
    await has(all);
    await has(all);
    await lapidary.unban('192.0.2.1');
    await has(all.slice(1));
    await lapidary.unban('192.0.2.7');
    await has(['2001:db8::1']);
    await lapidary.ban('2001:db8::2');
    await has(['2001:db8::1', '2001:db8::2']);
    for (const value of ['2001:db8::1', '2001:db8::2']) {
      await lapidary.unban(value);
      await has(value === '2001:db8::1' ? ['2001:db8::2'] : []);
    }
    await lapidary.ban('192.0.2.1');
    await has(['192.0.2.1']);
    const hour = 3_600_000;
    expect([router.bans(Date.now() + 3.9 * hour), router.bans(Date.now() + 4.1 * hour)]).toEqual([
      ['192.0.2.1'],
      [],
    ]);
    const pause = async (paused: boolean) => {
      const any = { 'if-match': '*' };
      const { status } = await lapidary.operator('PATCH', '/bouncers/device', { paused }, any);
      expect(status).toBe(200);
    };
    await pause(true);
    expect([await router.run(), router.statuses.at(-1), router.bans()]).toEqual([false, 403, ['192.0.2.1']]);
    await pause(false);
    await has(['192.0.2.1']);
  });

  test('HEAD has the length of GET on the wire, and gzip comes to who asks for it', async () => {
    await lapidary.ban('192.0.2.1');
    await lapidary.ban('198.51.100.0/24', { scope: 'Range' });
    const url = `${lapidary.url}/lists/juniper.txt`;
    // It has no date in the second in which it changed.
    await until(
      'it has a date',
      async () => (await ask(url, basic(key))).headers['last-modified'] !== undefined,
    );
    const whole = await ask(url, basic(key));
    const head = await ask(url, basic(key), 'HEAD');
    expect({ ...head.headers, date: null }).toEqual({ ...whole.headers, date: null });
    expect([head.status, head.body.length, whole.headers['content-length']]).toEqual([
      200,
      0,
      String(whole.body.length),
    ]);
    expect(whole.headers['transfer-encoding']).toBeUndefined();
    expect(whole.headers['content-encoding']).toBeUndefined();
    const packed = await ask(url, { ...basic(key), 'accept-encoding': 'gzip' });
    expect(packed.headers['content-encoding']).toBe('gzip');
    expect(packed.headers['content-length']).toBe(String(packed.body.length));
    expect(gunzipSync(packed.body).toString()).toBe(whole.body.toString());
    const same = await ask(url, { ...basic(key), 'if-none-match': String(whole.headers['etag']) });
    expect([same.status, same.body.length, same.headers['etag']]).toEqual([304, 0, whole.headers['etag']]);
    await lapidary.unban('198.51.100.0/24');
  });

  test('two hundred at once', async () => {
    for (let index = 1; index <= 50; index++) await lapidary.ban(`203.0.113.${index}`);
    const names = Object.keys(kinds);
    const devices = Array.from({ length: 200 }, (_, index) =>
      startAppliance(lapidary.url, kinds[names[index % names.length]!]!, key),
    );
    await Promise.all(devices.map((device) => device.refresh()));
    expect(devices.filter((device) => device.bans().length !== 51).length).toBe(0);
    for (let index = 1; index <= 50; index++) await lapidary.unban(`203.0.113.${index}`);
  });
});

describe(`an engine with ${count} decisions`, () => {
  let engine: ListEngine;
  let lapidary: Lapidary;
  beforeAll(async () => {
    engine = await startListEngine(count, (at) => valueAt(at + 1));
    engine.trouble = true;
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: 'key-of-the-feed' },
      settings: { SYNC_INTERVAL_SECONDS: '5', MAX_DECISIONS: String(2 * count) },
    });
  }, patienceMs);
  afterAll(async () => {
    await lapidary.close();
    await engine.close();
  });

  test(
    'is a 503 before its list is known, a whole list after, and that list while it is in trouble',
    async () => {
      const key = await lapidary.addBouncer('device');
      const url = `${lapidary.url}/lists/plain`;
      const cold = await ask(url, basic(key));
      expect([cold.status, Number(cold.headers['retry-after']) > 0]).toEqual([503, true]);
      const device = startAppliance(lapidary.url, kinds['paloalto']!, key);
      await device.refresh();
      expect(device.statuses).toEqual([503]);

      engine.trouble = false;
      await until('the feed is fresh', async () => (await lapidary.health()).feed === 'fresh', patienceMs);
      const residentMb = async (): Promise<number> =>
        Math.round(residentBytes((await lapidary.pids()).workerd) / 1e6);
      const beforeMb = await residentMb();
      const startedMs = Date.now();
      const list = await ask(url, basic(key));
      const lines = list.body.toString().split('\n').slice(0, -1);
      const seconds = Math.round((Date.now() - startedMs) / 1000);
      const mb = await residentMb();
      console.log(
        `a list of ${count} lines: after ${seconds} s; the process has ${mb} MB, ${beforeMb} MB before`,
      );
      expect([list.status, lines.length, list.headers['content-length']]).toEqual([
        200,
        count,
        String(list.body.length),
      ]);
      const expected = new Set(
        Array.from({ length: count }, (_, at) => valueAt(at + 1)).map((value) =>
          new URL(`http://[${value}]`).hostname.slice(1, -1),
        ),
      );
      expect(lines.filter((line) => !expected.has(line))).toEqual([]);
      const merged = await ask(`${url}?aggregate=1`, basic(key));
      expect(merged.body.toString().split('\n').length).toBeLessThan(60);

      engine.trouble = true;
      await lapidary.sync({ full: true });
      const later = await ask(url, { ...basic(key), 'if-none-match': String(list.headers['etag']) });
      expect(later.status).toBe(304);
      const again = await ask(url, basic(key));
      expect(createHash('sha256').update(again.body).digest('hex')).toBe(
        createHash('sha256').update(list.body).digest('hex'),
      );
    },
    3 * patienceMs,
  );
});

describeWith('a set of nftables', ['netns'], () => {
  test('takes the lists as they come', async () => {
    const lapidary = await startLapidary();
    const namespace = await openNamespace(Number(new URL(lapidary.url).port));
    try {
      const key = await lapidary.addBouncer('host');
      for (const value of ['192.0.2.0', '192.0.2.1', '203.0.113.9', '2001:db8::1']) await lapidary.ban(value);
      for (const value of ['198.51.100.0/24', '2001:db8:1::/48'])
        await lapidary.ban(value, { scope: 'Range' });
      const [nft = '', ...args] = await nftCommand();
      const run = (script: string) =>
        namespace.run('sh', ['-c', 'printf "%s" "$0" | "$@"', script, nft, ...args, '-f', '-']);
      await run(
        'table inet t { set v4 { type ipv4_addr; flags interval; }; set v6 { type ipv6_addr; flags interval; }; }\n',
      );
      for (const family of [4, 6]) {
        const { body } = await ask(`${lapidary.url}/lists/plain?family=${family}&aggregate=1`, basic(key));
        const lines = body.toString().split('\n').slice(0, -1);
        await run(lines.map((line) => `add element inet t v${family} { ${line} }\n`).join(''));
        const set = await namespace.run(nft, [...args, 'list', 'set', 'inet', 't', `v${family}`]);
        const elements = /elements = \{([^}]*)\}/.exec(set)?.[1] ?? '';
        expect(elements.split(',').map((element) => element.trim())).toEqual(lines);
      }
    } finally {
      await namespace.close();
      await lapidary.close();
    }
  });
});

describeWith('programs of hosts', ['readers'], () => {
  let lapidary: Lapidary;
  let key: string;
  beforeAll(async () => {
    lapidary = await startLapidary();
    key = await lapidary.addBouncer('host');
  });
  afterAll(() => lapidary.close());

  const list = async (search = '') =>
    (await ask(`${lapidary.url}/lists/plain${search}`, basic(key))).body.toString();

  test.each(proxyNames)(
    '%s refuses whom a list bans, and nobody who is allowed or unbanned',
    async (name) => {
      await lapidary.ban('198.51.100.0/24', { scope: 'Range' });
      for (const value of ['192.0.2.1', '2001:db8::1']) await lapidary.ban(value);
      const comment = 'office';
      const { body } = await lapidary.operator('POST', '/allowlist', {
        value: '198.51.100.7',
        comment,
        force: true,
      });
      const clients = [
        '192.0.2.1',
        '192.0.2.2',
        '198.51.100.6',
        '198.51.100.7',
        '198.51.100.8',
        '2001:db8::1',
        '2001:db8::2',
      ];
      const refused = async () => {
        const proxy = await startProxy(name, await list());
        const found: string[] = [];
        for (const client of clients) if (await proxy.refuses(client)) found.push(client);
        await proxy.close();
        return found;
      };
      expect(await refused()).toEqual(['192.0.2.1', '198.51.100.6', '198.51.100.8', '2001:db8::1']);
      for (const value of ['192.0.2.1', '198.51.100.0/24', '2001:db8::1']) await lapidary.unban(value);
      expect(await refused()).toEqual([]);
      await lapidary.operator('DELETE', `/allowlist/${body.entry.id}`);
    },
  );

  describeWith('a set of ipset', ['netns'], () => {
    test('takes a list in one restore', async () => {
      const values = ['192.0.2.0', '192.0.2.1', '203.0.113.9', '2001:db8::1'];
      for (const value of values) await lapidary.ban(value);
      const namespace = await openNamespace(Number(new URL(lapidary.url).port));
      try {
        const [env = '', ...command] = await ipsetCommand();
        for (const [family, version] of [
          ['inet', 4],
          ['inet6', 6],
        ] as const) {
          const lines = (await list(`?family=${version}&aggregate=1`)).split('\n').slice(0, -1);
          const script = [
            `create bans${version} hash:net family ${family}`,
            ...lines.map((line) => `add bans${version} ${line}`),
          ];
          const restore = ['-c', 'printf "%s\\n" "$0" | "$@"', script.join('\n'), env, ...command, 'restore'];
          await namespace.run('sh', restore);
          const saved = await namespace.run(env, [...command, 'save', `bans${version}`]);
          expect([...saved.matchAll(/^add \S+ (\S+)/gm)].map(([, line]) => line).sort()).toEqual(
            lines.toSorted(),
          );
        }
      } finally {
        await namespace.close();
      }
    });
  });
});
