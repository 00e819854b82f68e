// An engine whose tunnel is in another zone of Cloudflare's than Lapidary, or Lapidary on workers.dev: Cloudflare then
// puts an address of its own behind the machine's in X-Forwarded-For. Here a proxy does so before a real engine.
import { createServer, request as httpRequest, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine } from '../lab/engine.ts';
import { startLapidary } from '../lab/lapidary.ts';

/** What a Worker of another zone has (Cloudflare's HTTP headers, CF-Connecting-IP in Worker subrequests). */
const workersAddress = '2a06:98c0:3600::103';

async function otherZone(engine: string): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    const named = [request.headers['x-forwarded-for'], workersAddress].filter(Boolean).join(', ');
    const { method, url } = request;
    const headers = { ...request.headers, 'x-forwarded-for': named };
    const onward = httpRequest(engine + url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

describeWith('an engine in another zone', ['lab'], () => {
  it.each([
    ['takes all machines for one with the settings of the same zone', '127.0.0.1', workersAddress, 403],
    [
      'knows each by its address when it trusts Cloudflare’s Workers, too',
      '127.0.0.1, "2a06:98c0:3600::/48"',
      '203.0.113.9',
      200,
    ],
  ])('%s', async (_, trusted, address, deleted) => {
    const server = [
      'use_forwarded_for_headers: true',
      `trusted_proxies: [${trusted}]`,
      'trusted_ips: [127.0.0.1, 203.0.113.0/24]',
    ];
    const engine = await startEngine({ server });
    const zone = await otherZone(engine.url);
    const lapidary = await startLapidary({
      upstream: { url: zone.url, key: await engine.addBouncer('lapidary') },
      settings: { CLIENT_ADDRESS_HEADER: 'x-edge-client', MACHINE_ALLOW: '203.0.113.0/24' },
    });
    try {
      const headers = { 'user-agent': 'lab/v1', 'x-edge-client': '203.0.113.9' };
      const { login: machine_id, password } = engine.machine;
      const body = JSON.stringify({ machine_id, password, scenarios: [] });
      const logged = await fetch(`${lapidary.url}/v1/watchers/login`, { method: 'POST', headers, body });
      const { token } = (await logged.json()) as { token: string };
      const [machine] = JSON.parse(await engine.cscli('machines', 'list', '-o', 'json'));
      expect(machine.ipAddress).toBe(address);
      const asMachine = { ...headers, authorization: `Bearer ${token}` };
      const deletion = await fetch(`${lapidary.url}/v1/alerts`, { method: 'DELETE', headers: asMachine });
      expect(deletion.status).toBe(deleted);
    } finally {
      await lapidary.close();
      zone.server.closeAllConnections();
      zone.server.close();
      await engine.close();
    }
  });
});
