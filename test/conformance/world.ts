// The decisions that every case starts from, made with the real command line, and by alerts where it cannot set
// an origin. A stateful case (sequences.ts) makes its own besides, in 198.18.0.0/15.
import { postAlert } from '../lab/alert.ts';
import type { Engine } from '../lab/engine.ts';
import type { Pair } from './pair.ts';

/** Go escapes five of these characters in JSON; `%` and `_` mean something to SQL. */
export const oddScenario = 'Odd/100%_<b>&"quoted"\\\u2028 Émile';

export async function seedWorld(engine: Engine): Promise<void> {
  await engine.ban('192.0.2.1');
  await engine.ban('192.0.2.2', { type: 'captcha' });
  // Two durations for one value, and two types.
  await engine.ban('192.0.2.3');
  await engine.ban('192.0.2.3', { duration: '24h' });
  await engine.ban('192.0.2.4', { duration: '8h' });
  await engine.ban('192.0.2.4', { type: 'captcha' });
  // Two origins; the longer is not the agent's.
  await postAlert(engine, { decisions: [{ value: '192.0.2.5' }] });
  await engine.ban('192.0.2.5', { duration: '48h' });
  await engine.ban('192.0.2.0/24', { duration: '12h' });
  await engine.ban('192.0.2.128/25');
  await engine.ban('2001:db8::1');
  await engine.ban('2001:db8:1::/48');
  await engine.ban('2001:db8:2::ffff:ffff:ffff:ffff');
  await engine.ban('FR', { scope: 'Country', type: 'captcha' });
  await engine.ban('64500', { scope: 'AS' });
  await engine.ban('alice', { scope: 'username' });
  const alert = (origin: string, value: string, scenario: string, scope = 'Ip') =>
    postAlert(engine, { scenario, decisions: [{ value, origin, scenario, scope }] });
  await alert('CAPI', '203.0.113.1', 'crowdsecurity/http-probing');
  await alert('lists', '203.0.113.2', 'firehol_test');
  await alert('crowdsec', '203.0.113.3', oddScenario);
  await alert('crowdsec', '203.0.113.16/28', 'crowdsecurity/ssh-bf');
  await postAlert(engine, { simulated: true, decisions: [{ value: '203.0.113.7' }] });
}

/** One decision that was taken back and one that ran out, after Lapidary has seen both. */
export async function endSome(pair: Pair): Promise<void> {
  await pair.ban('203.0.113.50');
  // On a machine that has much else to do a few seconds pass before Lapidary has seen it.
  await pair.ban('203.0.113.51', { duration: '10s' });
  const endMs = Date.now() + 10_000;
  await pair.sync();
  // The one is taken back before the other runs out, which is their order for both.
  await pair.pauseMs(Math.max(0, endMs - 3_000 - Date.now()));
  await pair.unban('203.0.113.50');
  await pair.pauseMs(Math.max(0, endMs - Date.now()));
  await pair.sync();
}
