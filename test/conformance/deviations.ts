// Every way in which Lapidary answers other than a LAPI, and why: the table that docs/deviations.md repeats.
// A case names the rows it shows; a difference under no row fails, and so does a row that no case shows.
import type { EngineVersion } from './case.ts';

export interface Deviation {
  readonly lapi: string;
  readonly lapidary: string;
  readonly why: string;
  /** The first release that differs this way, and the first that does so no more. */
  readonly from?: string;
  readonly until?: string;
}

const rows = {
  'filters-first': {
    lapi: 'picks the longest decision of a value, then filters',
    lapidary: 'filters, then picks the longest',
    why: 'a bouncer with a filter loses a ban when a decision outside of the filter lasts longer (crowdsec#3373)',
  },
  'no-simulated': {
    lapi: 'serves simulated decisions, unmarked, when asked with `simulated=true`',
    lapidary: 'never serves them',
    why: 'a bouncer can’t tell them from real ones, and no `deleted` ever has them',
  },
  'simulated-hides': {
    lapi: 'a longer simulated decision hides a real one of the same value',
    lapidary: 'serves the real one',
    why: 'a simulation must not lift a ban (crowdsec#4679)',
  },
  'announced-twice': {
    lapi: 'sends each change once, a removal again within 2 s',
    lapidary: 'sends each change in two successive deltas',
    why: 'no server knows whether an answer arrived; a repeat harms no bouncer, a lost change does',
  },
  'first-delta': {
    lapi: 'answers the first delta of a key with what changed since the key was made',
    lapidary: 'answers with the full state, as from 1.6.3 on',
    why: 'some bouncers never ask for the start-up state, or lose it',
    until: '1.6.3',
  },
  'cursor-per-view': {
    lapi: 'has one cursor per key: a delta under one filter takes the changes from another',
    lapidary: 'has one per key, address and filter',
    why: 'two programs with one key each see every change',
  },
  'lookups-keep-cursor': {
    lapi: 'moves the cursor at a lookup if it is older than a minute',
    lapidary: 'moves it at deltas and start-ups only',
    why: 'a client that does both would lose changes',
  },
  'head-keeps-cursor': {
    lapi: 'takes HEAD on the stream for a poll, and moves the cursor',
    lapidary: 'takes it for a check of the key, as from 1.5.0 on',
    why: 'AppSec checks keys so, and must not take changes from a bouncer',
    until: '1.5.0',
  },
  survivor: {
    lapi: 'when the longest decision of a value is deleted, says nothing of the next one',
    lapidary: 'announces the next one again',
    why: 'bouncers keep a ban for its duration: they would ban the value for as long as the deleted decision said',
  },
  'hard-deletes': {
    lapi: 'never announces what is deleted with its alert, by a flush (to 1.7.8), or by a list refresh',
    lapidary: 'announces the removal, found by comparing the full list',
    why: 'the value would stay banned until the decision expires',
  },
  'removal-held-back': {
    lapi: 'with `dedup=false` announces each removal at once',
    lapidary: 'holds it back while another decision bans the same value, then announces all',
    why: 'most bouncers unban by value, and would lift a ban that still holds',
  },
  'one-address': {
    lapi: 'takes `192.0.2.9`, `192.0.2.9/32` and `::ffff:192.0.2.9` for three values',
    lapidary: 'holds a removal back while another bans the same address, then announces all',
    why: 'a kernel’s set has one element for all spellings: removing one would lift the others',
  },
  'one-removal-per-value': {
    lapi: 'of decisions on a value that are removed together announces the first (from 1.5.0 on: all)',
    lapidary: 'announces the one that was removed last',
    why: 'a removal says that nothing bans the value any more; once is enough',
  },
  unseen: {
    lapi: 'announces the removal of a decision that came and went between two polls',
    lapidary: 'does not, if it came and went between two syncs',
    why: 'no bouncer can have it',
  },
  'removed-again': {
    lapi: 'announces the removal again when a removed decision is deleted once more',
    lapidary: 'does not',
    why: 'nothing changed',
  },
  'last-second': {
    lapi: 'serves a decision to its last moment, with `0s` or a fraction of a second',
    lapidary: 'leaves it out when less than a second is left',
    why: '`0s` is a ban for ever to lua, nftables and ipset',
  },
  ties: {
    lapi: 'serves all decisions of a value that expire at the same moment',
    lapidary: 'serves the one with the lowest id, as before 1.5.0',
    why: 'one entry per value is what bouncers expect',
    from: '1.5.0',
  },
  'whole-seconds': {
    lapi: 'writes durations with nanoseconds',
    lapidary: 'writes whole seconds, rounded down, never longer than it lasts',
    why: 'lua reads `59.5s` as "for ever"; from 1.6.3 on LAPI rounds too',
    until: '1.6.3',
  },
  'bad-input': {
    lapi: 'answers 500 to an invalid `ip`, `range`, `contains`, `limit` (stream from 1.7.8 on: 200 and empty lists)',
    lapidary: 'answers 400 and names the parameter; likewise in usage metrics',
    why: 'the request is wrong; an empty answer would read as "nobody is banned"',
  },
  'scope-alias': {
    lapi: 'ignores `scope` (to 1.6.0); from 1.6.1 on adds it to the stream’s default `scopes=ip,range`, so that `scope=country` finds nothing',
    lapidary: 'reads it as `scopes`; with both, what is in both',
    why: 'cs-windows-firewall-bouncer sends `scope`',
  },
  'scope-case': {
    lapi: 'keeps a scope as the agent wrote it: `ip` is in no default stream',
    lapidary: 'reads `ip`, `range`, `country`, `as` in any case, as from 1.6.3 on',
    why: 'the ban would reach no bouncer',
    until: '1.6.3',
  },
  'list-pages': {
    lapi: 'ignores `limit`, `offset` and `id_gt` on the list',
    lapidary: 'applies them, by id, as from 1.5.0 on',
    why: 'newer clients use pages',
    until: '1.5.0',
  },
  'stream-pages': {
    lapi: 'applies `limit`, `offset`, `id_gt` to the stream, 1.7.8 `offset` only, and moves the cursor past the rest',
    lapidary: 'ignores them on the stream, as before 1.5.0',
    why: 'what is left out would never be sent',
    from: '1.5.0',
  },
  'letter-case': {
    lapi: 'ignores case in scenarios for ASCII letters only (on SQLite)',
    lapidary: 'ignores it for all letters',
    why: 'as LAPI does on its other databases',
  },
  'mapped-range': {
    lapi: 'reads a range of IPv4 addresses mapped into IPv6 as IPv6, and finds nothing',
    lapidary: 'reads it as IPv4, as both read single addresses',
    why: 'one rule for addresses and ranges',
  },
  neighbours: {
    lapi: 'reads IPv6 addresses whose halves end in `fffe` and `ffff` as equal',
    lapidary: 'tells them apart',
    why: 'a slip of 64-bit arithmetic bans a neighbour',
  },
  'ip-and-range': {
    lapi: 'with both `ip` and `range` uses one of them by chance',
    lapidary: 'uses `ip`',
    why: 'an answer must not depend on chance',
  },
  host: {
    lapi: 'accepts any text of certain letters as `Host`, and HTTP/1.0 without one',
    lapidary: 'answers 400 to a text that is no host name, and under `npm start` to a missing one',
    why: 'workerd parses it as an address',
  },
  connect: {
    lapi: 'answers 405 to CONNECT',
    lapidary: 'answers 500',
    why: 'workerd does so by itself; a Worker that handled it could only open a tunnel',
  },
  slashes: {
    lapi: 'redirects a path with a slash at its end, answers 404 to `//v1`',
    lapidary: 'serves both',
    why: 'lua, php and apache2 follow no redirect; a base address with a slash at its end is a common mistake',
  },
  'escaped-slash': {
    lapi: 'reads `%2F` in a path as a slash',
    lapidary: 'does not, as from 1.6.8 on',
    why: 'no client sends it',
    until: '1.6.8',
  },
  'error-bodies': {
    lapi: 'answers 404 and 405 without a body',
    lapidary: 'sends `{"message": …}` with every error',
    why: 'some Go bouncers crash on an error without it',
  },
  allow: {
    lapi: 'answers 405 without `Allow`',
    lapidary: 'sends it, as from 1.6.6 on',
    why: 'RFC 9110 asks for it',
    until: '1.6.6',
  },
  'machine-trust': {
    lapi: 'lets callers on its own host delete alerts, and anybody register a machine',
    lapidary: 'lets addresses in `MACHINE_ALLOW` and operators do either',
    why: 'through a tunnel everyone is on its host',
  },
  'token-places': {
    lapi: 'reads a machine’s token from a cookie and from the query (to 1.7.8), too',
    lapidary: 'reads it from `Authorization` only',
    why: 'queries end up in logs, and no client uses either',
  },
  'content-encoding': {
    lapi: 'reads no gzip (before 1.7.0), and ignores an encoding that it does not know',
    lapidary: 'reads gzip, whatever the engine, and answers 415 to any other encoding',
    why: 'newer agents compress; a body in another encoding can’t be read',
  },
  'login-size': {
    lapi: 'reads a log-in of any size',
    lapidary: 'refuses one of more than 2 MiB, as from 1.7.8 on',
    why: 'it is read before the caller is authenticated',
    until: '1.7.8',
  },
  'vyos-key': {
    lapi: 'knows `X-Api-Key` only',
    lapidary: 'reads the key from `apikey`, too',
    why: 'vyos sends it there',
  },
  'joined-keys': {
    lapi: 'reads `X-Api-Key: a, b` as one key',
    lapidary: 'uses `a`',
    why: 'the platform joins repeated headers like this, and LAPI uses the first of those',
  },
  layout: {
    lapi: 'writes `{"deleted":null,"new":null}` with a charset',
    lapidary: 'writes `{"new": [], "deleted": []}` without, byte for byte as from 1.7.8 on',
    why: 'one form for all engines, with lists that are always lists',
    until: '1.7.8',
  },
  order: {
    lapi: 'sends the stream’s decisions in no order',
    lapidary: 'sends them by id, as from 1.5.0 on',
    why: 'one form for all engines',
    until: '1.5.0',
  },
  framing: {
    lapi: 'sends streams chunked (from 1.7.8 on), and the length of the body that HEAD leaves out',
    lapidary: 'sends short answers with their length, and none with HEAD',
    why: 'a length lets clients see a cut connection; the platform owns it for HEAD',
  },
  'cache-control': {
    lapi: 'says nothing of caches',
    lapidary: 'sends `no-store, no-transform`',
    why: 'whatever stands between must not keep one bouncer’s answer for another, nor compress it unasked',
  },
  wait: {
    lapi: 'knows no `wait`: answers at once, whatever it says',
    lapidary: 'with `wait=SECONDS` (up to 55) answers when something changes; refuses another value',
    why: 'a ban is at a bouncer within a second or two, and it asks less often ([long polling](long-polling.md))',
  },
  gzip: {
    lapi: 'never compresses',
    lapidary: 'compresses a long stream answer for clients that ask for gzip',
    why: 'a start-up of 100,000 decisions is a tenth of the size',
  },
  health: {
    lapi: 'answers `{"status":"up"}`',
    lapidary: 'adds the state and age of the feed, sends no charset',
    why: 'a mirror that is up may still be stale',
  },
  'metrics-early': {
    lapi: 'has no `/v1/usage-metrics`',
    lapidary: 'has it, whatever the engine',
    why: 'nodejs-bouncer throws at 404',
    until: '1.6.3',
  },
  'metrics-lenient': {
    lapi: 'answers 422 to a report that lacks a field',
    lapidary: 'keeps it',
    why: 'lua posts objects where lists belong; a report is no reason for an error',
    from: '1.6.3',
  },
} satisfies Record<string, Deviation>;

export type DeviationId = keyof typeof rows;

export const deviations: Readonly<Record<DeviationId, Deviation>> = rows;

/** Whether an engine of this release differs from Lapidary in this way. */
export function isAgainst({ from, until }: Deviation, engine: EngineVersion): boolean {
  return (from === undefined || engine.since(from)) && !(until !== undefined && engine.since(until));
}

/** The rows of the table in docs/deviations.md. */
export function markdownRows(): string[] {
  return Object.entries(deviations).map(([id, { lapi, lapidary, why, from, until }]) => {
    const releases = [from && `from ${from} on`, until && `before ${until}`].filter(Boolean).join(', ');
    return `| ${id} | ${lapi}${releases && ` (${releases})`} | ${lapidary} | ${why} |`;
  });
}
