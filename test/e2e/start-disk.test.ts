// `npm start` on a disk that can not be used: one line says what, where and how to go on, and nothing is lost by it.
import { chmodSync, cpSync, readdirSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import type { Child } from '../lab/child.ts';
import { type Lapidary, runStart, startLapidary, workerdsOn } from '../lab/lapidary.ts';
import { type Disk, mountDisk } from '../lab/mount.ts';
import { freePort } from '../lab/ports.ts';
import { pullStream, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

/** What a start on this state says, which must be one line, before it ends. */
async function refusal(stateDir: string): Promise<string> {
  const child = runStart(stateDir, await freePort());
  started.push(child);
  expect(await child.exit).toBe(1);
  const [line, ...rest] = child.log().split('\n');
  expect(rest).toEqual(['']);
  return line!;
}

const started: Child[] = [];
let lapidary: Lapidary | undefined;
afterEach(async () => {
  await lapidary?.close();
  lapidary = undefined;
});

/** The database of the feed or of the keys, not workerd's own beside it. */
function databaseIn(folder: string): string {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return join(
    folder,
    names.find((name) => /[0-9a-f]{64}\.sqlite$/.test(name))!,
  );
}

/** Other bytes from this place on: at 0 it is no database any more, on a page of its own it still looks like one. */
async function overwrite(path: string, position: number): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(Buffer.alloc(4096, 0xa5), 0, 4096, position);
  await file.close();
}

const keys = (path: string) =>
  `put back a copy of ${path}, or move it away: all keys and tokens are lost with it`;
const mirror = (path: string) =>
  `put back a copy of ${path}, or move it away: the engines' decisions are pulled anew, those made here are lost`;

describeWith('a database', ['sqlite'], () => {
  test.each([
    ['feed', 0, 'file is not a database', mirror],
    ['feed', 2 * 4096, '.+', mirror],
    ['d1', 0, 'file is not a database', keys],
    ['d1', 2 * 4096, '.+', keys],
  ] as const)('%s is damaged at byte %i', async (part, position, what, remedy) => {
    lapidary = await startLapidary();
    const { stateDir, url } = lapidary;
    const key = await lapidary.addBouncer('b');
    await lapidary.ban('192.0.2.1');
    await lapidary.stop();
    const folder = join(stateDir, part);
    cpSync(folder, `${folder}-copy`, { recursive: true });
    await overwrite(databaseIn(folder), position);

    const line = await refusal(stateDir);
    expect(line).toMatch(new RegExp(`^lapidary: ${databaseIn(folder)} is damaged \\(${what}\\): `));
    expect(line.endsWith(remedy(folder))).toBe(true);
    // So it goes on.
    rmSync(folder, { recursive: true });
    renameSync(`${folder}-copy`, folder);
    await lapidary.start();
    expect(valuesOf((await pullStream({ url, key }, 'startup=true')).new)).toEqual(['192.0.2.1']);
  });
});

test('a feed that was moved away is begun anew, and the keys are those of before', async () => {
  lapidary = await startLapidary();
  const { stateDir, url } = lapidary;
  const key = await lapidary.addBouncer('b');
  await lapidary.stop();
  renameSync(join(stateDir, 'feed'), join(stateDir, 'feed-damaged'));
  await lapidary.start();
  expect((await pullStream({ url, key }, 'startup=true')).new).toEqual([]);
});

describeWith('a disk', ['mounts'], () => {
  let disk: Disk;
  let state: string;
  let key: string;
  beforeEach(async () => {
    lapidary = await startLapidary();
    key = await lapidary.addBouncer('b');
    await lapidary.ban('192.0.2.1');
    await lapidary.stop();
    disk = await mountDisk(16 << 20);
    state = join(disk.path, 'state');
    cpSync(lapidary.stateDir, state, { recursive: true });
    rmSync(join(state, 'lock'), { recursive: true });
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map((each) => each.end()));
    await disk.close();
  });

  function fill(): void {
    const { bfree, bsize } = statfsSync(disk.path);
    writeFileSync(join(disk.path, 'filling'), Buffer.alloc(bfree * bsize));
    expect(statfsSync(disk.path).bfree).toBe(0);
  }

  async function startHere() {
    const port = await freePort();
    const child = runStart(state, port);
    started.push(child);
    await until('it serves', (saw) => {
      saw(child.log());
      return child.log().includes('lapidary serves');
    });
    const banned = async () =>
      valuesOf((await pullStream({ url: `http://127.0.0.1:${port}`, key }, 'startup=true')).new);
    return { child, banned };
  }

  async function expectServed(): Promise<void> {
    const { child, banned } = await startHere();
    expect(await banned()).toEqual(['192.0.2.1']);
    await child.end();
  }

  test('that is full', async () => {
    fill();
    expect(await refusal(state)).toBe(
      `lapidary: ${state} can not be written (ENOSPC): no space is left: free some`,
    );
    rmSync(join(disk.path, 'filling'));
    await expectServed();
  });

  test('that is read-only', async () => {
    await disk.makeReadOnly();
    expect(await refusal(state)).toBe(
      `lapidary: ${state} can not be written (EROFS): the file system is read-only: mount it for writing`,
    );
    await disk.makeWritable();
    await expectServed();
  });

  test('that fills up meanwhile ends no poll, nor does a kill of workerd then', async () => {
    const { child, banned } = await startHere();
    fill();
    expect(await banned()).toEqual(['192.0.2.1']);
    const [before] = workerdsOn(state);
    process.kill(before!, 'SIGKILL');
    await until('another serves', async () => {
      return workerdsOn(state)[0] !== before && (await banned()).includes('192.0.2.1');
    });
    expect(child.running()).toBe(true);
    await child.end();
    rmSync(join(disk.path, 'filling'));
    await expectServed();
  });
});

const aFolderOfAnotherUser = async () => {
  lapidary = await startLapidary();
  await lapidary.addBouncer('b');
  const { stateDir } = lapidary;
  await lapidary.stop();
  chmodSync(stateDir, 0o500);
  expect(await refusal(stateDir)).toBe(
    `lapidary: ${stateDir} can not be written (EACCES): it belongs to another user, or its mode forbids it`,
  );
  chmodSync(stateDir, 0o700);
  chmodSync(databaseIn(join(stateDir, 'd1')), 0o400);
  expect(await refusal(stateDir)).toContain(
    `${databaseIn(join(stateDir, 'd1'))} can not be written (EACCES)`,
  );
  chmodSync(databaseIn(join(stateDir, 'd1')), 0o600);
  await lapidary.start();
};
// Root may write everywhere.
if (process.getuid?.() !== 0) test('a folder of another user', aFolderOfAnotherUser);

test('STATE_DIR is a file', async () => {
  lapidary = await startLapidary();
  const path = join(lapidary.stateDir, 'a file');
  writeFileSync(path, '');
  expect(await refusal(path)).toContain(`lapidary: ${path} can not be written (`);
});
