// The workerd of a Lapidary once more, with another configuration: what `npm start` runs is not written down twice.
import { readFile, writeFile } from 'node:fs/promises';
import { commandOf } from '../bench/cpu.ts';
import { startChild } from './child.ts';
import type { Lapidary } from './lapidary.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const dist = new URL('../../dist/', import.meta.url);

export interface Again {
  /** Where the configuration's new sockets listen. */
  ports: [number, ...number[]];
  log(): string;
  /** Ends it, and the Lapidary that it was. */
  close(): Promise<void>;
}

/**
 * Stops `lapidary` and starts its workerd by itself, until it serves. `edit`: the built configuration with `sockets` of these
 * names in it, which listen on `ports`. `paths`: what answers then, of the Lapidary's address or as a whole address.
 */
export async function startAgain(
  lapidary: Lapidary,
  sockets: readonly [string, ...string[]],
  edit: (built: string) => string,
  paths: (ports: readonly number[]) => string[] = () => ['/health'],
): Promise<Again> {
  const { command, env } = commandOf((await lapidary.pids()).workerd);
  await lapidary.stop();
  const built = new URL('config.capnp', dist).pathname;
  const edited = new URL(`${sockets[0]}.capnp`, dist).pathname;
  await writeFile(edited, edit(await readFile(built, 'utf8')));
  const args = command.slice(1).map((argument) => (argument === built ? edited : argument));
  const ports: number[] = [];
  for (const socket of sockets) {
    const port = await freePort();
    ports.push(port);
    args.push(`--socket-addr=${socket}=127.0.0.1:${port}`);
  }
  const workerd = startChild(command[0], args, { env });
  async function close(): Promise<void> {
    await workerd.end();
    await lapidary.close();
  }
  try {
    await until('it answers', async (saw) => {
      saw(workerd.log());
      const answers = await Promise.all(paths(ports).map((path) => fetch(new URL(path, lapidary.url))));
      return answers.every((answer) => answer.ok);
    });
  } catch (error) {
    await close();
    throw error;
  }
  return { ports: ports as Again['ports'], log: () => workerd.log(), close };
}
