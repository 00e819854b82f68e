// Public lists as upstreams: a list bans what it has, for as long as it has it, and whatever goes wrong at its server
// unbans nobody.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { parseDuration } from '../../src/formats/duration.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { addresses, startModelList, type ModelList } from '../support/model-list.ts';
import { everything } from '../support/bouncer.ts';
import {
  awakeFeed,
  engineStatus,
  hour,
  listed,
  reader,
  sync,
  until,
  values,
  wake,
} from '../support/several.ts';

const minute = 60_000;
const drop = { kind: 'list', name: 'drop', url: 'https://lists.example/drop.txt', allow_reserved: true };
let list: ModelList;
let engine: ModelEngine;

beforeEach(() => {
  ({ 'a.example': engine } = startModelEngines('a.example'));
  list = startModelList('lists.example', addresses(10).join('\n'));
  vi.useFakeTimers({ toFake: ['Date'] });
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const status = () => engineStatus('drop');
/** A round as the alarm has it: the list is asked if its time has come. */
const round = () => sync('drop', { full: false });
const alone = <T>(use: () => Promise<T>, entry: object = drop) => wake({}, use, [entry]);

test('a list bans, as a decision of the origin `lists` with its name as the scenario', async () => {
  list.text = '# a comment\n198.51.100.7\n203.0.113.0/24 ; SBL1\n2001:db8::/48\n';
  await alone(async () => {
    const client = reader();
    expect(await round()).toMatchObject({ ok: true, added: 3, removed: 0 });
    await client.pull(true);
    expect(client.decisions()).toEqual([
      expect.objectContaining({
        value: '198.51.100.7',
        scope: 'Ip',
        type: 'ban',
        origin: 'lists',
        scenario: 'drop',
      }),
      expect.objectContaining({ value: '203.0.113.0/24', scope: 'Range' }),
      expect.objectContaining({ value: '2001:db8::/48', scope: 'Range' }),
    ]);
    expect(status()).toMatchObject({ kind: 'list', freshness: 'fresh', link: 'ok', decisions: 3, key: null });
  });
});

test('what it takes back is unbanned, what it adds is banned, and the rest is not said again', async () => {
  await alone(async () => {
    const client = reader();
    await round();
    await client.pull(true);
    const before = client.decisions();
    pass(2 * hour);
    list.text = [...addresses(9), '203.0.113.9'].join('\n');
    expect(await round()).toMatchObject({ ok: true, added: 1, removed: 1 });
    const { added, ended } = await client.pull(false);
    expect([added, ended].map((all) => all.map(({ value }) => value))).toEqual([
      ['203.0.113.9'],
      ['198.51.100.9'],
    ]);
    expect(
      client
        .decisions()
        .slice(0, 9)
        .map(({ id }) => id),
    ).toEqual(before.slice(0, 9).map(({ id }) => id));
  });
});

describe('its server', () => {
  test('is asked once in an interval, and not again by a restart', async () => {
    await alone(round);
    for (let wakes = 0; wakes < 3; wakes++) await alone(round);
    expect(list.requests).toHaveLength(1);
    pass(2 * hour);
    await alone(round);
    expect(list.requests).toHaveLength(2);
  });

  test('is asked with a condition, and an unchanged list bans on, under the ids that bouncers know', async () => {
    let first: ReturnType<typeof listed> = [];
    await alone(async () => {
      await round();
      first = listed();
    });
    for (let times = 0; times < 60; times++) {
      pass(2 * hour);
      await alone(round);
    }
    expect([list.requests.length, list.sent]).toEqual([61, 1]);
    await alone(async () => {
      expect(listed().map(({ id, value }) => ({ id, value }))).toEqual(
        first.map(({ id, value }) => ({ id, value })),
      );
      for (const { untilMs } of listed()) expect(untilMs - Date.now()).toBeGreaterThan(2 * hour);
      expect(status()).toMatchObject({ freshness: 'fresh', lastError: null });
    });
  });

  test('sends all again when the settings read the same text in another way', async () => {
    list.text = '198.51.100.1\n9.9.9.9\n';
    await alone(round);
    await alone(
      async () => {
        pass(2 * hour);
        await round();
        expect(values()).toEqual(['9.9.9.9']);
      },
      { ...drop, allow_reserved: false },
    );
    expect(list.sent).toBe(2);
  });

  test('is left alone for as long as it wants', async () => {
    list.fault = () => new Response(null, { status: 429, headers: { 'retry-after': String(6 * 3600) } });
    await alone(async () => {
      expect(await round()).toMatchObject({ ok: false, error: 'the list answers with status 429' });
      pass(5 * hour);
      await round();
      expect(list.requests).toHaveLength(1);
      pass(2 * hour);
      await round();
      expect(list.requests).toHaveLength(2);
    });
  });

  test('is asked once more by an operator, at most once a minute', async () => {
    await alone(async () => {
      await round();
      expect((await sync('drop')).warning).toMatch(/the list may be asked again in/);
      pass(minute);
      expect((await sync('drop')).warning).toBeNull();
      expect(list.requests).toHaveLength(2);
    });
  });

  test.each([
    ['back, by ten years', -10 * 365 * 24 * hour],
    ['back, by a minute', -minute],
  ])('is asked no more often and goes on being asked when the clock is set %s', async (_, step) => {
    await alone(async () => {
      await round();
      pass(step);
      for (let times = 0; times < 6; times++) {
        await round();
        pass(9 * minute);
      }
      expect(list.requests).toHaveLength(1);
      pass(30 * minute);
      await round();
      expect(list.requests).toHaveLength(2);
      expect(values()).toHaveLength(10);
    });
  });

  test('gets its headers, and another host that it redirects to does not', async () => {
    const other = startModelList('mirror.example', '203.0.113.1\n');
    list.fault = () =>
      new Response(null, { status: 302, headers: { location: 'https://mirror.example/drop' } });
    await alone(
      async () => {
        await round();
        expect(values()).toEqual(['203.0.113.1']);
      },
      { ...drop, headers: { authorization: 'hidden' } },
    );
    const sent = [list, other].map(({ requests }) =>
      requests.map(({ headers }) => headers.get('authorization')),
    );
    expect(sent).toEqual([['hidden'], [null]]);
  });
});

const text = (body: string, type = 'text/plain') => new Response(body, { headers: { 'content-type': type } });
const redirect = (location: string) => () => new Response(null, { status: 301, headers: { location } });

describe('nobody is unbanned by', () => {
  test.each<[string, string, ModelList['fault']]>([
    ['a server that is away', 'is out of reach', () => Promise.reject(new Error('down'))],
    ['an error', 'answers with status 500', () => new Response('198.51.100.1', { status: 500 })],
    ['a list that is gone', 'answers with status 404', () => new Response(null, { status: 404 })],
    ['a part', 'answers with status 206', () => new Response('198.51.100.1', { status: 206 })],
    ['a 304 that nobody asked for', 'answers with status 304', () => new Response(null, { status: 304 })],
    ['a web page', 'is a web page', () => text('198.51.100.1', 'text/html; charset=utf-8')],
    [
      'a page that says it is text',
      'has more lines that begin with no address',
      () => text('<html>\n<p>sign in</p>\n</html>\n'),
    ],
    ['a text that is too large', 'has more than 20 addresses', () => text(addresses(200).join('\n'))],
    [
      'a redirect away from https',
      'redirects to an address that is not https',
      redirect('http://lists.example/drop.txt'),
    ],
    ['a redirect to nowhere', 'redirects to an address that is not https', redirect('file:///etc/passwd')],
    ['redirects without an end', 'redirects more than 3 times', redirect('https://lists.example/again')],
    [
      'an answer that breaks off',
      'is out of reach',
      () => {
        const parts = [new TextEncoder().encode('198.51.100.1\n')];
        const pull = (c: ReadableByteStreamController) => {
          const part = parts.pop();
          if (part) c.enqueue(part);
          else c.error(new Error('cut off'));
        };
        return new Response(new ReadableStream({ type: 'bytes', pull }));
      },
    ],
  ])('%s', async (_, error, fault) => {
    const entry = { ...drop, max_decisions: 20 };
    // With a condition a 304 is an answer.
    list.etags = false;
    await alone(async () => {
      await round();
      list.fault = fault;
      for (let times = 0; times < 12; times++) {
        pass(2 * hour);
        await round();
      }
      expect(values()).toHaveLength(10);
      expect(status()).toMatchObject({ link: 'failing', freshness: 'stale' });
      expect(status()?.lastError).toContain(`the list ${error}`);
      list.fault = undefined;
      pass(2 * hour);
      await round();
      expect(status()).toMatchObject({ link: 'ok', freshness: 'fresh', lastError: null });
    }, entry);
  });

  test.each<[string, string[]]>([
    ['an empty list that may be empty', []],
    ['one that shrank by more than half', addresses(4)],
    ['one of other addresses that is less than half as long', addresses(4, 100)],
  ])('%s, until a second fetch has the same', async (_, after) => {
    const entry = { ...drop, may_be_empty: true };
    await alone(async () => {
      await round();
      list.text = after.join('\n');
      pass(2 * hour);
      expect((await round()).warning).toMatch(/kept until a second one agrees/);
      for (const value of addresses(10)) expect(values()).toContain(value);
      expect(status()).toMatchObject({ lastError: expect.stringContaining('kept') });
      // Soon, and in full: the server's word that nothing has changed would confirm nothing.
      pass(6 * minute);
      expect((await round()).warning).toBeNull();
      expect(values()).toEqual(after.filter((line) => !line.startsWith('#')).sort());
      expect(list.sent).toBe(3);
    }, entry);
  });

  test.each([
    ['an empty text', ''],
    ['a list of comments', '# gone'],
    ['a list of nobody’s networks alone', '10.0.0.0/8'],
  ])('%s, however often it comes, unless an operator says that it may', async (_, after) => {
    const entry = { ...drop, allow_reserved: false };
    list.text = '9.9.9.9\n';
    await alone(async () => {
      await round();
      list.text = after;
      for (let times = 0; times < 12; times++) {
        pass(2 * hour);
        await round();
      }
      expect(values()).toEqual(['9.9.9.9']);
      expect(status()).toMatchObject({ link: 'failing', freshness: 'stale' });
      expect(status()?.lastError).toContain('"may_be_empty": true');
      pass(2 * hour);
      await sync('drop', { force: true });
      expect(values()).toEqual([]);
      expect(status()).toMatchObject({ link: 'ok', freshness: 'fresh', lastError: null });
    }, entry);
  });

  test.each([
    ['eight of ten are left where a length says that they are all', true, 8, 8],
    ['eight of ten, where nothing says whether it was cut', false, 8, 10],
    ['nine of ten, likewise', false, 9, 9],
  ])('a cut: of %s', async (_, lengths, left, kept) => {
    await alone(async () => {
      await round();
      list.lengths = lengths;
      list.text = addresses(left).join('\n');
      pass(2 * hour);
      await round();
      expect(values()).toHaveLength(kept);
      pass(6 * minute);
      await round();
      expect(values()).toHaveLength(left);
    });
  });

  test('one that was empty for a moment', async () => {
    await alone(async () => {
      const client = reader();
      await round();
      await client.pull(true);
      const before = list.text;
      list.text = '';
      pass(2 * hour);
      await round();
      list.text = before;
      pass(6 * minute);
      await round();
      await client.pullAll();
      expect(client.banned()).toEqual(addresses(10));
      expect(status()).toMatchObject({ freshness: 'fresh', lastError: null });
    });
  });
});

test('a list that changes as a whole is taken at once', async () => {
  await alone(async () => {
    await round();
    list.text = addresses(10, 100).join('\n');
    pass(2 * hour);
    expect((await round()).warning).toBeNull();
    expect(values()).toEqual(addresses(10, 100));
  });
});

test.each([
  ['that is gone', () => Promise.reject(new Error('down'))],
  ['that is empty', () => text('')],
])('bans outlast a list %s by a week, at every bouncer, and end then', async (_, fault) => {
  await alone(async () => {
    const client = reader();
    await round();
    const ends = new Map<string, number>();
    const hear = async (startup: boolean): Promise<void> => {
      const { added, ended } = await client.pull(startup);
      for (const { value, duration } of added) ends.set(value, Date.now() + (parseDuration(duration) ?? 0));
      for (const { value } of ended) ends.delete(value);
    };
    await hear(true);
    list.fault = fault;
    // Each round looks at the clock, or the next look would take the time for a step of the clock.
    for (let hours = 2; hours < 7 * 24; hours += 2) {
      pass(2 * hour);
      await round();
      await hear(false);
      expect(values()).toHaveLength(10);
      expect([...ends.values()].filter((end) => end > Date.now())).toHaveLength(10);
    }
    expect(status()).toMatchObject({ freshness: 'stale', link: 'failing', ageSeconds: 166 * 3600 });
    // Not with each round: to every bouncer each is a change of all of them.
    expect(awakeFeed().status().sequence).toBeLessThan(10 * 8);
    const left: number[] = [];
    for (let hours = 0; hours < 6; hours += 2) {
      pass(2 * hour);
      await round();
      left.push(values().length);
    }
    expect(left.at(-1)).toBe(0);
  });
});

test('lines that can’t be read are counted, and cost themselves', async () => {
  list.text = `ip,score\n${list.text}\nexample.net\n`;
  await alone(async () => {
    await round();
    expect(status()).toMatchObject({
      decisions: 10,
      skipped: 2,
      skippedSample: 'line 1 begins with no address',
    });
  });
});

describe('a list that was never read', () => {
  const fail = () => {
    list.fault = () => new Response(null, { status: 503 });
  };

  test('makes no view cold, and says so of itself alone', async () => {
    fail();
    engine.add({ value: '192.0.2.1', untilMs: until() });
    await wake(
      { default: 'a.example' },
      async () => {
        await sync('default');
        const client = reader();
        await client.pull(true);
        expect(client.banned()).toEqual(['192.0.2.1']);
        await round();
        expect(engineStatus('drop')).toMatchObject({ freshness: 'cold', link: 'failing' });
        expect(awakeFeed().status()).toMatchObject({ freshness: 'stale', ageSeconds: 0 });
        expect(await awakeFeed().lookupFilter()).not.toBeNull();
      },
      [drop],
    );
  });

  test('leaves a view cold that has an engine which is', async () => {
    engine.fault = () => Promise.reject(new Error('down'));
    await wake(
      { default: 'a.example' },
      async () => {
        await round();
        const client = reader();
        await client.pull(false);
        pass(25_000);
        await expect(client.pull(true)).rejects.toThrow();
      },
      [drop],
    );
  });

  test('leaves a view cold that has nothing else, whether it waits for it or not', async () => {
    fail();
    engine.add({ value: '192.0.2.1', untilMs: until() });
    const ofDrop = () => reader({ view: { ...everything, engines: ['drop'] } });
    await wake(
      { default: 'a.example' },
      async () => {
        await sync('default');
        await expect(ofDrop().pull(true)).rejects.toThrow();
        await round();
        await expect(ofDrop().pull(true)).rejects.toThrow();
        expect(await awakeFeed().lookupFilter()).toMatchObject({ isForAll: false });
        list.fault = undefined;
        pass(2 * minute);
        await round();
        const client = ofDrop();
        await client.pull(true);
        expect(client.banned()).toEqual(addresses(10));
        // Read once, it is known from then on.
        fail();
        pass(2 * hour);
        await round();
        await client.pull(true);
        expect(client.banned()).toEqual(addresses(10));
        expect(await awakeFeed().lookupFilter()).toMatchObject({ isForAll: true });
      },
      [drop],
    );
  });

  test('is all that there is: nobody knows who is banned', async () => {
    fail();
    await alone(async () => {
      await expect(reader().pull(true)).rejects.toThrow();
      expect(awakeFeed().status().freshness).toBe('cold');
      expect(await awakeFeed().lookupFilter()).toBeNull();
    });
  });

  test('is waited for by the first start-up', async () => {
    await alone(async () => {
      const client = reader();
      await client.pull(true);
      expect(client.banned()).toEqual(addresses(10));
    });
  });
});

test('an engine that comes later keeps its ids, since a list has none', async () => {
  await alone(round);
  engine.add({ value: '192.0.2.1', untilMs: until() });
  await wake(
    { default: 'a.example' },
    async () => {
      await sync('default');
      expect(listed().find(({ value }) => value === '192.0.2.1')?.id).toBe(1);
    },
    [drop],
  );
});

test('a list under another name is the same list with another scenario, and bouncers hear of nothing that ends', async () => {
  const client = reader();
  await alone(async () => {
    await round();
    await client.pull(true);
  });
  await alone(
    async () => {
      pass(2 * hour);
      await sync();
      const { ended } = await client.pull(false);
      expect(ended).toEqual([]);
      expect(new Set(client.decisions().map(({ scenario }) => scenario))).toEqual(new Set(['edrop']));
      expect(client.banned()).toEqual(addresses(10));
    },
    { ...drop, name: 'edrop' },
  );
});
