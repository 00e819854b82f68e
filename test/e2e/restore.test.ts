// `npm start`'s own D1 is put back to an older state on disk: what was revoked since stays revoked.
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';

let lapidary: Lapidary;
beforeAll(async () => {
  lapidary = await startLapidary();
});
afterAll(() => lapidary?.close());

const status = async (key: string): Promise<number> => {
  const headers = { 'x-api-key': key };
  return (await fetch(`${lapidary.url}/v1/decisions/stream`, { headers })).status;
};

test('d1/ alone put back: revoked stays revoked, good stays good, and the log says so', async () => {
  const [good, rotated, deleted] = [
    await lapidary.addBouncer('good'),
    await lapidary.addBouncer('rotated'),
    await lapidary.addBouncer('deleted'),
  ];
  const made = await lapidary.operator('POST', '/operator-tokens', {
    name: 'stolen',
    role: 'admin',
    expires_in: '30d',
  });
  const asStolen = () =>
    fetch(`${lapidary.url}/api/v1/feed`, { headers: { authorization: `Bearer ${made.body.token}` } });
  expect((await asStolen()).status).toBe(200);
  const [d1, older] = [join(lapidary.stateDir, 'd1'), join(lapidary.stateDir, 'd1-older')];
  await lapidary.stop();
  await cp(d1, older, { recursive: true });
  await lapidary.start();

  const { key: next } = (await lapidary.operator('POST', '/bouncers/rotated/rotate', { grace: '0s' })).body;
  expect((await lapidary.operator('DELETE', '/bouncers/deleted')).status).toBe(204);
  expect((await lapidary.operator('DELETE', '/operator-tokens/stolen')).status).toBe(200);
  expect(await Promise.all([good, next, rotated, deleted].map(status))).toEqual([200, 200, 403, 403]);

  await lapidary.stop();
  await rm(d1, { recursive: true });
  await cp(older, d1, { recursive: true });
  await lapidary.start();

  expect(await Promise.all([good, next, rotated, deleted].map(status))).toEqual([200, 403, 403, 403]);
  expect((await asStolen()).status).toBe(401);
  const { audit } = (await lapidary.operator('GET', '/audit?action=restore.reconcile')).body;
  expect(audit).toMatchObject([{ detail: { keys_revoked: 2, tokens_revoked: 1 } }]);
  expect((await lapidary.operator('GET', '/audit/verify')).status).toBe(409);
  expect((await lapidary.operator('POST', '/audit/acknowledge')).body).toEqual({ acknowledged: 1 });
  expect((await lapidary.operator('GET', '/audit/verify')).body).toMatchObject({ ok: true });
});
