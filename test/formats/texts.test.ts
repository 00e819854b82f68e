// Texts that many share are kept once, and no longer than somebody refers to them.
import { expect, test } from 'vitest';
import { createTextNumbers } from '../../src/formats/texts.ts';

test('a text has one number for all that hold it, until the last has let it go', () => {
  const texts = createTextNumbers();
  const agent = texts.hold('agent/1');
  const other = texts.hold('agent/2');
  expect(texts.hold('agent/1')).toBe(agent);
  expect([agent, other].map(texts.textOf)).toEqual(['agent/1', 'agent/2']);
  texts.letGo('agent/1');
  expect(texts.textOf(agent)).toBe('agent/1');
  texts.letGo('agent/1');
  expect(texts.hold('agent/3')).toBe(agent);
  expect([agent, other].map(texts.textOf)).toEqual(['agent/3', 'agent/2']);
});
