// The splitter of the engine's answers: wherever the network cuts a body into chunks, the same decisions; wherever
// it cuts it off, an error.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createSplitter, SplitError } from '../../src/formats/json-split.ts';

function split(chunks: Uint8Array[]): { elements: unknown[]; lists: string[] } {
  const elements: unknown[] = [];
  const splitter = createSplitter((list, element) => elements.push([list, element]));
  for (const chunk of chunks) splitter.push(chunk);
  return { elements, lists: [...splitter.end()].sort() };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const tricky = { id: 1, scenario: 'a "quoted" \\ {brace] é\u2028', nested: { list: [1, { deep: '}' }] } };

describe('the three dialects', () => {
  test.each([
    ['{"deleted":null,"new":null}', [], ['deleted', 'new']],
    ['{"new": [], "deleted": []}\n', [], ['deleted', 'new']],
    ['{"deleted":[{"id":1}],"new":[{"id":2},{"id":3}]}', ['deleted', 'new', 'new'], ['deleted', 'new']],
    ['null', [], ['all']],
    [' [ {"id":1} , {"id":2} ] ', ['all', 'all'], ['all']],
    ['{}', [], []],
    [' { "new" : [ 1 , 2 ] , "deleted" : null } ', ['new', 'new'], ['deleted', 'new']],
    ['{"deleted":null,"new":[1]}', ['new'], ['deleted', 'new']],
  ])('%s', (text, from, lists) => {
    const result = split([bytes(text)]);
    expect([result.elements.map((element) => (element as unknown[])[0]), result.lists]).toEqual([
      from,
      lists,
    ]);
  });
});

const bodies = [
  JSON.stringify({ new: [tricky, { id: 2 }], deleted: [tricky] }),
  JSON.stringify([tricky, { id: 2 }]),
  '{"deleted":null,"new":[{"id":1}]}',
];

test('chunks may end anywhere, also inside a character or an escape', () => {
  fc.assert(
    fc.property(fc.constantFrom(...bodies), fc.array(fc.nat(400), { maxLength: 12 }), (body, cuts) => {
      const whole = bytes(body);
      const ends = [...new Set(cuts.map((cut) => cut % whole.length))].sort((a, b) => a - b);
      const chunks = [...ends, whole.length].map((end, index) => whole.slice(ends[index - 1] ?? 0, end));
      expect(split(chunks)).toEqual(split([whole]));
    }),
  );
});

test('a body that is cut off anywhere is an error, not a shorter list', () => {
  for (const body of bodies) {
    const whole = bytes(body);
    for (let end = 0; end < whole.length; end++)
      expect(() => split([whole.slice(0, end)])).toThrow(SplitError);
  }
});

test.each([
  '<html></html>',
  '',
  'nul',
  'nulll',
  '[{"id":1}]]',
  '[{"id":1}',
  '{"new":[],"deleted":[]}x',
  '{"new":{}}',
  '{"n ew":[]}',
  '{"new",:[]}',
  '{"new":,[]}',
  '{"new":[],"old":[]}',
  ',[]',
  '[],',
  '{"new":[],"new":[]}',
  '{"message":"unable to query"}',
  '{"new":[{]}',
  '[<html></html>]',
  '[{"id":1} and {"id":2}]',
])('%j is an error', (text) => expect(() => split([bytes(text)])).toThrow(SplitError));

describe('an element that is no decision costs itself', () => {
  test.each([
    ['[1,{"id":2}]', { json: 1 }],
    ['["]}",{"id":2}]', { json: ']}' }],
    ['[null,{"id":2}]', { json: null }],
    ['[[{}],{"id":2}]', { json: [{}] }],
    ['[{"id":1,},{"id":2}]', { problem: 'is not JSON', head: '{"id":1,}' }],
  ])('%s', (text, first) => {
    for (const chunks of [[bytes(text)], [...bytes(text)].map((byte) => Uint8Array.of(byte))]) {
      expect(split(chunks).elements).toEqual([
        ['all', first],
        ['all', { json: { id: 2 } }],
      ]);
    }
  });

  test('also one of 10 MB, of which only the head is kept', () => {
    const long = `{"id":7,"scenario":"${'x'.repeat(10_000_000)}"}`;
    const body = bytes(`[${long},{"id":2}]`);
    const chunks = Array.from({ length: Math.ceil(body.length / 65_536) }, (_, at) => {
      return body.slice(at * 65_536, (at + 1) * 65_536);
    });
    const { elements } = split(chunks);
    const head = long.slice(0, 1024);
    expect(elements).toEqual([
      ['all', { problem: 'is longer than 256 KiB', head }],
      ['all', { json: { id: 2 } }],
    ]);
  });
});
