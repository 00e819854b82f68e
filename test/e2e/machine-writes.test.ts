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
  const noNews = (response: ServerResponse) => response.writeHead(200, json).end('{"new":[],"deleted":[]}');
  beforeAll(async () => {
    const port = await freePort();
    server = createServer((request, response) => {
      const { pathname } = new URL(request.url as string, 'http://engine.example');
      asked.push(`${request.method} ${pathname}`);
      if (pathname === '/v1/alerts') onWrite(request, response);
      else if (pathname === '/v1/decisions/stream') onDelta(response);
      else response.writeHead(200, json).end('null');
    });
    await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening));
    onDelta = noNews;
    lapidary = await startLapidary({
      upstream: { url: `http://127.0.0.1:${port}`, key: 'key' },
      settings: { SYNC_INTERVAL_SECONDS: '3600', UPSTREAM_TIMEOUT_SECONDS: '1' },
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
});
