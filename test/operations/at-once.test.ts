// Many mutations at once, as when a rack of hosts comes up after a power cut: all are done, each has its row, and the log
// is whole.
import { beforeEach, expect, test } from 'vitest';
import { enrolmentToken, makeHost } from '../support/hosts.ts';
import { operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

beforeEach(() => void startModelEngine());

test('1,000 at once all succeed, numbered without a gap, and the log is whole', async () => {
  const many = Array.from({ length: 1000 }, (_, index) =>
    operator('POST', '/bouncers', { name: `b-${index}` }),
  );
  const answers = await Promise.all(many);
  expect(answers.filter(({ status }) => status !== 201)).toEqual([]);
  expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 1000, next: null });
});

test('a rack of 300 hosts that enrol at once: each has its key, and may go on', async () => {
  const enrolment_token = await enrolmentToken({ max_hosts: 300 });
  const rack = await Promise.all(Array.from({ length: 300 }, (_, index) => makeHost(`web-${index}`)));
  const answers = await Promise.all(
    rack.map((host) => host.register({ public_key: host.key.publicKey, enrolment_token })),
  );
  expect(answers.filter(({ body }) => body.state !== 'registered')).toEqual([]);
  const again = await Promise.all(rack.map((host) => host.register()));
  expect(again.filter(({ body }) => body.state !== 'unchanged')).toEqual([]);
  expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 301 });
});
