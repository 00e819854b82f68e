// What a machine may not do through Lapidary although the engine would let it: everything that LAPI leaves to local
// callers, guessing passwords, and whatever an operator has forbidden it.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { remoteCscli } from '../lab/agent.ts';
import { login, postAlert } from '../lab/alert.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

describeWith('trust in machines', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let token: string;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      // The client says where it is, as Cloudflare does in its name.
      settings: { CLIENT_ADDRESS_HEADER: 'x-edge-client', MACHINE_ALLOW: '203.0.113.0/24, 2001:db8:1::/48' },
    });
    token = await login(engine);
    for (let i = 1; i <= 9; i++) await postAlert(engine, { decisions: [{ value: `192.0.2.${i}` }] }, token);
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  async function ask(method: string, path: string, headers: Record<string, string> = {}, body?: unknown) {
    const response = await fetch(lapidary.url + path, {
      method,
      headers: { 'user-agent': 'lab/v1', authorization: `Bearer ${token}`, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, headers: response.headers, body: await response.text() };
  }
  const from = (address: string) => ({ 'x-edge-client': address });
  const operatorToken = async (role: string) => {
    const body = { name: `${role}-${Math.random()}`, role, expires_in: '1h' };
    return (await lapidary.operator('POST', '/operator-tokens', body)).body.token as string;
  };

  it('lets nobody delete alerts from elsewhere, though the engine takes all of them for local', async () => {
    const refused = await ask('DELETE', '/v1/alerts/1', from('198.51.100.1'));
    expect(refused.status).toBe(403);
    expect(JSON.parse(refused.body).message).toContain('MACHINE_ALLOW');
    expect((await ask('DELETE', '/v1/alerts?ip=192.0.2.2', from('198.51.100.1'))).status).toBe(403);
    const claimed = { ...from('198.51.100.1'), 'x-forwarded-for': '203.0.113.1' };
    expect((await ask('DELETE', '/v1/alerts/1', claimed)).status).toBe(403);
    // A proxy that appends to what the client claims.
    const appended = from('203.0.113.1, 198.51.100.1');
    expect((await ask('DELETE', '/v1/alerts/1', appended)).status).toBe(403);
    expect((await ask('DELETE', '/v1/alerts/1', from('203.0.113.1:40001'))).body).toBe('{"nbDeleted":"1"}');
    expect((await ask('DELETE', '/v1/alerts/2', from('x, [2001:DB8:1::7]:443'))).body).toBe(
      '{"nbDeleted":"1"}',
    );
  });

  it('lets an operator delete them from anywhere, with a token beside the JWT, and writes it down', async () => {
    const operator = await operatorToken('operator');
    const with_ = (own: string) => ({ ...from('198.51.100.1'), 'x-lapidary-token': own });
    expect((await ask('DELETE', '/v1/alerts/3', with_('cso_nobody'))).status).toBe(403);
    expect((await ask('DELETE', '/v1/alerts/3', with_(await operatorToken('viewer')))).status).toBe(403);
    const noJwt = { ...with_(operator), authorization: '' };
    expect((await ask('DELETE', '/v1/alerts/3', noJwt)).status).toBe(401);
    expect((await ask('DELETE', '/v1/alerts/3', with_(operator))).body).toBe('{"nbDeleted":"1"}');
    const breakGlass = (await readFile(join(lapidary.stateDir, 'operator-token'), 'utf8')).trim();
    expect((await ask('DELETE', '/v1/alerts?ip=192.0.2.4', with_(breakGlass))).status).toBe(200);
    const { audit } = (await lapidary.operator('GET', '/audit?action=machine.delete-alerts')).body;
    expect(audit[0]).toMatchObject({
      actor: 'operator-token',
      target: 'DELETE /v1/alerts?ip=192.0.2.4',
      detail: { address: '198.51.100.1', machine: 'lab', break_glass: true },
    });
    expect(audit[1].actor).toMatch(/^token:operator-/);
    expect((await lapidary.operator('GET', '/audit/verify')).status).toBe(200);
  });

  it('registers machines from where that is allowed', async () => {
    const machine = (name: string) => ({ machine_id: name, password: 'long-enough' });
    const far = await ask('POST', '/v1/watchers', from('198.51.100.1'), machine('far'));
    expect(far.status).toBe(403);
    const near = await ask('POST', '/v1/watchers', from('203.0.113.5'), machine('near'));
    expect(near.status).toBe(201);
    const operator = { ...from('198.51.100.1'), 'x-lapidary-token': await operatorToken('operator') };
    expect((await ask('POST', '/v1/watchers', operator, machine('by-operator'))).status).toBe(201);
    const names = JSON.parse(await engine.cscli('machines', 'list', '-o', 'json')) as { machineId: string }[];
    expect(names.map(({ machineId }) => machineId).sort()).toEqual(['by-operator', 'lab', 'near']);
  });

  it('slows down whoever guesses, by address and by name', async () => {
    const guess = (address: string, machine_id: string) =>
      ask('POST', '/v1/watchers/login', from(address), { machine_id, password: 'x', scenarios: [] });
    const statuses = async (times: number, next: (i: number) => [string, string]) => {
      const seen = new Map<number, number>();
      for (let i = 0; i < times; i++) {
        const { status } = await guess(...next(i));
        seen.set(status, (seen.get(status) ?? 0) + 1);
      }
      return Object.fromEntries(seen);
    };
    expect(await statuses(35, (i) => ['198.51.100.50', `name-${i}`])).toEqual({ 401: 30, 429: 5 });
    expect(await statuses(70, (i) => [`198.51.100.${100 + i}`, 'victim'])).toEqual({ 401: 60, 429: 10 });
    const { status, headers, body } = await guess('198.51.100.50', 'name');
    expect([status, JSON.parse(body)]).toEqual([429, { message: expect.any(String) as string }]);
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
    // Before its body is looked at.
    const packed = { ...from('198.51.100.50'), 'content-encoding': 'none' };
    expect((await ask('POST', '/v1/watchers/login', packed, {})).status).toBe(429);
    // The spelling of a field hides no name.
    const twice = { machine_id: 'other', MACHINE_ID: 'victim', password: 'x', scenarios: [] };
    expect((await ask('POST', '/v1/watchers/login', from('192.0.2.77'), twice)).status).toBe(400);
    const shouted = { MACHINE_ID: 'victim', password: 'x', scenarios: [] };
    expect((await ask('POST', '/v1/watchers/login', from('192.0.2.77'), shouted)).status).toBe(429);
  });

  it('refuses a machine that an operator blocked while its token lives, and lets it pass again', async () => {
    await engine.cscli(
      'machines',
      'add',
      'stolen',
      '-p',
      'its-password',
      '-f',
      join(engine.dir, 'stolen.yaml'),
    );
    const account = { login: 'stolen', password: 'its-password' };
    const cscli = await remoteCscli(engine, { url: lapidary.url, ...account });
    expect(await cscli('decisions', 'list')).toContain('192.0.2.5');
    const own = await login({ url: engine.url, machine: account });
    const beat = (headers: Record<string, string>) => ask('GET', '/v1/heartbeat', headers);
    const itself = { authorization: `Bearer ${own}` };
    expect((await beat(itself)).status).toBe(200);
    await lapidary.operator('PUT', '/blocked-machines/stolen', { reason: 'it was' });
    const refused = await until('it is refused', async () => {
      const answer = await beat(itself);
      return answer.status === 403 && answer;
    });
    expect(refused.body).toBe('{"message":"access forbidden: an operator blocked this machine at Lapidary"}');
    await expect(cscli('decisions', 'list')).rejects.toThrow();
    expect((await ask('POST', '/v1/alerts', itself, [])).status).toBe(403);
    // Neither another place for the token, nor the engine's word for it, helps.
    for (const headers of [
      { authorization: 'Basic x', cookie: `jwt=${own}` },
      { authorization: `bearer ${own}` },
    ])
      expect((await beat(headers as Record<string, string>)).status).toBe(401);
    expect((await beat({})).status).toBe(200);
    const { body } = await lapidary.operator('GET', '/blocked-machines');
    expect(body.blocked_machines).toMatchObject([{ machine: 'stolen', reason: 'it was' }]);
    await lapidary.stop();
    await lapidary.start();
    expect((await beat(itself)).status).toBe(403);
    expect((await lapidary.operator('DELETE', '/blocked-machines/stolen')).status).toBe(204);
    await until('it passes again', async () => (await beat(itself)).status === 200);
    const { audit } = (await lapidary.operator('GET', '/audit?target=stolen')).body;
    expect(audit.map(({ action }: { action: string }) => action)).toEqual([
      'machine.unblock',
      'machine.block',
    ]);
  });
});
