// Webhooks against a real receiver on loopback, which is down, silent, wrong, and comes back: it gets every event in order,
// and signed as the Standard Webhooks specification says. And where messages must not go.
import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

type Answer = (response: ServerResponse) => void;
const take: Answer = (response) => void response.writeHead(204).end();

interface Tried {
  readonly path: string;
  readonly id: string;
  readonly type: string;
  readonly data: any;
  readonly isSigned: boolean;
  readonly method: string;
}

/** Reads all of a request. */
async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

/** A receiver at a port, which need not run from the beginning. */
function createReceiver(port: number) {
  const tries: Tried[] = [];
  let server: Server | undefined;
  const receiver = {
    url: `http://127.0.0.1:${port}/hook?token=of-the-receiver`,
    tries,
    secret: '',
    answer: take,
    async start(): Promise<void> {
      server = createServer((request, response) => {
        void bodyOf(request).then((text) => {
          const { headers, method = '', url: path = '' } = request;
          const id = String(headers['webhook-id']);
          const signed = `${id}.${String(headers['webhook-timestamp'])}.${text}`;
          const key = Buffer.from(receiver.secret.replace('whsec_', ''), 'base64');
          const isSigned =
            headers['webhook-signature'] ===
            `v1,${createHmac('sha256', key).update(signed).digest('base64')}`;
          const { type = '', data = null } = text === '' ? {} : JSON.parse(text);
          tries.push({ path, id, type, data, isSigned, method });
          receiver.answer(response);
        });
      });
      await new Promise<void>((resolve) => server?.listen(port, '127.0.0.1', resolve));
    },
    async stop(): Promise<void> {
      server?.closeAllConnections();
      await new Promise((resolve) => (server ? server.close(resolve) : resolve(null)));
    },
  };
  return receiver;
}

/** An engine that accepts no key. */
async function startRefusal(): Promise<Server> {
  const server = createServer((_, response) => {
    response.writeHead(403, { 'content-type': 'application/json' }).end('{"message":"access forbidden"}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;

describe('receivers', () => {
  let engine: Server;
  let lapidary: Lapidary;
  let troubled: ReturnType<typeof createReceiver>;
  let well: ReturnType<typeof createReceiver>;
  beforeAll(async () => {
    engine = await startRefusal();
    troubled = createReceiver(await freePort());
    well = createReceiver(await freePort());
    const away = {
      name: 'away',
      url: `http://127.0.0.1:${await freePort()}`,
      key: 'of-the-one-that-is-away',
    };
    lapidary = await startLapidary({
      upstream: { url: `http://127.0.0.1:${portOf(engine)}`, key: 'a-key-that-is-refused' },
      settings: { WEBHOOK_ADDRESSES: 'private', UPSTREAMS: JSON.stringify([away]) },
    });
    await well.start();
    for (const [name, receiver] of Object.entries({ troubled, well })) {
      const { status, body } = await lapidary.operator('POST', '/webhooks', { name, url: receiver.url });
      expect(status).toBe(201);
      receiver.secret = body.secret;
    }
  });
  afterAll(async () => {
    await lapidary?.close();
    await Promise.all([troubled?.stop(), well?.stop()]);
    engine?.close();
  });

  const delivery = async () => (await lapidary.operator('GET', '/webhooks/troubled')).body.delivery;
  /** A change of the webhook ends the wait for the next try. */
  const again = () => lapidary.operator('PATCH', '/webhooks/troubled', { events: null }, { 'if-match': '*' });

  test('get each event in order, whatever the others do', { timeout: 300_000 }, async () => {
    await until('the one that is well has both', () => well.tries.length >= 2, 120_000);
    const events = well.tries.map(({ type }) => type);
    expect(events.toSorted()).toEqual(['engine.refused', 'engine.stale']);
    expect(well.tries.every(({ isSigned }) => isSigned)).toBe(true);
    const engineIn = new Map(well.tries.map(({ type, data }) => [type, data]));
    expect(engineIn.get('engine.refused')).toMatchObject({ count: 1, engines: [{ name: 'default' }] });
    expect(engineIn.get('engine.stale')).toMatchObject({ count: 1, engines: [{ name: 'away' }] });
    await until('nobody listens at the other', async () => (await delivery())?.failures > 0);
    expect(await delivery()).toMatchObject({
      waiting: 2,
      last_delivered_at: null,
      last_try: { status: null, problem: expect.stringContaining('can not be reached') },
    });

    troubled.answer = () => undefined;
    await troubled.start();
    await again();
    await until('it does not answer', async () =>
      (await delivery()).last_try.problem.includes('within 10 s'),
    );
    // It waits for nobody: bans go on, and rounds.
    await lapidary.ban('192.0.2.1');

    await lapidary.kill();
    await lapidary.start();
    troubled.answer = (response) => void response.writeHead(500).end('no');
    await again();
    await until('it answers 500', async () => (await delivery())?.last_try?.status === 500);

    troubled.answer = (response) => void response.writeHead(307, { location: '/elsewhere' }).end();
    await again();
    await until('it redirects', async () => (await delivery()).last_try.status === 307);
    expect(troubled.tries.filter(({ path }) => path.includes('elsewhere'))).toEqual([]);

    const { length } = troubled.tries;
    troubled.answer = take;
    const tested = await lapidary.operator('POST', '/webhooks/troubled/test');
    expect(tested.body).toMatchObject({ ok: true, status: 204, problem: null });
    // Those that waited follow at once.
    await until('it has all', async () => (await delivery()).waiting === 0);
    const taken = troubled.tries.slice(length);
    expect(taken.map(({ type }) => type)).toEqual(['webhook.test', ...events]);
    expect(troubled.tries.every(({ isSigned, method }) => isSigned && method === 'POST')).toBe(true);
    // Each time under the id that the other has for it, too.
    const ids = well.tries.slice(0, 2).map(({ id }) => id);
    expect(taken.slice(1).map(({ id }) => id)).toEqual(ids);
    expect(new Set(troubled.tries.slice(0, length).map(({ id }) => id))).toEqual(new Set([ids[0]]));

    const { log } = lapidary;
    expect(log()).toContain('webhook troubled: it can not be reached');
    expect(log()).toContain('webhook troubled: it takes messages again');
    expect(log()).not.toMatch(/of-the-receiver|whsec_/);
  });
});

describe('a private address', () => {
  let lapidary: Lapidary;
  const names = ['localhost', '127.0.0.1', '[::1]', hostname()];

  /** How many connections come when a message is sent to each name, by https. */
  async function connections(settings: Record<string, string>): Promise<number> {
    let count = 0;
    const server = createTcpServer((socket) => {
      count++;
      socket.on('error', () => undefined).destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, '::', resolve));
    lapidary = await startLapidary({ settings });
    try {
      for (const [at, name] of names.entries()) {
        const body = { name: `to-${at}`, url: `https://${name}:${portOf(server)}/` };
        expect((await lapidary.operator('POST', '/webhooks', body)).status).toBe(201);
        const tested = await lapidary.operator('POST', `/webhooks/to-${at}/test`);
        expect(tested.body).toMatchObject({ ok: false, status: null });
      }
    } finally {
      await lapidary.close();
      await new Promise((resolve) => server.close(resolve));
    }
    return count;
  }

  test('is not connected to, whatever name leads there, unless a setting allows it', async () => {
    expect(await connections({})).toBe(0);
    expect(await connections({ WEBHOOK_ADDRESSES: 'private' })).toBeGreaterThan(1);
  });
});
