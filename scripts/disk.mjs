// Whether a state folder can be used: workerd says of a full disk, and of a damaged file, only where in its own source
// it noticed.

import {
  accessSync,
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

/** What an empty write-ahead log, its index and the next commits want. */
const roomBytes = 1 << 20;

/** SQLite's own numbers: the file is damaged, or is no database. */
const damages = [11, 26];

const reasons = {
  EACCES: 'it belongs to another user, or its mode forbids it',
  EDQUOT: 'the quota is used up: free some space',
  ENOSPC: 'no space is left: free some',
  EPERM: 'it belongs to another user, or the file system can not do this',
  EROFS: 'the file system is read-only: mount it for writing',
};

/**
 * What is wrong with the state folder `state`, and how to go on; null when nothing is.
 *
 * @param {string} state
 * @returns {Promise<string | null>}
 */
export async function diskProblem(state) {
  try {
    tryToWrite(join(state, `room-${process.pid}`));
  } catch (error) {
    return writeProblem(state, error);
  }
  for (const [part, remedy] of Object.entries(remedies)) {
    for (const path of databasesBelow(join(state, part))) {
      try {
        accessSync(path, constants.R_OK | constants.W_OK);
      } catch (error) {
        return writeProblem(path, error);
      }
      const damage = await damageOf(path);
      if (damage) return `${path} is damaged (${damage}): ${remedy(join(state, part))}`;
    }
  }
  return null;
}

/** One line of a failure to write at `path`. */
export function writeProblem(path, { code, message }) {
  return `${path} can not be written (${code ?? message}): ${reasons[code] ?? message}`;
}

const remedies = {
  feed: (path) =>
    `put back a copy of ${path}, or move it away: the engines' decisions are pulled anew, those made here are lost`,
  d1: (path) => `put back a copy of ${path}, or move it away: all keys and tokens are lost with it`,
};

function tryToWrite(path) {
  try {
    const file = openSync(path, 'w', 0o600);
    try {
      writeSync(file, Buffer.alloc(roomBytes));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } finally {
    rmSync(path, { force: true });
  }
}

function databasesBelow(folder) {
  const names = readdirSync(folder, { recursive: true });
  return names.filter((name) => name.endsWith('.sqlite')).map((name) => join(folder, name));
}

/** What SQLite finds; a third of a second for 100 MB. Node before 22.13 has none: then workerd has the first look. */
async function damageOf(path) {
  const sqlite = await import('node:sqlite').catch(() => null);
  if (sqlite === null) return null;
  let database;
  try {
    database = new sqlite.DatabaseSync(path, { readOnly: true });
    const [found] = Object.values(database.prepare('PRAGMA quick_check(1)').get());
    // On lines of its own it says in which database, too.
    return found === 'ok' ? null : found.split('\n').at(-1);
  } catch (error) {
    // Of anything else workerd may think better: it may write.
    return damages.includes(error.errcode & 0xff) ? error.message : null;
  } finally {
    database?.close();
  }
}
