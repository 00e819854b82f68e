// Hosted integrations as upstreams: one pull in an interval whatever happens here, and whatever goes wrong there unbans
// nobody.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { startModelEngines } from '../support/model-engine.ts';
import { communityList, startModelHosted, type ModelHosted } from '../support/model-hosted.ts';
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
const day = 24 * hour;
const cloud = {
  kind: 'hosted',
  name: 'cloud',
  url: 'https://hosted.example/v1/integrations/1',
  key: 'hidden-key',
};
let hosted: ModelHosted;

beforeEach(() => {
  startModelEngines('a.example');
  hosted = startModelHosted('hosted.example', cloud.key);
  hosted.decisions = communityList(10);
  vi.useFakeTimers({ toFake: ['Date'] });
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const status = (name = 'cloud') => engineStatus(name);
/** A round as the alarm has it: it is asked if its time has come. */
const round = (name = 'cloud') => sync(name, { full: false });
const alone = <T>(use: () => Promise<T>, ...entries: object[]) =>
  wake({}, use, entries.length === 0 ? [cloud] : entries);
/** Time in which the feed looks at its clock all along. A jump would be a step of the clock, after which nothing ends. */
const goOn = (ms: number) => {
  for (let passedMs = 0; passedMs <= ms; passedMs += 50_000) {
    pass(50_000);
    values();
  }
};
/** To the moment at which the next pull is surely due. */
const nextDay = () => pass(day + 11 * minute);

test('what it gives is served as it says it, and its key goes in a header', async () => {
  const own = {
    origin: 'crowdsec',
    scenario: 'x/ssh',
    type: 'captcha',
    scope: 'Range',
    value: '203.0.113.0/24',
  };
  hosted.decisions = [...communityList(1), { id: 7, duration: '3h', ...own }];
  await alone(async () => {
    const client = reader();
    expect(await round()).toMatchObject({ ok: true, added: 2, error: null, warning: null });
    await client.pull(true);
    expect(client.decisions()).toEqual([
      expect.objectContaining({ value: '198.51.100.0', origin: 'CAPI', duration: '72h0m0s', type: 'ban' }),
      expect.objectContaining({ ...own, duration: '3h0m0s' }),
    ]);
    expect(status()).toMatchObject({
      kind: 'hosted',
      freshness: 'fresh',
      link: 'ok',
      key: 'setting',
      decisions: 2,
    });
    expect(await awakeFeed().keyDigests()).toHaveLength(1);
  });
  const [{ url, headers, method } = new Request('http://x')] = hosted.requests;
  expect([method, url]).toEqual(['GET', `${cloud.url}/v1/decisions/stream?startup=true`]);
  expect(headers.get('x-api-key')).toBe(cloud.key);
});

test('what it takes back is unbanned with the next pull, and what stays is not said again', async () => {
  await alone(async () => {
    const client = reader();
    hosted.decisions = communityList(10, { duration: '720h' });
    await round();
    await client.pull(true);
    const before = new Map(client.decisions().map(({ value, id }) => [value, id]));
    nextDay();
    // The ends stay where they were, and its ids are others.
    hosted.decisions = communityList(11, { duration: `${720 * 60 - 24 * 60 - 11}m` })
      .slice(1)
      .map((each) => ({ ...each, id: each.id + 500 }));
    expect(await round()).toMatchObject({ ok: true, added: 1, removed: 1 });
    const { added, ended } = await client.pull(false);
    expect([added, ended].map((all) => all.map(({ value }) => value))).toEqual([
      ['198.51.100.10'],
      ['198.51.100.0'],
    ]);
    for (const { value, id } of client.decisions()) if (before.has(value)) expect(id).toBe(before.get(value));
  });
});

test('an end that it moves is moved, and none is moved by us', async () => {
  await alone(async () => {
    await round();
    const first = listed().map(({ untilMs }) => untilMs);
    nextDay();
    await round();
    for (const { untilMs } of listed()) expect(untilMs).toBe(Date.now() + 72 * hour);
    hosted.decisions = communityList(10, { duration: '5h' });
    nextDay();
    await round();
    for (const { untilMs } of listed()) expect(untilMs).toBe(Date.now() + 5 * hour);
    expect(first).toHaveLength(10);
    goOn(6 * hour);
    expect(values()).toEqual([]);
  });
});

test('of two that say the same the longer one counts, in whichever order they come', async () => {
  const [short, long, last] = ['4h', '30h', '5h'].map((duration) => communityList(1, { duration })[0]!);
  hosted.decisions = [short!, long!, last!];
  await alone(async () => {
    await round();
    expect(listed().map(({ untilMs }) => untilMs - Date.now())).toEqual([30 * hour]);
    nextDay();
    expect((await round()).warning).toBeNull();
    expect(listed().map(({ untilMs }) => untilMs - Date.now())).toEqual([30 * hour]);
  });
});

test('several decisions on one value are each its own', async () => {
  const two = ['a', 'b'].map((scenario) => communityList(1, { scenario, origin: 'lists' })[0]!);
  hosted.decisions = two;
  await alone(async () => {
    await round();
    expect(listed()).toHaveLength(2);
    nextDay();
    hosted.decisions = two.slice(1);
    await round();
    expect(listed().map(({ scenario }) => scenario)).toEqual(['b']);
  });
});

describe('it is pulled once in an interval', () => {
  test('over all restarts', async () => {
    for (let wakes = 0; wakes < 5; wakes++) await alone(round);
    expect(hosted.requests).toHaveLength(1);
    nextDay();
    await alone(round);
    expect([hosted.requests.length, hosted.sent]).toEqual([2, 2]);
  });

  test('also by an object that ends in the middle of each pull, and no more often than once an hour', async () => {
    hosted.fault = () => new Promise(() => undefined);
    const asked: number[] = [];
    for (let minutes = 0; minutes < 150; minutes += 10) {
      await alone(async () => void round());
      asked.push(hosted.requests.length);
      pass(10 * minute);
    }
    expect(asked).toEqual([...Array(6).fill(1), ...Array(6).fill(2), ...Array(3).fill(3)]);
  });

  test('by operators, too, who read when', async () => {
    await alone(async () => {
      await round();
      pass(2 * hour);
      expect(await sync('cloud')).toMatchObject({ ok: true, removed: 0 });
      expect((await sync('cloud', { force: true })).warning).toMatch(
        /^the integration may be asked again in 1\d{3} min$/,
      );
      expect(hosted.requests).toHaveLength(1);
      expect(values()).toHaveLength(10);
    });
  });

  test('that the settings say', async () => {
    hosted.planMs = 0;
    const entry = { ...cloud, interval_minutes: 120 };
    await alone(async () => {
      for (let hours = 0; hours < 24; hours++) {
        await round();
        pass(hour);
      }
      expect(hosted.requests).toHaveLength(8);
    }, entry);
  });

  test.each([
    ['by ten years', -3650 * day],
    ['by a minute', -minute],
  ])('with the clock set back %s', async (_, step) => {
    hosted.planMs = 0;
    await alone(async () => {
      await round();
      pass(step);
      for (let hours = 0; hours < 24; hours++) {
        await round();
        pass(hour);
      }
      expect(hosted.requests).toHaveLength(1);
      pass(hour);
      await round();
      expect(hosted.requests).toHaveLength(2);
    });
  });

  test('under another name, as the same one', async () => {
    const client = reader();
    await alone(async () => {
      await round();
      await client.pull(true);
    });
    await alone(
      async () => {
        await round('other');
        expect(hosted.requests).toHaveLength(1);
        expect((await client.pull(false)).ended).toEqual([]);
        expect(status('other')).toMatchObject({ decisions: 10, freshness: 'fresh' });
      },
      { ...cloud, name: 'other' },
    );
  });
});

describe('nobody is unbanned by', () => {
  const stream = (body: string) => () => new Response(body);
  test.each<[string, string, ModelHosted['fault']]>([
    ['one that is away', 'is out of reach', () => Promise.reject(new Error('down'))],
    ['an error', 'answers with status 500', () => new Response(null, { status: 500 })],
    [
      'a redirect',
      'answers with status 302',
      () => new Response(null, { status: 302, headers: { location: '/' } }),
    ],
    [
      'a web page',
      'answers with a web page',
      () => new Response('x', { headers: { 'content-type': 'text/html' } }),
    ],
    ['a cut answer', "sends what can't be read", stream('{"new":[{"id":1},')],
    ['the list of another route', 'answers with another kind of list', stream('[]')],
    ['half of an answer', 'answers with another kind of list', stream('{"deleted":null}')],
    ['a text', "sends what can't be read", stream('gone')],
  ])('%s', async (_, error, fault) => {
    await alone(async () => {
      await round();
      const before = listed();
      hosted.fault = fault;
      nextDay();
      for (let times = 0; times < 12; times++) {
        expect(await round()).toMatchObject({
          ok: false,
          error: expect.stringContaining(`the integration ${error}`),
        });
        pass(61 * minute);
      }
      expect(listed()).toEqual(before);
      expect(status()).toMatchObject({ link: 'failing', lastError: expect.stringContaining(error) });
      hosted.fault = undefined;
      await round();
      expect(status()).toMatchObject({ link: 'ok', freshness: 'fresh', lastError: null });
    });
  });

  test.each<[string, ModelHosted['fault']]>([
    ['a 204', () => new Response(null, { status: 204 })],
    ['an empty start-up', stream('{"new":null,"deleted":[]}')],
  ])('%s', async (_, fault) => {
    await alone(async () => {
      await round();
      const before = listed();
      hosted.fault = fault;
      nextDay();
      expect((await round()).warning).toMatch(/says that there is nothing/);
      expect(listed()).toEqual(before);
      expect(status()).toMatchObject({ link: 'ok', ageSeconds: 0, fullAgeSeconds: day / 1000 + 660 });
      nextDay();
      await round();
      expect(status()).toMatchObject({ freshness: 'stale', decisions: 10 });
      // What it gave ends when it said.
      goOn(day);
      expect(values()).toEqual([]);
    });
  });

  test('one that shrank by more than half, until the next pull has the same', async () => {
    hosted.decisions = communityList(10, { duration: '720h' });
    await alone(async () => {
      await round();
      hosted.decisions = communityList(4, { duration: '720h' });
      nextDay();
      expect((await round()).warning).toMatch(/kept until a second one agrees/);
      expect(values()).toHaveLength(10);
      pass(hour);
      await round();
      expect(hosted.requests).toHaveLength(2);
      nextDay();
      await round();
      expect(values()).toHaveLength(4);
    });
  });

  test('an element that can not be read, which may be any of those that are missing', async () => {
    hosted.decisions = communityList(10, { duration: '720h' });
    await alone(async () => {
      await round();
      hosted.decisions = [...hosted.decisions.slice(0, 9), { ...hosted.decisions[9]!, duration: 'soon' }];
      nextDay();
      await round();
      expect(values()).toHaveLength(10);
      expect(status()).toMatchObject({ skipped: 1, skippedSample: expect.stringContaining('duration') });
      nextDay();
      await round();
      expect(values()).toHaveLength(9);
    });
  });
});

describe('its 429', () => {
  test.each([
    ['in seconds', () => String(6 * 3600)],
    ['as a date', () => new Date(Date.now() + 6 * hour).toUTCString()],
  ])('is kept to, %s', async (_, retryAfter) => {
    const headers = { 'retry-after': retryAfter() };
    hosted.fault = () => new Response(null, { status: 429, headers });
    await alone(async () => {
      expect(await round()).toMatchObject({ ok: false, error: 'the integration answers with status 429' });
      expect(status()).toMatchObject({ link: 'failing', freshness: 'cold' });
    });
    hosted.fault = undefined;
    for (let hours = 0; hours < 5; hours++) {
      pass(hour);
      await alone(round);
      expect(hosted.requests).toHaveLength(1);
    }
    pass(hour);
    await alone(async () => {
      await round();
      expect(status()).toMatchObject({ freshness: 'fresh', decisions: 10 });
    });
  });

  test('does not stop it for longer than a week', async () => {
    hosted.fault = () => new Response(null, { status: 429, headers: { 'retry-after': '999999999' } });
    await alone(async () => {
      await round();
      pass(7 * day);
      await round();
      expect(hosted.requests).toHaveLength(2);
    });
  });

  test('after a lost state leaves the views of engines as they are', async () => {
    hosted.fault = () => new Response(null, { status: 429, headers: { 'retry-after': '80000' } });
    await wake(
      { default: 'a.example' },
      async () => {
        await sync();
        const client = reader();
        await client.pull(true);
        expect(awakeFeed().status()).toMatchObject({ freshness: 'stale', ageSeconds: 0 });
      },
      [cloud],
    );
  });
});

describe('a key that it refuses', () => {
  test.each([401, 403])(
    'with %i is named and never shown, and another one is tried at once',
    async (code) => {
      await alone(async () => {
        await round();
        hosted.fault = () => Response.json({ message: 'no' }, { status: code });
        nextDay();
        const { error } = await round();
        expect(error).toBe(`the integration refuses the key of cloud in UPSTREAMS with status ${code}`);
        expect(status()).toMatchObject({ link: 'refused', lastError: error, decisions: 10 });
      });
      hosted.fault = undefined;
      hosted.key = 'another';
      await alone(async () => {
        await round();
        expect(status()).toMatchObject({ link: 'refused' });
        expect(hosted.requests).toHaveLength(2);
      });
      await alone(
        async () => {
          await round();
          expect(status()).toMatchObject({ link: 'ok', freshness: 'fresh', lastError: null });
          await round();
          expect(hosted.requests).toHaveLength(3);
        },
        { ...cloud, key: 'another' },
      );
    },
  );
});

test('two integrations are each asked, and fail, by themselves', async () => {
  const other = startModelHosted('other.example', 'second-key');
  other.decisions = communityList(3, { value: '203.0.113.9', origin: 'lists' });
  const second = {
    ...cloud,
    name: 'second',
    url: 'https://other.example/v1/integrations/2',
    key: 'second-key',
  };
  hosted.fault = () => new Response(null, { status: 500 });
  await alone(
    async () => {
      await sync();
      expect(status()).toMatchObject({ link: 'failing', decisions: 0 });
      expect(status('second')).toMatchObject({ link: 'ok', decisions: 1 });
      expect(await awakeFeed().keyDigests()).toHaveLength(2);
      hosted.fault = undefined;
      pass(2 * minute);
      await sync(undefined, { full: false });
      expect([hosted.sent, other.sent]).toEqual([1, 1]);
      expect(values()).toHaveLength(11);
    },
    cloud,
    second,
  );
});

test('what an engine bans as well stays banned when the integration takes it back', async () => {
  const { 'a.example': engine } = startModelEngines('a.example');
  hosted = startModelHosted('hosted.example', cloud.key);
  hosted.decisions = communityList(3, { duration: '720h' });
  engine.add({ value: '198.51.100.0', untilMs: until() + 3 * day });
  await wake(
    { default: 'a.example' },
    async () => {
      const client = reader();
      await sync();
      await client.pull(true);
      nextDay();
      hosted.decisions = communityList(3, { duration: '695h49m' }).slice(1);
      await sync(undefined, { full: false });
      const { ended } = await client.pull(false);
      expect(ended).toEqual([]);
      expect(client.banned()).toHaveLength(3);
    },
    [cloud],
  );
});
