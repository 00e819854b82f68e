// `npm run bench`: a real engine and Lapidary side by side on the same decisions, over loopback. Prints a table,
// writes it as JSON (BENCH_JSON, or .cache/bench.json), and ends with 1 when a target was missed.
// --quick: a small run, to see that it works. --no-targets: judges nothing. --parts=fh: these parts alone.

import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { startEngine } from '../lab/engine.ts';
import { startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import { measureAlerts } from './alerts.ts';
import { measureAuthentication } from './authentication.ts';
import { fullSizes, quickSizes } from './bench.ts';
import { measureBill } from './bill.ts';
import { measureBouncers } from './bouncers.ts';
import { measureCrowd } from './crowd.ts';
import { pidOf } from './cpu.ts';
import { makeDecisions } from './decisions.ts';
import { fsyncMs } from './disk.ts';
import { measureBounds, measureHeap } from './heap.ts';
import { measureLookups } from './lookups.ts';
import { measureMovingFeed } from './moving.ts';
import { measurePolls } from './polls.ts';
import { measureStartUps } from './startup.ts';
import { measureRevocation } from './revocation.ts';
import { measureStrangers } from './strangers.ts';
import { printTable, writeJson } from './table.ts';

const root = resolve(import.meta.dirname, '../..');
const quick = process.argv.includes('--quick');
const judged = !quick && !process.argv.includes('--no-targets');
const output = process.env.BENCH_JSON ?? join(root, '.cache/bench.json');
const chosen = process.argv.find((argument) => argument.startsWith('--parts='))?.slice('--parts='.length);
const sizes = quick ? quickSizes : fullSizes;
const bouncerCount = 100;

const startedMs = Date.now();
const [loadBefore] = loadavg();
const all = makeDecisions(2 * sizes.decisions);
const rows = all.slice(0, sizes.decisions);
const parts = {};

if (loadBefore > 0.5) say(`something else is running here: the load is ${loadBefore.toFixed(1)}`);
say(`starting both sides with ${sizes.decisions} decisions`);
const engine = await startEngine();
let lapidary;
let diskMs = NaN;
try {
  await engine.importDecisions(rows);
  lapidary = await startLapidary({
    upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
    settings: { SYNC_INTERVAL_SECONDS: String(sizes.intervalSeconds) },
  });
  await lapidary.sync({ full: true });
  await until('Lapidary has them', async () => (await lapidary.feed()).decisions === rows.length);
  const lapi = { url: engine.url, pid: pidOf(join(engine.dir, 'config.yaml')), keys: [] };
  const ours = { url: lapidary.url, pid: (await lapidary.pids()).workerd, keys: [] };
  for (let at = 0; at < bouncerCount; at++) {
    lapi.keys.push(await engine.addBouncer(`bench-${at}`));
    ours.keys.push(await lapidary.addBouncer(`bench-${at}`));
  }
  const bench = { sizes, rows, engine, lapidary, lapi, ours };

  // Start-ups first, while nobody has pulled yet.
  await measure('b', 'start-up pulls', () => measureStartUps(bench));
  // LAPI's database is in this folder, and each of its polls is a commit.
  diskMs = fsyncMs(engine.dir);
  await measure('a', 'empty delta polls', () => measurePolls(bench));
  await measure('c', 'live lookups', () => measureLookups(bench));
  await measure('d', 'the engine under many bouncers', () => measureBouncers(bench));
  await measure('f', 'knowing who polls', () => measureAuthentication(bench));
  await measure('h', "from an alert to a bouncer's poll", () => measureAlerts(bench));
  // Last: they lock this machine's log-ins out.
  await measure('j', 'what strangers cost', () => measureStrangers(bench));
  await lapidary.close();
  await measure('g', 'revocation in two isolates', () => measureRevocation(sizes));
  await measure('e', 'memory', () => {
    return measureHeap(bench, () => engine.importDecisions(all.slice(sizes.decisions)));
  });
  await measure('i', 'memory with everything at its bound', () => measureBounds(sizes));
  await measure('l', 'a feed that moves under eight isolates', () => measureMovingFeed(sizes));
  await measure('m', 'a crowd of clients', () => measureCrowd(sizes));
  await measure('k', 'what a request costs on Cloudflare', () => measureBill());
} finally {
  await lapidary?.close();
  await engine.close();
}

if (Object.keys(parts).length === 0) throw new Error(`there is no part ${chosen}`);
const table = Object.keys(parts)
  .sort()
  .flatMap((part) => parts[part].map((row) => ({ part, ...row })));
const missed = judged ? table.filter((row) => row.met === false) : [];
const versions = {
  engine: engine.version,
  workerd: JSON.parse(readFileSync(join(root, 'node_modules/workerd/package.json'), 'utf8')).version,
  node: process.version,
};
const seconds = Math.round((Date.now() - startedMs) / 1000);
const machine = {
  processor: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  loadBefore,
  fsyncMs: diskMs,
};
const startedAt = new Date(startedMs).toISOString();
await writeJson(output, { startedAt, seconds, quick, sizes, versions, machine, rows: table });

console.log(
  `\nLAPI ${versions.engine} and Lapidary on workerd ${versions.workerd}, ${sizes.decisions} decisions, ` +
    `${machine.cores} cores, fsync ${diskMs.toFixed(2)} ms, ${seconds} s\n`,
);
printTable(table, judged);
console.log(`\nwritten to ${output}${quick ? '; a quick run judges nothing' : ''}`);
if (missed.length > 0) console.error(`${missed.length} of the targets were missed`);
process.exit(missed.length > 0 ? 1 : 0);

async function measure(part, what, work) {
  if (chosen !== undefined && !chosen.includes(part)) return;
  say(`(${part}) ${what}`);
  parts[part] = await work();
}

/** Progress goes to standard error: standard output has the table alone. */
function say(text) {
  console.error(`${((Date.now() - startedMs) / 1000).toFixed(0).padStart(4)} s  ${text}`);
}
