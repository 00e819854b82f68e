// What is decided in one isolate holds in every other: revocation within the stated 5 s; and two isolates that change
// one bouncer at the same time leave what the rules allow.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Isolate, startTwoIsolates, type TwoIsolates } from '../lab/isolates.ts';
import { revocationBoundMs, watchRevocation } from '../lab/revocation.ts';
import { until } from '../lab/wait.ts';

let isolates: TwoIsolates;
beforeAll(async () => {
  isolates = await startTwoIsolates();
});
afterAll(() => isolates?.close());

async function statusOf({ url }: Isolate, key: string): Promise<number> {
  return (await fetch(`${url}/v1/decisions`, { headers: { 'x-api-key': key } })).status;
}

describe('a key that is revoked through one isolate', () => {
  test.each([
    ['revoked', 'POST', '/versions/1/revoke', undefined],
    ['deleted', 'DELETE', '', undefined],
    ['rotated', 'POST', '/rotate', { grace: '0s' }],
  ])(
    '%s: is refused by the other after 5 s at the latest, and for good',
    async (name, method, path, body) => {
      const { first, second } = isolates;
      const key = await isolates.addBouncer(name);
      expect(await statusOf(first, key)).toBe(200);
      const { acceptedMs } = await watchRevocation(isolates, key, 0, async () => {
        const { status } = await first.operator(method, `/bouncers/${name}${path}`, body);
        expect([200, 204]).toContain(status);
      });
      // Of the requests that were sent later than the bound, not one was accepted.
      expect(acceptedMs).toBeLessThanOrEqual(revocationBoundMs);
      // Some were before: it is another isolate, which remembers for itself. Its own knows at once.
      expect(acceptedMs).toBeGreaterThan(0);
      for (const isolate of [first, second]) expect(await statusOf(isolate, key)).toBe(403);
    },
  );
});

test('25 rotations, revocations and uses at once, through both, end in a state that the rules allow', async () => {
  const { first, second } = isolates;
  const keys = new Map<number, string>([[1, await isolates.addBouncer('busy')]]);
  let done = 0;
  await Promise.all(
    Array.from({ length: 25 }, async (_, index) => {
      const isolate = index % 2 === 0 ? first : second;
      if (index % 5 === 4) {
        const number = 1 + (index % 4);
        const { status } = await isolate.operator('POST', `/bouncers/busy/versions/${number}/revoke`);
        expect([200, 404]).toContain(status);
        if (status === 200) done++;
      } else if (index % 5 < 2) {
        const { status, body } = await isolate.operator('POST', '/bouncers/busy/rotate', { grace: '1h' });
        expect(status).toBe(200);
        keys.set(body.bouncer.key_versions.at(-1).number, body.key);
        done++;
      } else {
        // Again and again: the keys that the rotations make meanwhile are used too.
        for (let round = 0; round < 5; round++) {
          for (const key of [...keys.values()]) expect([200, 403]).toContain(await statusOf(isolate, key));
        }
      }
    }),
  );

  // A use may move the versions once more: what is left is read when all keys were used.
  const opened = async () => {
    const statuses = new Map<number, string>();
    for (const [number, key] of keys) {
      const both = [await statusOf(first, key), await statusOf(second, key)];
      statuses.set(number, both.join(' '));
    }
    return statuses;
  };
  await opened();
  const { body: bouncer } = await first.operator('GET', '/bouncers/busy');
  const left: { number: number; state: string }[] = bouncer.key_versions;
  const states = left.map(({ state }) => state).join(' ');
  expect(['', 'current', 'previous', 'previous current', 'current next', 'next']).toContain(states);
  // Exactly the versions that are shown open anything, in both isolates, when the bound is over.
  const expected = new Map(
    [...keys.keys()].map((number) => {
      const live = left.some((version) => version.number === number);
      return [number, live ? '200 200' : '403 403'];
    }),
  );
  await until('both isolates open what is shown, and nothing else', async (saw) => {
    const statuses = await opened();
    saw([statuses, left]);
    return [...statuses].every(([number, both]) => both === expected.get(number));
  });
  // Nothing was done twice or lost: each mutation has its row, and the revision counts them.
  const { audit } = (await first.operator('GET', '/audit?target=busy&limit=1000')).body;
  const uses = audit.filter(({ action }: { action: string }) => action === 'bouncer.first-use').length;
  expect([audit.length, bouncer.revision]).toEqual([1 + done + uses, 1 + done + uses]);
  expect((await second.operator('GET', '/audit/verify')).body.ok).toBe(true);
});
