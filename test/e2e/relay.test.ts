// Two brokers, and a host that trusts both. What the host signs for one of them, that one must not be able to use at the
// other: not with the other's challenge in it, and not under its own name.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { createSshHost, type SshHost } from '../lab/ssh-host.ts';
import { until } from '../lab/wait.ts';

const password = 'a-password-that-the-host-has-made-0';

interface Answer {
  status: number;
  body: any;
}

/** A POST with a `Host`, and other headers, of its own: fetch lets nobody choose that one. */
function post(url: string, body: unknown, headers: Record<string, string>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: 'POST', headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += String(chunk)));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
    });
    sent.on('error', reject).end(JSON.stringify(body));
  });
}

describeWith('a host’s signed request', ['lab', 'hostTools'], () => {
  let engine: Engine;
  let hostile: Lapidary;
  let victim: Lapidary;
  let host: SshHost;

  beforeAll(async () => {
    engine = await startEngine();
    hostile = await startLapidary();
    victim = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { CLIENT_ADDRESS_HEADER: 'x-real-ip' },
    });
    host = createSshHost('logs-1');
    const known = { public_key: host.publicKey, bouncers: ['fw-1'] };
    expect((await hostile.operator('PUT', '/hosts/logs-1', known)).status).toBe(201);
    const put = { ...known, machine: 'default' };
    expect((await victim.operator('PUT', '/hosts/logs-1', put)).status).toBe(201);
  });
  afterAll(async () => {
    host?.close();
    await hostile?.close();
    await victim?.close();
    await engine?.close();
  });

  /** What the host signs for another address, over the victim's challenge: it is what a relay passes on. */
  const signedFor = (address: string, fields: object = {}) =>
    host.request(victim.url, 'machine', {
      aud: `${address}/bootstrap/v1/machine`,
      machine_password: password,
      ...fields,
    });

  const send = (body: object, headers: Record<string, string> = {}) =>
    post(`${victim.url}/bootstrap/v1/machine`, body, headers);

  async function machines(): Promise<number> {
    const shown = JSON.parse(await engine.cscli('machines', 'list', '-o', 'json')) as unknown[] | null;
    return shown?.length ?? 0;
  }

  test('for one broker opens nothing at another, under any Host, and is seen there', async () => {
    const before = await machines();
    const { host: name } = new URL(hostile.url);
    const ways: Record<string, string>[] = [{ host: name }, {}, { host: name, 'x-real-ip': '198.51.100.7' }];
    for (const headers of ways) {
      const { status, body } = await send(await signedFor(hostile.url), headers);
      expect([status, body.errors?.[0].field], JSON.stringify(body)).toEqual([400, 'aud']);
    }
    expect(await machines()).toBe(before);
    await until('it is in the log, once', async () => {
      const { body } = await victim.operator('GET', '/audit?action=host.relay-refused');
      return body.audit.length === 1 && body.audit[0].detail.audience.startsWith(hostile.url);
    });
    const shown = (await victim.operator('GET', '/hosts/logs-1')).body.host;
    expect(shown).toMatchObject({
      last_refused_at: expect.any(String),
      last_refused_why: expect.stringContaining(hostile.url),
    });
  });

  test('is good where it was signed for: a key at one, an account that logs in and bans at the other', async () => {
    const fields = { bouncer: 'fw-1', key_sha512: createHash('sha512').update('a-key').digest('hex') };
    const own = await post(
      `${hostile.url}/bootstrap/v1/keys`,
      await host.request(hostile.url, 'keys', fields),
      {},
    );
    expect(own.body.state).toBe('registered');

    const given = await send(await signedFor(victim.url));
    expect(given.status).toBe(200);
    await engine.cscli('machines', 'validate', given.body.machine);
    const machine = { login: given.body.machine, password };
    await postAlert({ url: victim.url, machine }, { decisions: [{ value: '192.0.2.9' }] });
    expect(JSON.parse(await engine.cscli('decisions', 'list', '-o', 'json'))).toHaveLength(1);
  });

  test('for this machine’s own address is good on this machine only', async () => {
    const signed = () => signedFor(victim.url, { generation: 1 });
    const { status, body } = await send(await signed(), { 'x-real-ip': '198.51.100.7' });
    expect([status, body.errors?.[0].field]).toEqual([400, 'aud']);
    expect((await send(await signed(), { 'x-real-ip': '127.0.0.1' })).status).toBe(200);
  });

  test('goes through a proxy once an operator has called by the name that hosts use', async () => {
    const name = { host: 'lapidary.example.net', 'x-real-ip': '198.51.100.7' };
    const signed = () => signedFor('https://lapidary.example.net', { generation: 1 });
    expect((await send(await signed(), name)).status).toBe(400);
    const authorization = `Bearer ${(await readFile(join(victim.stateDir, 'operator-token'), 'utf8')).trim()}`;
    const call = (host: string) => post(`${victim.url}/api/v1/feed/sync`, {}, { host, authorization });
    expect((await call('lapidary.example.net')).status).toBe(200);
    expect((await call('other.example.net')).status).toBe(200);
    expect((await send(await signed(), name)).status).toBe(200);
    expect((await victim.feed()).public_urls.map(({ url }: { url: string }) => url)).toEqual([
      victim.url,
      '//lapidary.example.net',
    ]);
  });
});
