// A Lapidary whose isolate is asked for its memory: the same process once more, with an inspector, since what `npm start`
// runs is not written down twice, and with no more heap than Cloudflare leaves it: with room to spare V8 leaves garbage where
// it is.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, startChild } from '../lab/child.ts';
import type { Lapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';
import { commandOf, residentBytes } from './cpu.ts';
import { type Inspector, openInspector } from './inspector.ts';
import { startUp } from './startup.ts';
import { alone, type Row } from './table.ts';

/** Of the isolate that holds the object: https://developers.cloudflare.com/durable-objects/platform/limits/ */
export const limitMb = 128;
/** V8 bounds its heap alone. The rest is for buffers beside it: clients, tombstones and bodies on their way. */
const heapMb = 84;
const pullsAtOnce = 10;

export interface Watched {
  pid(): number;
  /** MB without garbage. */
  rest(): Promise<number>;
  /** The most MB that were seen while `work` ran, as often as the isolate finds a turn to answer. */
  most(work: () => Promise<void>): Promise<number>;
  /** At rest, and while start-ups hold their answers open. */
  figures(name: string, key: string, below?: number): Promise<Row[]>;
  /** Wakes the object from storage. */
  restart(): Promise<void>;
  log(): string;
  end(): Promise<void>;
}

/** Stops `lapidary`, which answers again under the inspector until `end`. */
export async function watch(lapidary: Lapidary): Promise<Watched> {
  const { command, env } = commandOf((await lapidary.pids()).workerd);
  await lapidary.stop();
  const [binary, serve, config, ...rest] = command as [string, string, string, ...string[]];
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-watched-'));
  await cp(dirname(config), dir, { recursive: true });
  const limited = join(dir, 'limited.capnp');
  const flags = `v8Flags = ["--max-heap-size=${heapMb}"],`;
  await writeFile(
    limited,
    (await readFile(config, 'utf8')).replace('services = [', `${flags}\n  services = [`),
  );
  let workerd: Child;
  let inspector: Inspector;

  async function begin(): Promise<void> {
    const port = await freePort();
    const args = [serve, limited, ...rest, `--inspector-addr=127.0.0.1:${port}`];
    workerd = startChild(binary, args, { env });
    await until('workerd answers', async () => (await lapidary.health()).status === 'up');
    inspector = await openInspector(port, 'lapidary');
  }
  const usedMb = async () => (await inspector.usedBytes()) / 1e6;
  const atRest = async () => {
    await inspector.collectGarbage(lapidary.health);
    return usedMb();
  };
  const most: Watched['most'] = async (work) => {
    let mostMb = await atRest();
    let running = true;
    const done = work().finally(() => (running = false));
    while (running) {
      mostMb = Math.max(mostMb, await usedMb());
      await delay(2);
    }
    await done;
    return mostMb;
  };
  /** None reads on before all have begun. */
  const pulls = async (key: string, gzip: boolean) => {
    let begun = 0;
    let release = () => {};
    const all = new Promise<void>((resolve) => (release = resolve));
    const hold = () => {
      if (++begun === pullsAtOnce) release();
      return all;
    };
    await Promise.all(Array.from({ length: pullsAtOnce }, () => startUp(lapidary.url, key, gzip, hold)));
  };
  const end = async () => {
    inspector?.close();
    await workerd.end();
  };

  await begin();
  return {
    pid: () => workerd.pid,
    rest: atRest,
    most,
    async figures(name, key, below) {
      return [
        alone(`${name}: at rest`, 'MB', await atRest(), below),
        alone(`  most in ${pullsAtOnce} start-ups at once`, 'MB', await most(() => pulls(key, false)), below),
        alone(`  most in ${pullsAtOnce} with gzip at once`, 'MB', await most(() => pulls(key, true)), below),
        alone('  resident process', 'MB', residentBytes(workerd.pid) / 1e6),
      ];
    },
    async restart() {
      await end();
      await begin();
    },
    log: () => workerd.log(),
    async end() {
      await end();
      await rm(dir, { recursive: true });
    },
  };
}
