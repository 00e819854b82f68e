// The operators' list of decisions, narrowed: what fits, page by page, and what is refused.
import { beforeEach, describe, expect, test } from 'vitest';
import { operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

const untilMs = Date.now() + 3_600_000;

beforeEach(async () => {
  const engine = startModelEngine();
  const own = { origin: 'crowdsec', scenario: 'crowdsecurity/Ssh-bf' };
  const pulled = { origin: 'CAPI', scenario: 'http:scan', type: 'captcha' };
  engine.add({ value: '192.0.2.1', ...own, untilMs });
  engine.add({ value: '192.0.2.0/24', ...pulled, untilMs });
  engine.add({ value: '198.51.100.7', ...pulled, untilMs });
  engine.add({ value: '2001:DB8:0::/48', ...own, untilMs });
  engine.add({ value: 'FR', scope: 'Country', ...own, untilMs });
  engine.add({ value: 'AS64496', scope: 'AS', ...own, untilMs });
  engine.add({ value: 'a-session', scope: 'session', ...own, untilMs });
  await operator('POST', '/feed/sync?full=true');
  await operator('POST', '/decisions', { value: '192.0.2.1', duration: '1h', scenario: 'by hand' });
});

async function list(query: string): Promise<string[]> {
  const { status, body } = await operator('GET', `/decisions${query}`);
  expect([query, status]).toEqual([query, 200]);
  return body.decisions.map(({ value, engine }: any) => (engine === null ? `${value} here` : value));
}

describe('the list of decisions', () => {
  test.each([
    ['?value=192.0.2.1', ['192.0.2.1', '192.0.2.0/24', '192.0.2.1 here']],
    ['?value=::ffff:192.0.2.1', ['192.0.2.1', '192.0.2.0/24', '192.0.2.1 here']],
    ['?value=192.0.2.9', ['192.0.2.0/24']],
    ['?value=192.0.2.128/25', ['192.0.2.0/24']],
    ['?value=192.0.2.0/23', []],
    ['?value=2001:db8::1', ['2001:DB8:0::/48']],
    ['?value=fr', ['FR']],
    ['?value=64496&scope=as', ['AS64496']],
    ['?value=AS64496', ['AS64496']],
    ['?value=a-session', ['a-session']],
    ['?value=192.0.2.1&scope=range', ['192.0.2.0/24']],
    ['?scope=country', ['FR']],
    ['?origin=CAPI', ['192.0.2.0/24', '198.51.100.7']],
    ['?origin=lapidary', ['192.0.2.1 here']],
    ['?scenario=ssh', ['192.0.2.1', '2001:DB8:0::/48', 'FR', 'AS64496', 'a-session']],
    ['?type=captcha&value=192.0.2.1', ['192.0.2.0/24']],
    ['?engine=default&origin=CAPI', ['192.0.2.0/24', '198.51.100.7']],
    ['?engine=default&origin=lapidary', []],
    ['?scenario=nothing', []],
  ])('%s', async (query, expected) => {
    expect(await list(query)).toEqual(expected);
  });

  test('goes on after each page, by id, until all that fit were there', async () => {
    const seen: number[] = [];
    for (let next: number | null = 0; next !== null;) {
      const { body } = await operator('GET', `/decisions?scenario=SSH&limit=2&after=${next}`);
      seen.push(...body.decisions.map(({ id }: { id: number }) => id));
      next = body.next;
    }
    expect(seen).toHaveLength(5);
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  });

  test.each([
    ['adress', '?adress=192.0.2.1'],
    ['value', '?value='],
    ['value', '?value=192.0.2.300'],
    ['value', '?value=192.0.2.0/33'],
    ['value', '?value=2001:db8:::1'],
    ['value', '?value=web-1&scope=ip'],
    ['value', `?value=${'x'.repeat(257)}`],
    ['scope', '?scope='],
    ['origin', '?origin=%00'],
    ['engine', '?engine=london'],
    ['limit', '?limit=1001'],
    ['after', '?after=-1'],
  ])('refuses %s (%s)', async (field, query) => {
    const { status, body } = await operator('GET', `/decisions${query}`);
    expect([status, body.errors[0].field]).toEqual([400, field]);
  });
});
