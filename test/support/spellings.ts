// One address in several spellings, by hand: what engines may send, and the one element that a kernel's set has for it.

/** By the text that stands for all. */
export const spellings = {
  '192.0.2.1': ['192.0.2.1', '192.0.2.1/32', '::ffff:192.0.2.1', '::FFFF:C000:0201'],
  '198.51.100.0/24': ['198.51.100.0/24', '198.51.100.77/24', '::ffff:198.51.100.0/120'],
  '2001:db8::a1': ['2001:db8::a1', '2001:DB8::A1', '2001:0db8:0:0:0:0:0:a1', '2001:db8::a1/128'],
  '192.0.2.9': ['192.0.2.9', '192.0.2.9/32'],
  '192.0.2.50': ['192.0.2.50', '::ffff:192.0.2.50'],
  '192.0.2.0/24': ['192.0.2.0/24', '192.0.2.77/24'],
  FR: ['FR', 'fr'],
  '64500': ['64500', 'AS64500'],
} as const;

const networks = new Map<string, string>(
  Object.entries(spellings).flatMap(([network, texts]) => texts.map((text) => [text, network] as const)),
);

/** What a set of networks can tell of a decision; a text that has one spelling is its own. */
export function elementOf({ type, value }: { readonly type: string; readonly value: string }): string {
  return `${type} ${networks.get(value) ?? value}`;
}
