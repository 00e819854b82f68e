// Writes of machines to an engine that does what none does when it is asked to: it waits, and tells how much it was
// sent. What is seen here is what arrives on either side of Lapidary.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

const json = { 'content-type': 'application/json' };
const headers = { authorization: 'Bearer a.b.c', 'user-agent': 'lab/v1' };

describe('a write', () => {
  let server: Server;
  let lapidary: Lapidary;
  let asked: string[] = [];
  let onWrite: (request: IncomingMessage, response: ServerResponse) => void;
  let onDelta: (response: ServerResponse) => void;
  const onBeat = ({ headers }: IncomingMessage, response: ServerResponse) => {
    const isGood = headers.authorization === `Bearer ${tokenOf('good')}`;
    response.writeHead(isGood ? 200 : 401, json).end('{"code":401,"message":"signature is invalid"}');
  };
  const noNews = (response: ServerResponse) => response.writeHead(200, json).end('{"new":[],"deleted":[]}');
  beforeAll(async () => {
    const port = await freePort();
    server = createServer((request, response) => {
      const { pathname } = new URL(request.url as string, 'http://engine.example');
      asked.push(`${request.method} ${pathname}`);
      if (pathname === '/v1/alerts') onWrite(request, response);
      else if (pathname === '/v1/heartbeat') onBeat(request, response);
      else if (pathname === '/v1/decisions/stream') onDelta(response);
      else response.writeHead(200, json).end('null');
    });
    await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening));
    onDelta = noNews;
    lapidary = await startLapidary({
      upstream: { url: `http://127.0.0.1:${port}`, key: 'key' },
      settings: {
        SYNC_INTERVAL_SECONDS: '3600',
        UPSTREAM_TIMEOUT_SECONDS: '1',
        CLIENT_ADDRESS_HEADER: 'x-edge',
      },
    });
    await lapidary.sync({ full: true });
  });
  afterAll(async () => {
    await lapidary?.close();
    server?.closeAllConnections();
    server?.close();
  });

  it('that is too large when it is unfolded breaks off at the engine, at the limit', async () => {
    const arrived = Promise.withResolvers<{ bytes: number; complete: boolean }>();
    onWrite = (request) => {
      let bytes = 0;
      request.on('data', (part: Buffer) => (bytes += part.length));
      request.on('error', () => undefined);
      request.on('close', () => arrived.resolve({ bytes, complete: request.complete }));
    };
    const answer = await fetch(`${lapidary.url}/v1/alerts`, {
      method: 'POST',
      headers: { ...headers, 'content-encoding': 'gzip' },
      body: gzipSync(Buffer.alloc(60 * 1024 * 1024, ' ')),
    });
    expect([answer.status, await answer.text()]).toEqual([400, '{"message":"http: request body too large"}']);
    const { bytes, complete } = await arrived.promise;
    expect(complete).toBe(false);
    expect(bytes).toBeLessThanOrEqual(50 * 1024 * 1024);
  });

  it('is followed though its machine went away before the answer', async () => {
    const written = Promise.withResolvers<ServerResponse>();
    onWrite = (request, response) => request.resume().on('end', () => written.resolve(response));
    const { hostname, port } = new URL(lapidary.url);
    const machine = connect(Number(port), hostname);
    machine.on('error', () => undefined);
    machine.write(
      'POST /v1/alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\nContent-Length: 2\r\n\r\n[]',
    );
    const response = await written.promise;
    machine.resetAndDestroy();
    // Workerd, which has one loop of events, has seen the one when it answers the other.
    await lapidary.health();
    asked = [];
    response.writeHead(201, json).end('["1"]');
    await until('the feed asks what changed', (saw) => {
      saw(asked);
      return asked.includes('GET /v1/decisions/stream');
    });
  });

  it('has its whole answer, though the feed takes longer than the engine may be silent', async () => {
    const alerts = JSON.stringify(Array.from({ length: 1000 }, (_, index) => `${index}`));
    onWrite = (_, response) => {
      // In parts: a short answer of known length would be read at once.
      response.writeHead(201, json).write(alerts.slice(0, 1000));
      setImmediate(() => response.end(alerts.slice(1000)));
    };
    const round = Promise.withResolvers<void>();
    onDelta = (response) => {
      round.resolve();
      setTimeout(noNews, 700, response);
    };
    const post = async () => {
      const answer = await fetch(`${lapidary.url}/v1/alerts`, { method: 'POST', headers, body: '[]' });
      return [answer.status, await answer.text()];
    };
    try {
      const first = post();
      await round.promise;
      // It waits for the round under way, and for its own.
      expect(await post()).toEqual([201, alerts]);
      expect(await first).toEqual([201, alerts]);
    } finally {
      onDelta = noNews;
    }
  });

  const send = async (method: string, path: string, machine: string, address: string): Promise<number> => {
    const response = await fetch(`${lapidary.url}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${tokenOf(machine)}`, 'x-edge': address },
      ...(method === 'POST' ? { body: '[]' } : {}),
    });
    await response.text();
    return response.status;
  };
  const reads = () => asked.filter((each) => each.includes('/v1/decisions')).length;

  it('is looked for when its answer is lost: at once of a machine, and of strangers together', async () => {
    onWrite = (_, response) => response.writeHead(500, json).end('{"message":"down"}');
    const looked = (what: string) =>
      until(what, (saw) => {
        saw(asked);
        return reads() > 0;
      });
    asked = [];
    expect(await send('POST', '/alerts', 'stranger', '198.51.100.1')).toBe(500);
    await looked('the first of a stranger is looked for');
    asked = [];
    for (let i = 0; i < 60; i++) await send('POST', '/alerts', `stranger-${i}`, `198.51.100.${i}`);
    expect(reads()).toBeLessThan(20);
    await looked('what the others may have written is looked for, too');
    expect(await send('GET', '/heartbeat', 'good', '192.0.2.1')).toBe(200);
    asked = [];
    expect(await send('POST', '/alerts', 'good', '192.0.2.1')).toBe(500);
    await looked('that of a machine is looked for');
  });

  it('of a stranger does not reach the engine as often as they like; a machine beside them does', async () => {
    const forge = (i: number) => send('GET', '/heartbeat', `forged-${i}`, '198.51.100.200');
    asked = [];
    const statuses: number[] = [];
    for (let i = 0; i < 150; i++) statuses.push(await forge(i));
    const atOnce = await Promise.all(Array.from({ length: 150 }, (_, i) => forge(1_000 + i)));
    expect(new Set([...statuses, ...atOnce])).toEqual(new Set([401, 429]));
    // And one a second.
    expect(asked.length).toBeLessThan(150);
    expect(asked.length).toBeGreaterThan(119);
    expect(await send('GET', '/heartbeat', 'forged', '198.51.100.201')).toBe(401);
    expect(await send('GET', '/heartbeat', 'good', '198.51.100.200')).toBe(200);
  });
});

function tokenOf(machine: string): string {
  const claims = { id: machine, exp: Math.floor(Date.UTC(2100, 0) / 1000) };
  return ['{}', JSON.stringify(claims), 'x'].map((part) => Buffer.from(part).toString('base64url')).join('.');
}
