// Hosts with real SSH keys. The host of an engine: engine-key.test.ts.
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { createSshHost } from '../lab/ssh-host.ts';

async function send(lapidary: Lapidary, path: string, body: object): Promise<{ status: number; body: any }> {
  const init = { method: 'POST', body: JSON.stringify(body) };
  const response = await fetch(`${lapidary.url}/bootstrap/v1/${path}`, init);
  return { status: response.status, body: await response.json() };
}

describeWith('a host at the broker', ['hostTools'], () => {
  let lapidary: Lapidary;
  beforeAll(async () => {
    lapidary = await startLapidary();
  });
  afterAll(() => lapidary?.close());

  test.each([
    ['ed25519', ['-t', 'ed25519']],
    ['p256', ['-t', 'ecdsa', '-b', '256']],
    ['rsa', ['-t', 'rsa', '-b', '3072']],
  ])(
    'with an SSH key of %s gets its bouncer in, and is refused when it was removed',
    async (kind, options) => {
      const name = `web-${kind}`;
      const host = createSshHost(name, options);
      const key = `a key that ${name} made by itself`;
      const fields = { bouncer: name, key_sha512: createHash('sha512').update(key).digest('hex') };
      const put = { public_key: host.publicKey, bouncers: [name] };
      expect((await lapidary.operator('PUT', `/hosts/${name}`, put)).status).toBe(201);
      const registered = await send(lapidary, 'keys', await host.request(lapidary.url, 'keys', fields));
      expect(registered.body).toMatchObject({ state: 'registered', generation: 1 });
      const poll = () => fetch(`${lapidary.url}/v1/decisions/stream`, { headers: { 'x-api-key': key } });
      expect((await poll()).status).toBe(200);
      expect((await lapidary.operator('DELETE', `/hosts/${name}`)).status).toBe(204);
      expect((await poll()).status).toBe(403);
      const gone = await send(lapidary, 'keys', await host.request(lapidary.url, 'keys', fields));
      expect(gone.body.type).toBe('urn:lapidary:host-revoked');
      host.close();
    },
  );

  test('is known again after a restart: the secret of the first start is kept', async () => {
    const host = createSshHost('kept');
    await lapidary.operator('PUT', '/hosts/kept', { public_key: host.publicKey, bouncers: ['kept'] });
    const request = await host.request(lapidary.url, 'keys', {
      bouncer: 'kept',
      key_sha512: 'ab'.repeat(64),
    });
    await lapidary.kill();
    await lapidary.start();
    expect((await send(lapidary, 'keys', request)).body.state).toBe('registered');
    expect((await send(lapidary, 'keys', request)).body.type).toBe('urn:lapidary:replayed');
    host.close();
  });
});
