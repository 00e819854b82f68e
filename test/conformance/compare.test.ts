// The comparison itself: it must see what would harm a bouncer, and nothing else.
import { describe, expect, it } from 'vitest';
import { differences, type Reply } from './compare.ts';

const row = {
  duration: '3h59m59.5s',
  id: 7,
  origin: 'cscli',
  scenario: 'lab',
  scope: 'Ip',
  type: 'ban',
  value: '192.0.2.1',
};
const lapi = answer({ deleted: null, new: [row] });
const ours = { ...row, duration: '3h59m59s' };

function answer(body: unknown, status = 200): Reply {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return {
    status,
    headers: { 'content-type': 'application/json', 'content-length': String(text.length) },
    body: text,
  };
}

function streamOf(...rows: unknown[]): Reply {
  return answer({ new: rows, deleted: [] });
}

describe('a comparison', () => {
  it.each([
    ['a null list and an empty one', streamOf(ours)],
    ['a duration that is a few seconds shorter', streamOf({ ...ours, duration: '3h59m55s' })],
  ])('overlooks %s', (_name, lapidary) => {
    expect(differences(lapi, lapidary)).toEqual([]);
  });

  it.each([
    ['a row that is missing', streamOf(), 'new: only LAPI has Ip 192.0.2.1 ban cscli 4h'],
    [
      'a row too many',
      streamOf(ours, { ...ours, id: 8 }),
      'new: only Lapidary has Ip 192.0.2.1 ban cscli 4h',
    ],
    ['a row twice', streamOf(ours, ours), 'new: Lapidary has an id twice'],
    [
      'another scenario',
      streamOf({ ...ours, scenario: 'x' }),
      'new: Ip 192.0.2.1 ban cscli 4h: scenario "lab" against "x"',
    ],
    [
      'a field too many',
      streamOf({ ...ours, until: '' }),
      'new: Ip 192.0.2.1 ban cscli 4h: until undefined against ""',
    ],
    [
      'a fraction of a second',
      streamOf({ ...ours, duration: '3h59m59.1s' }),
      'new: Ip 192.0.2.1 ban cscli 4h: duration is 3h59m59.1s',
    ],
    [
      'a duration longer than the truth',
      streamOf({ ...ours, duration: '4h0m0s' }),
      'new: Ip 192.0.2.1 ban cscli 4h: duration 3h59m59.5s against 4h0m0s',
    ],
    [
      'a duration in other units',
      streamOf({ ...ours, duration: '3h59s' }),
      'new: Ip 192.0.2.1 ban cscli 4h: duration 3h59m59.5s against 3h59s',
    ],
    ['another status', answer({ new: [ours], deleted: [] }, 203), 'status 200 against 203'],
    ['another kind of answer', answer([ours]), 'body a stream answer against a list'],
  ])('sees %s', (_name, lapidary, line) => {
    expect(differences(lapi, lapidary)).toEqual([line]);
  });

  it('sees an empty list where LAPI says null, and a null that is more than four bytes', () => {
    expect(differences(answer('null'), answer('[]'))).toEqual(['body null against a list']);
    expect(differences(answer('null'), answer('null\n'))).toEqual(['body null against text null']);
  });
});
