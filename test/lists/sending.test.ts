// Lists that are sent to slow readers: what is in memory for them is bounded.
import { beforeEach, expect, test, vi } from 'vitest';
import { createSending } from '../../src/lists/sending.ts';

type Body = ReadableStream<Uint8Array>;
const minute = 60_000;
const list = (lines: number) => ({ lines });
const send = (sending: ReturnType<typeof createSending>, of: { lines: number }, slices = ['a\n', 'b\n']) =>
  sending(of, slices) as Body;
const textOf = (body: Body) => new Response(body).text();

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
});

test('there is room for some lines together, and for one list that alone has more', async () => {
  const sending = createSending(100);
  const first = send(sending, list(60));
  const second = send(sending, list(40));
  expect(sending(list(1), ['c\n'])).toBeNull();
  expect(await textOf(first)).toBe('a\nb\n');
  const third = send(sending, list(60));
  expect(await Promise.all([second, third].map(textOf))).toEqual(['a\nb\n', 'a\nb\n']);
  expect(await textOf(send(sending, list(1_000)))).toBe('a\nb\n');
});

test('readers of the same list take the room of one', async () => {
  const sending = createSending(100);
  const same = list(100);
  const bodies = Array.from({ length: 50 }, () => send(sending, same));
  expect(sending(list(1), ['c\n'])).toBeNull();
  expect(new Set(await Promise.all(bodies.map(textOf)))).toEqual(new Set(['a\nb\n']));
  expect(sending(list(1), ['c\n'])).not.toBeNull();
});

test('who leaves makes room', async () => {
  const sending = createSending(100);
  const reader = send(sending, list(100)).getReader();
  await reader.read();
  expect(sending(list(1), ['c\n'])).toBeNull();
  await reader.cancel();
  expect(sending(list(1), ['c\n'])).not.toBeNull();
});

test('who has had a list for five minutes is cut off where room is wanted, however it reads', async () => {
  const sending = createSending(100);
  const first = send(sending, list(40));
  const slow = send(sending, list(60), ['1\n', '2\n', '3\n']).getReader();
  vi.setSystemTime(Date.now() + 5 * minute);
  await slow.read();
  expect(sending(list(40), ['c\n'])).toBeNull();
  vi.setSystemTime(Date.now() + 1);
  expect(await textOf(send(sending, list(40)))).toBe('a\nb\n');
  await expect(textOf(first)).rejects.toThrow('the list was not read in 300 s');
  await expect(slow.read()).rejects.toThrow('the list was not read in 300 s');
});

test('nobody is cut off while there is room', async () => {
  const sending = createSending(100);
  const idle = send(sending, list(40));
  vi.setSystemTime(Date.now() + 60 * minute);
  await textOf(send(sending, list(60)));
  expect(await textOf(idle)).toBe('a\nb\n');
});
