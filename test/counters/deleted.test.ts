// What an isolate or a bouncer sends late begins nothing for a bouncer that was deleted.
import { expect, test } from 'vitest';
import { counted } from '../../src/counters/counting.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, operator } from '../support/http.ts';

const sendLate = async (bouncerId: number, number: number): Promise<void> => {
  await feed().note([], null, {
    isolate: 'a',
    counts: { number, requests: [bouncerId, counted.polls, 1, 1_000, counted.polls, 1] },
  });
  const dropped = {
    item: 'dropped',
    unit: 'packet',
    origin: 'CAPI',
    remediation: '',
    ipType: 'ipv4',
  } as const;
  const windows = [{ id: String(number), usage: [{ ...dropped, value: 1 }] }];
  await feed().takeReport(null, null, { bouncerId, windows });
};

test('counts and reports that come late leave nothing of a deleted bouncer', async () => {
  await addBouncer('fw');
  await sendLate(1, 1);
  expect((await feed().usagePage(0)).bouncers).toHaveLength(1);
  await operator('DELETE', '/bouncers/fw');
  await sendLate(1, 2);
  expect((await feed().counts()).requests).toEqual([1_000, counted.polls, 2]);
  expect((await feed().usagePage(0)).bouncers).toEqual([]);
});
