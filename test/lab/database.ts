// The engine's SQLite file seen from a second connection: for what no API of the engine can make happen.
import type { DatabaseSync } from 'node:sqlite';
import type { Engine } from './engine.ts';

const busyMs = 10_000;

/**
 * The caller closes it. Writes wait for the engine's own, and the engine's wait for them.
 * Columns start_ip to end_suffix are 64 bits wide: a statement that reads them needs setReadBigInts(true).
 */
export function openDatabase(engine: Pick<Engine, 'databasePath'>): DatabaseSync {
  // Node 20 has none. Only what needs an engine asks for it, and where there is an engine there is a later Node.
  const sqlite = process.getBuiltinModule('node:sqlite');
  return new sqlite.DatabaseSync(engine.databasePath, { timeout: busyMs });
}

/**
 * Holds the write lock: until it is released the engine reads, but whatever it must write waits. 1.4.6 gives up
 * after 100 s: with 500 on a pull (last_pull), with 403 on the first use of a key or on a changed User-Agent.
 */
export async function lockDatabase(
  engine: Pick<Engine, 'databasePath'>,
): Promise<{ release(): Promise<void> }> {
  const database = openDatabase(engine);
  database.exec('BEGIN IMMEDIATE');
  return {
    async release() {
      if (!database.isOpen) return;
      database.exec('ROLLBACK');
      database.close();
    },
  };
}

export interface DecisionRow {
  value: string;
  scope?: string;
  type?: string;
  origin?: string;
  scenario?: string;
  simulated?: boolean;
  /** From now; negative for one that has ended. */
  seconds?: number;
}

/** Writes decisions as a community pull does: straight into the table, under no alert of a machine. */
export function insertDecisions(engine: Pick<Engine, 'databasePath'>, rows: DecisionRow[]): void {
  writeDecisions(engine, rows, () => undefined);
}

/**
 * A community pull: what is listed still is deleted and inserted anew (UpdateCommunityBlocklist), which no delta shows, and
 * what is listed no more ends.
 */
export function replaceCommunityList(engine: Pick<Engine, 'databasePath'>, rows: DecisionRow[]): void {
  const values = JSON.stringify(rows.map(({ value }) => value));
  writeDecisions(engine, rows, (database) => {
    const listed = "origin = 'CAPI' AND value IN (SELECT value FROM json_each(?))";
    const now = sqlTime(Date.now());
    database.prepare(`DELETE FROM decisions WHERE ${listed}`).run(values);
    database.prepare("UPDATE decisions SET until = ? WHERE origin = 'CAPI' AND until > ?").run(now, now);
  });
}

/** `before`: what else is done in the same transaction. */
function writeDecisions(
  engine: Pick<Engine, 'databasePath'>,
  rows: readonly DecisionRow[],
  before: (database: DatabaseSync) => void,
): void {
  const database = openDatabase(engine);
  try {
    const insert = database.prepare(
      `INSERT INTO decisions (created_at, updated_at, until, scenario, type, scope, value, origin, simulated,
         ip_size, start_ip, start_suffix, end_ip, end_suffix)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    database.exec('BEGIN IMMEDIATE');
    before(database);
    const nowMs = Date.now();
    for (const row of rows) {
      insert.run(
        sqlTime(nowMs),
        sqlTime(nowMs),
        sqlTime(nowMs + (row.seconds ?? 4 * 3600) * 1000),
        row.scenario ?? 'lab',
        row.type ?? 'ban',
        row.scope ?? 'Ip',
        row.value,
        row.origin ?? 'CAPI',
        row.simulated ? 1 : 0,
        ...lookupColumns(row),
      );
    }
    database.exec('COMMIT');
  } finally {
    database.close();
  }
}

/** The text form in which the engine's SQLite driver writes times, and by which SQLite compares them. */
function sqlTime(ms: number): string {
  return new Date(ms).toISOString().replace('T', ' ').replace('Z', '000000+00:00');
}

type LookupColumns = [size: number | null, ...bounds: (bigint | null)[]];

/** The columns by which the engine finds an address (`?ip=`, `cscli decisions delete --ip`). */
function lookupColumns({ scope = 'Ip', value }: DecisionRow): LookupColumns {
  if (!/^(ip|range)$/i.test(scope)) return [null, null, null, null, null];
  const [address = '', length] = value.split('/');
  const bits = address.includes(':') ? 128 : 32;
  const hostBits = BigInt(bits - (length === undefined ? bits : Number(length)));
  const start = (addressNumber(address) >> hostBits) << hostBits;
  const end = start + (1n << hostBits) - 1n;
  return [bits / 8, ...halves(start, bits), ...halves(end, bits)];
}

/** IPv4 leaves the second half 0. */
function halves(address: bigint, bits: number): [bigint, bigint] {
  if (bits === 32) return [signed(address), signed(0n)];
  return [signed(address >> 64n), signed(address & ((1n << 64n) - 1n))];
}

/** pkg/types/ip.go uint2int: 64 unsigned bits moved into SQLite's signed range, which the highest leaves by one. */
function signed(half: bigint): bigint {
  const offset = (1n << 63n) - 1n;
  return half - offset > offset ? offset : half - offset;
}

function addressNumber(address: string): bigint {
  if (!address.includes(':')) {
    return address.split('.').reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  }
  const [head = '', tail = ''] = address.split('::');
  const words = (text: string) => (text === '' ? [] : text.split(':'));
  const missing = 8 - words(head).length - words(tail).length;
  const all = [...words(head), ...Array<string>(missing).fill('0'), ...words(tail)];
  return all.reduce((sum, word) => sum * 65536n + BigInt(`0x${word}`), 0n);
}
