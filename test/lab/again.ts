// The workerd of a Lapidary once more, with another configuration: what `npm start` runs is not written down twice.
import { readFile, writeFile } from 'node:fs/promises';
import { commandOf } from '../bench/cpu.ts';
import { type Child, startChild } from './child.ts';
import type { Lapidary } from './lapidary.ts';
import { freePort } from './ports.ts';

const dist = new URL('../../dist/', import.meta.url);

/**
 * Stops `lapidary` and starts its workerd by itself. `edit`: the built configuration with a socket called `socket` in
 * it, which listens on `port`.
 */
export async function startAgain(
  lapidary: Lapidary,
  socket: string,
  edit: (built: string) => string,
): Promise<{ workerd: Child; port: number }> {
  const { command, env } = commandOf((await lapidary.pids()).workerd);
  await lapidary.stop();
  const built = new URL('config.capnp', dist).pathname;
  const edited = new URL(`${socket}.capnp`, dist).pathname;
  await writeFile(edited, edit(await readFile(built, 'utf8')));
  const port = await freePort();
  const args = command.slice(1).map((argument) => (argument === built ? edited : argument));
  const workerd = startChild(command[0], [...args, `--socket-addr=${socket}=127.0.0.1:${port}`], { env });
  return { workerd, port };
}
