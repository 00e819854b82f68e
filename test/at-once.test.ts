// Many mutations at once, as when a rack of hosts comes up after a power cut: all are done, each has its row, and the log
// is whole.
import { expect, test } from 'vitest';
import { operator } from './support/http.ts';

test('1,000 at once all succeed, numbered without a gap, and the log is whole', async () => {
  const many = Array.from({ length: 1000 }, (_, index) =>
    operator('POST', '/bouncers', { name: `b-${index}` }),
  );
  const answers = await Promise.all(many);
  expect(answers.filter(({ status }) => status !== 201)).toEqual([]);
  expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 1000, next: null });
});
