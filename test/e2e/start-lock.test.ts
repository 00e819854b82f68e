// One `npm start` per state folder: however many are started, by whatever name, and whatever was killed before.
// No suite here needs an engine, root or a program but Node.
import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Child, startChild } from '../lab/child.ts';
import { isRunning, operatorAt, runStart, workerdsOn } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

let folder: string;
let state: string;
let started: Child[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lapidary-lock-'));
  state = join(folder, 'state');
  started = [];
});
afterEach(async () => {
  await Promise.all(started.map((each) => each.end()));
  for (const pid of workerdsOn(state)) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function start(stateDir = state, settings: Record<string, string> = {}): Promise<Child> {
  const child = runStart(stateDir, await freePort(), settings);
  started.push(child);
  return child;
}

const serves = (child: Child): boolean => child.log().includes('lapidary serves');
const untilServes = (child: Child) => {
  return until('it serves', (saw) => {
    saw(child.log());
    return serves(child);
  });
};
const linesOf = (child: Child): string[] => child.log().trimEnd().split('\n');

/** What somebody reads who is refused, in one line: the folder, who has it, and what to do. */
const refusal = (holder: Child | string): RegExp => {
  const who = typeof holder === 'string' ? holder : `process ${holder.pid} on \\S+`;
  return new RegExp(
    `^lapidary: ${state} is in use by another npm start \\(${who}\\): end it first, or give another STATE_DIR$`,
  );
};

/** Waits until all but one have ended, and answers that one; the others were refused. */
async function expectOne(children: Child[]): Promise<Child> {
  await until('all but one have ended, and it serves', (saw) => {
    saw(children.map((each) => each.log()));
    const alive = children.filter((each) => each.running());
    return alive.length === 1 && serves(alive[0]!);
  });
  const winner = children.find((each) => each.running())!;
  for (const other of children.filter((each) => each !== winner)) {
    expect(await other.exit).toBe(1);
    expect(linesOf(other)).toEqual([expect.stringMatching(refusal(winner))]);
  }
  expect(workerdsOn(state)).toHaveLength(1);
  return winner;
}

/** Kills one with its workerd left behind; answers that one's pid. */
async function killAlone(child: Child): Promise<number> {
  const [workerd] = workerdsOn(state);
  process.kill(child.pid, 'SIGKILL');
  await child.exit;
  expect(isRunning(workerd!)).toBe(true);
  return workerd!;
}

const startMany = (count: number) => Promise.all(Array.from({ length: count }, () => start()));

test('of twelve at once on a new state one serves', async () => {
  const winner = await expectOne(await startMany(12));
  // Its token is the one that was kept.
  const url = /lapidary serves (\S+)/.exec(winner.log())![1]!;
  expect((await operatorAt(url, state)('GET', '/bouncers')).status).toBe(200);
});

test('of twelve at once after a crash one serves', async () => {
  const first = await start();
  await untilServes(first);
  const orphan = await killAlone(first);
  await expectOne(await startMany(12));
  expect(isRunning(orphan)).toBe(false);
});

test('a folder is the same under another name', async () => {
  const first = await start();
  await untilServes(first);
  symlinkSync(state, join(folder, 'link'));
  const second = await start(join(folder, 'link'));
  expect(await second.exit).toBe(1);
  expect(linesOf(second)).toEqual([expect.stringMatching(refusal(first))]);
});

test('a supervisor that does not look like one keeps its workerd', async () => {
  const script = join(folder, 'lapidary.mjs');
  symlinkSync(new URL('../../scripts/start.mjs', import.meta.url).pathname, script);
  const env = { PORT: String(await freePort()), STATE_DIR: state };
  const first = startChild(process.execPath, [script], { env });
  started.push(first);
  await untilServes(first);
  const before = workerdsOn(state);
  const second = await start();
  expect(await second.exit).toBe(1);
  expect(linesOf(second)).toEqual([expect.stringMatching(refusal(first))]);
  expect(workerdsOn(state)).toEqual(before);
});

test('the folder of one may lie beside or in that of another, and have any name', async () => {
  const names = ['state', 'state/feed-b', 'state/feed', 'a name; with $blanks', 'n'.repeat(200)];
  for (const name of names) await untilServes(await start(join(folder, name)));
  for (const name of names) expect(workerdsOn(join(folder, name))).toHaveLength(1);
  for (const child of started) expect(child.running()).toBe(true);
});

test('workerd holds the lock beyond its supervisor, until the next start has ended it', async () => {
  const first = await start();
  await untilServes(first);
  const orphan = await killAlone(first);
  const second = await start();
  await untilServes(second);
  expect(isRunning(orphan)).toBe(false);
  expect(workerdsOn(state)).toHaveLength(1);
});

test('one that can not start leaves the workerd of a crash serving', async () => {
  const first = await start();
  await untilServes(first);
  const orphan = await killAlone(first);
  const second = await start(state, { SYNC_INTERVAL_SECONDS: 'never' });
  expect(await second.exit).toBe(1);
  expect(isRunning(orphan)).toBe(true);
});

test('whoever has inherited the lock holds it, and is not ended', async () => {
  // It looks like no workerd, as from another container, and its supervisor is gone.
  const script = `
    import { spawn } from 'node:child_process';
    import { takeLock } from ${JSON.stringify(new URL('../../scripts/lock.mjs', import.meta.url).href)};
    const { fd } = await takeLock(process.argv[1], '');
    const wait = ['-e', 'setInterval(() => {}, 1000)', '--', '--directory-path=feed-data=' + process.argv[1] + '/feed'];
    const { pid } = spawn(process.execPath, wait, { stdio: ['ignore', 'ignore', 'ignore', fd] });
    console.log('held by', pid);
    setInterval(() => {}, 1000);`;
  mkdirSync(state);
  const taker = startChild(process.execPath, ['--input-type=module', '-e', script, state]);
  started.push(taker);
  const holder = await until('the lock is taken', () => /held by (\d+)/.exec(taker.log())?.[1]);
  await taker.end('SIGKILL');
  try {
    const second = await start();
    expect(await second.exit).toBe(1);
    expect(linesOf(second)).toEqual([expect.stringMatching(refusal('it does not answer'))]);
    expect(isRunning(Number(holder))).toBe(true);
  } finally {
    process.kill(Number(holder), 'SIGKILL');
  }
  await untilServes(await start());
});

test('a holder that ends while it is asked has let go', async () => {
  // It is killed by the question itself: the kernel hangs up on whoever asks.
  const holder = `
    import { createServer } from 'node:net';
    process.chdir(process.argv[1]);
    createServer(() => process.kill(process.pid, 'SIGKILL')).listen('lock/1', () => console.log('listens'));`;
  const asker = `
    import { takeLock } from ${JSON.stringify(new URL('../../scripts/lock.mjs', import.meta.url).href)};
    console.log('taken:', (await takeLock(process.argv[1], 'me')).ok);
    process.exit(0);`;
  const run = (script: string): Child => {
    const child = startChild(process.execPath, ['--input-type=module', '-e', script, state]);
    started.push(child);
    return child;
  };
  mkdirSync(join(state, 'lock'), { recursive: true });
  const held = run(holder);
  await until('the lock is held', () => held.log().includes('listens'));
  const asks = run(asker);
  expect(await asks.exit).toBe(0);
  expect(asks.log()).toContain('taken: true');
});

test('needs no other program', async () => {
  await untilServes(await start(state, { PATH: '' }));
  const second = await start(state, { PATH: '' });
  expect(await second.exit).toBe(1);
  expect(linesOf(second)).toEqual([expect.stringMatching(refusal(started[0]!))]);
});
