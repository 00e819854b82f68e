// An installation with many of everything: what the pages and lists of operators have to hold, made quickly. Decisions are those of an
// engine; bouncers are imported and poll; the rest is written to D1 as operators and hosts would have left it.
import { hash, randomBytes } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { load, requestBytes } from '../bench/load.ts';
import { fillAudit, writeD1 } from './d1-file.ts';
import { type DecisionRow, insertDecisions } from './database.ts';
import { type Engine, startEngine } from './engine.ts';
import { type Lapidary, startLapidary } from './lapidary.ts';
import { until } from './wait.ts';

export interface Sizes {
  readonly bouncers: number;
  readonly decisions: number;
}

export interface BigInstallation {
  readonly engine: Engine;
  readonly lapidary: Lapidary;
  close(): Promise<void>;
}

/** The address on which more decisions are than a look-up shows. */
export const crowded = '192.0.2.1';
const onCrowded = 200;
/** One of those whose decision an entry of the allow-list withholds. */
export const withheld = ipv6(0x20, 0);
export const nameOf = (at: number): string => `bouncer-${String(at).padStart(5, '0')}`;
/** The bouncer with the most clients. */
export const busiest = nameOf(1);

const addressHeader = 'x-lab-address';
const mostImported = 1000;
const agents = ['crowdsec-firewall-bouncer/v0.0.34', 'crowdsec-nginx-bouncer/v1.1.3', 'lab/v1'];

/** One bouncer in five polls; one in fifty of those holds everything. One in fifty is paused, one in fifty has no key. */
export async function openBigInstallation({ bouncers, decisions }: Sizes): Promise<BigInstallation> {
  const engine = await startEngine();
  const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
  const settings = { CLIENT_ADDRESS_HEADER: addressHeader, SYNC_INTERVAL_SECONDS: '10' };
  const lapidary = await startLapidary({ upstream, settings });
  // D1's file is made at its first use.
  await lapidary.addBouncer('first');
  await lapidary.stop();
  await writeD1(lapidary.stateDir, (database) => {
    fillAudit(database, 10 * bouncers);
    fillHosts(database, bouncers);
    fillOperators(database, bouncers / 20);
    fillAllowList(database, bouncers);
  });
  insertDecisions(engine, manyDecisions(decisions));
  await lapidary.start();
  const keys = await enrol(lapidary, bouncers);
  await until(
    'the feed is whole',
    async () => (await lapidary.feed()).decisions === decisions,
    60_000 + decisions,
  );
  await poll(lapidary, keys);
  await change(lapidary, bouncers);
  return {
    engine,
    lapidary,
    close: async () => {
      await lapidary.close();
      await engine.close();
    },
  };
}

/** An address for documentation; `at` is below 2^32. */
function ipv6(block: number, at: number): string {
  return `2001:db8:${block.toString(16)}:${(at >>> 16).toString(16)}::${(at & 0xffff).toString(16)}`;
}

/** In every scope, of several origins and many scenarios; some on one value, some on ranges around it. */
function manyDecisions(count: number): DecisionRow[] {
  const seconds = (at: number) => 86_400 + at;
  const special: DecisionRow[] = [
    ...Array.from({ length: onCrowded }, (_, at) => ({ value: crowded, scenario: `lab/crowd-${at}` })),
    ...Array.from({ length: 16 }, (_, at) => ({
      value: `192.0.${at < 8 ? 0 : 2}.0/${16 + at}`,
      scope: 'Range',
    })),
    ...['FR', 'XA', 'XB'].map((value) => ({ value, scope: 'Country', origin: 'cscli' })),
    ...['64500', '64501'].map((value) => ({ value, scope: 'AS', origin: 'cscli' })),
    ...Array.from({ length: 20 }, (_, at) => ({
      value: ipv6(0x10, at),
      origin: 'crowdsec',
      type: 'captcha',
    })),
  ];
  const withheldRows = Array.from({ length: Math.min(1000, count / 20) }, (_, at) => ({
    value: ipv6(0x20, at),
    origin: 'lists',
  }));
  const left = count - special.length - withheldRows.length;
  // Of three one is on the value of the one before.
  const common = Array.from({ length: left }, (_, at) => {
    const number = at % 3 === 1 ? at - 1 : at;
    const origin = at % 3 === 1 ? 'lists' : 'CAPI';
    return { value: ipv6(1, number), origin, scenario: `lab/scenario-${at % 50}`, seconds: seconds(at) };
  });
  // What was added last is on the first page.
  return [...common, ...special, ...withheldRows];
}

/** Hosts of one bouncer each, of which some are suspected; the newest token enrolled all, a hundred others some. */
function fillHosts(database: DatabaseSync, count: number): void {
  const nowMs = Date.now();
  const host = database.prepare(
    `INSERT INTO hosts (name, public_key, fingerprint, created_ms, suspected_ms, seen_ms, last_refused_ms, last_refused_why)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const key = database.prepare(
    `INSERT INTO host_keys (kind, name, host_id, generation, recoveries_left) VALUES ('bouncer', ?, ?, ?, 1)`,
  );
  const token = database.prepare(
    `INSERT INTO enrolments (ref, digest, hosts, bouncer, max_hosts, created_ms, expires_ms) VALUES (?, ?, 'host-*', '{host}', 10000, ?, ?)`,
  );
  const use = database.prepare(
    'INSERT INTO enrolment_hosts (enrolment_id, host, fingerprint, at_ms) VALUES (?, ?, ?, ?)',
  );
  const tokens = 101;
  for (let at = 1; at <= tokens; at++)
    token.run(`ref-${at}`, hash('sha512', `token ${at}`), nowMs, nowMs + 3_600_000);
  for (let at = 0; at < count; at++) {
    const name = `host-${String(at).padStart(5, '0')}`;
    const fingerprint = `SHA256:${hash('sha256', name, 'base64').slice(0, 43)}`;
    // Suspected ones are at the end: the first page of them is found behind all others.
    const suspectedMs = at > 0.99 * count ? nowMs : null;
    const refused = at % 7 === 0 ? [nowMs, 'the signature is of another key'] : [null, null];
    host.run(
      name,
      `ssh-ed25519 ${name}`,
      fingerprint,
      nowMs,
      suspectedMs,
      nowMs,
      ...(refused as [number, string]),
    );
    key.run(`hosted-${at}`, at + 1, at % 2);
    use.run(tokens, name, fingerprint, nowMs);
    use.run(1 + (at % (tokens - 1)), name, fingerprint, nowMs);
  }
}

function fillOperators(database: DatabaseSync, count: number): void {
  const nowMs = Date.now();
  const insert = database.prepare(
    'INSERT INTO operator_tokens (name, digest, role, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?)',
  );
  for (let at = 0; at < count; at++) {
    insert.run(`operator-${at}`, hash('sha512', `operator ${at}`), 'viewer', nowMs, nowMs + 86_400_000);
  }
}

/** Its last entries withhold a decision each. */
function fillAllowList(database: DatabaseSync, count: number): void {
  const insert = database.prepare(
    'INSERT INTO allowed_networks (value, comment, created_ms, actor) VALUES (?, ?, ?, ?)',
  );
  const touching = Math.min(1000, count / 10);
  for (let at = 0; at < count; at++) {
    const value = at < count - touching ? ipv6(0xffff, at) : ipv6(0x20, at - count + touching);
    insert.run(value, 'an office', Date.now(), 'token:operator-1');
  }
}

async function enrol(lapidary: Lapidary, count: number): Promise<string[]> {
  const keys = Array.from({ length: count }, () => randomBytes(16).toString('hex'));
  for (let at = 0; at < count; at += mostImported) {
    const part = keys.slice(at, at + mostImported);
    const bouncers = part.map((key, index) => ({ name: nameOf(at + index), api_key: hash('sha512', key) }));
    await expectStatus(200, lapidary.operator('POST', '/bouncers/import', { bouncers }));
  }
  return keys;
}

async function poll(lapidary: Lapidary, keys: readonly string[]): Promise<void> {
  const path = '/v1/decisions/stream?startup=true';
  const few = `${path}&origins=crowdsec`;
  const from = (key: string, at: number, address = ipv6(2, at), query = few): Buffer =>
    requestBytes(query, key, 'GET', {
      [addressHeader]: address,
      'User-Agent': agents[at % agents.length] as string,
    });
  const come = keys
    .filter((_, at) => at % 5 < 1)
    .map((key, at) => from(key, at, ipv6(2, at), at % 50 === 0 ? path : few));
  const clients = keys.map((_, at) => from(keys[1] as string, at, ipv6(3, at)));
  const requests = [...come, ...clients];
  const { workerd } = await lapidary.pids();
  await load({ url: lapidary.url, pid: workerd, connections: 8, count: requests.length, requests });
}

/** What operators do to bouncers one by one, and to many at once. */
async function change(lapidary: Lapidary, count: number): Promise<void> {
  for (let at = 0; at < count; at += mostImported) {
    const names = [`${nameOf(at).slice(0, 'bouncer-00'.length)}*`];
    await expectStatus(
      201,
      lapidary.operator('POST', '/rotations', { selector: { names }, expires_in: '30d' }),
    );
  }
  for (let at = 2; at < count; at += 50) {
    const view = at % 100 === 2 ? { view: { origins: ['crowdsec'], max_decisions: 1000 } } : {};
    const policy = { paused: true, ...view };
    await expectStatus(
      200,
      lapidary.operator('PATCH', `/bouncers/${nameOf(at)}`, policy, { 'if-match': '*' }),
    );
    for (const version of [1, 2]) {
      await expectStatus(
        200,
        lapidary.operator('POST', `/bouncers/${nameOf(at + 1)}/versions/${version}/revoke`, {}),
      );
    }
  }
}

async function expectStatus(status: number, asked: ReturnType<Lapidary['operator']>): Promise<void> {
  const answer = await asked;
  if (answer.status !== status) throw new Error(`${answer.status}: ${JSON.stringify(answer.body)}`);
}
