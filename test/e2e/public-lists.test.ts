// Sources that are no engine as upstreams, over real connections: what their servers send, and how they fail, at the built
// Worker.
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { pullStream } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

/** What is at each path. `endless` notes when its connection is closed from the other side. */
const closed = Promise.withResolvers<void>();
const paths: Record<string, RequestListener> = {
  '/moved': (_, response) => response.writeHead(301, { location: '/good' }).end(),
  '/good': (_, response) => {
    response.writeHead(200, { 'content-type': 'text/plain', etag: '"1"' });
    response.write('# a list\n192.0.2.1\n198.51.');
    response.end('100.0/24 ; SBL1\n');
  },
  '/silent': () => undefined,
  '/endless': (_, response) => {
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.on('close', closed.resolve);
    const more = (): void => {
      while (response.write('203.0.113.9\n'.repeat(1000)));
      response.once('drain', more);
    };
    more();
  },
  '/cut-chunks': (_, response) => {
    response.writeHead(200);
    response.write('203.0.113.8\n', () => response.destroy());
  },
  '/cut': (_, response) => {
    response.writeHead(200, { 'content-length': '1000' });
    response.write('203.0.113.7\n', () => response.destroy());
  },
};

const community = 50_000;
const hostedKey = 'hosted-key';

function decision(at: number): object {
  const value = `${10 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}.9`;
  const said = { origin: 'CAPI', scenario: 'x/scan', scope: 'Ip', type: 'ban', value };
  return { duration: '72h0m0s', id: at + 1, ...said };
}

const json = { 'content-type': 'application/json' };
/** By the paths of integrations: what they answer to a start-up with the key. */
const integrations: Record<string, RequestListener> = {
  '/big': (_, response) => {
    const all = Array.from({ length: community }, (_, at) => decision(at));
    response.writeHead(200, json).end(JSON.stringify({ new: all, deleted: [] }));
  },
  '/mute': () => undefined,
  '/broken': (_, response) => {
    response.writeHead(200, json);
    response.write(`{"new":[${JSON.stringify(decision(1))},`, () => response.destroy());
  },
  '/none': (_, response) => response.writeHead(204).end(),
};

/** How its upstreams stand, by name, once each was asked. */
async function askedBy(lapidary: Lapidary): Promise<Record<string, any>> {
  let all: any[] = [];
  await until('each was asked', async () => {
    all = (await lapidary.feed()).engines;
    return all.every(({ state }) => state !== 'cold');
  });
  return Object.fromEntries(all.map((each) => [each.name, each]));
}

describe('hosted integrations', () => {
  let server: Server;
  let lapidary: Lapidary;
  const asked: string[] = [];
  const names = Object.keys(integrations).map((path) => path.slice(1));

  beforeAll(async () => {
    server = createServer((request, response) => {
      const [path = '', rest] = (request.url ?? '').split('/v1/');
      asked.push(`${request.method} ${path} ${rest}`);
      const isOurs = request.headers['x-api-key'] === hostedKey;
      if (isOurs) integrations[path]?.(request, response);
      else response.writeHead(401).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const entries = names.map((name) => ({ kind: 'hosted', name, url: `${url}/${name}`, key: hostedKey }));
    const settings = { UPSTREAMS: JSON.stringify(entries), UPSTREAM_TIMEOUT_SECONDS: '1' };
    lapidary = await startLapidary({ settings });
  });
  afterAll(async () => {
    await lapidary?.close();
    server?.closeAllConnections();
    server?.close();
  });

  it('give what they have, and those that fail say how', async () => {
    expect(await askedBy(lapidary)).toMatchObject({
      big: { kind: 'hosted', key: 'setting', freshness: 'fresh', decisions: community, last_error: null },
      mute: { state: 'failing', last_error: expect.stringContaining('is silent') },
      broken: { state: 'failing', decisions: 0, last_error: expect.stringContaining('the integration ') },
      none: { state: 'ok', freshness: 'cold', last_error: expect.stringContaining('there is nothing') },
    });
    const key = await lapidary.addBouncer('reader');
    const { new: added } = await pullStream({ url: lapidary.url, key }, 'startup=true');
    expect(added).toHaveLength(community);
  });

  it('are asked for nothing but one start-up each, and not again by a restart', async () => {
    await lapidary.kill();
    await lapidary.start();
    await until('a round has run', async () => (await lapidary.sync()).added === 0);
    const started = names.map((name) => `GET /${name} decisions/stream?startup=true`);
    expect(asked.toSorted()).toEqual(started.toSorted());
    expect((await lapidary.feed()).decisions).toBe(community);
  });
});

describe('lists', () => {
  let server: Server;
  let lapidary: Lapidary;
  const asked: string[] = [];

  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      paths[request.url ?? '']?.(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const entries = ['moved', 'silent', 'endless', 'cut', 'cut-chunks'].map((name) => {
      return { kind: 'list', name, url: `${url}/${name}`, allow_reserved: true };
    });
    lapidary = await startLapidary({
      settings: { UPSTREAMS: JSON.stringify(entries), UPSTREAM_TIMEOUT_SECONDS: '2' },
    });
  });
  afterAll(async () => {
    await lapidary?.close();
    server?.closeAllConnections();
    server?.close();
  });

  it('ban what they have, and those that fail say how and ban nothing', async () => {
    expect(await askedBy(lapidary)).toMatchObject({
      moved: { kind: 'list', freshness: 'fresh', decisions: 2, last_error: null },
      silent: { freshness: 'cold', decisions: 0, last_error: expect.stringContaining('is silent') },
      endless: { decisions: 0, last_error: expect.stringContaining('more than 100000 addresses') },
      cut: { decisions: 0, last_error: expect.stringContaining('out of reach') },
      'cut-chunks': { decisions: 0, last_error: expect.stringContaining('out of reach') },
    });
    await closed.promise;
    const key = await lapidary.addBouncer('reader');
    const { new: added } = await pullStream({ url: lapidary.url, key }, 'startup=true');
    const said = added?.map(({ value, origin, scenario }) => [value, origin, scenario]);
    expect(said?.sort()).toEqual([
      ['192.0.2.1', 'lists', 'moved'],
      ['198.51.100.0/24', 'lists', 'moved'],
    ]);
    expect(await lapidary.health()).toMatchObject({ feed: 'stale' });
  });

  it('are not asked again by a restart', async () => {
    await lapidary.kill();
    await lapidary.start();
    await until('a round has run', async () => (await lapidary.sync()).ok);
    expect(asked.filter((path) => path === '/good')).toHaveLength(1);
    const { decisions } = await lapidary.feed();
    expect(decisions).toBe(2);
  });
});
