// One `npm start` per state folder. The lock is a listening socket in the folder: a child that inherits it holds it,
// too, and the kernel closes it with the last of them, so a crash leaves nothing to clean up. Node has no flock(2),
// and not every machine a program for it. Not an abstract socket: two containers with one volume do not share those.
//
// A socket that refuses connections is dead for ever. So each holder has a socket of its own, a number higher than
// the dead one's before: whoever makes that name first has the lock, and nobody takes away what may be alive.

import { randomUUID } from 'node:crypto';
import { linkSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const folder = 'lock';
/** How long a holder may take to say who it is: a child that has inherited the lock never does. */
const answerMs = 2000;
/** A holder that is ending is asked again, for a second in all. */
const mostTries = 20;
const pauseMs = 50;

/**
 * Takes the lock of the state folder `state`. `introduction` is how the holder names itself to others.
 *
 * @param {string} state
 * @param {string} introduction
 * @returns {Promise<{ ok: true, fd: number } | { ok: false, holder: string }>} `fd`: for a child to inherit;
 *   `holder`: its introduction, empty when it does not answer
 */
export async function takeLock(state, introduction) {
  const before = process.cwd();
  // The path of a socket has 104 bytes at most: one from here always fits.
  process.chdir(state);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (;;) {
      const newest = newestNumber();
      const holder = newest === 0 ? null : await findHolder(pathOf(newest));
      if (holder !== null) return { ok: false, holder };
      const fd = await hold(newest + 1, introduction);
      if (fd !== null) return { ok: true, fd };
    }
  } finally {
    process.chdir(before);
  }
}

/** Listens under this number, unless somebody has it or a higher one. */
async function hold(number, introduction) {
  const made = `${folder}/new-${randomUUID()}`;
  const server = await listen(made, introduction);
  if (publish(made, pathOf(number)) && newestNumber() === number) {
    const others = readdirSync(folder).filter((name) => name !== String(number));
    for (const name of others) rmSync(`${folder}/${name}`, { force: true });
    // Node tells it in no other way.
    return server._handle.fd;
  }
  server.close();
  return null;
}

/** It listens before it has its name, so that it is never taken for dead. */
function publish(made, path) {
  try {
    linkSync(made, path);
    return true;
  } catch (error) {
    // ENOENT: a holder has cleaned up.
    if (error.code === 'EEXIST' || error.code === 'ENOENT') return false;
    throw error;
  }
}

function pathOf(number) {
  return `${folder}/${number}`;
}

function newestNumber() {
  const numbers = readdirSync(folder).map(Number).filter(Number.isInteger);
  return Math.max(0, ...numbers);
}

function listen(path, introduction) {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on('error', () => socket.destroy()).end(introduction));
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

/**
 * Who listens at `path`: its introduction, empty when it says nothing, or null when it is dead. Whoever hangs up without a
 * word is just ending: the kernel closes what it had one after the other, and its socket may be the last.
 */
async function findHolder(path) {
  for (let tries = 1; tries <= mostTries; tries++) {
    const heard = await askHolder(path);
    if (heard !== undefined) return heard;
    await delay(pauseMs);
  }
  return '';
}

/** As `findHolder`; undefined: it hung up without a word. */
function askHolder(path) {
  return new Promise((resolve, reject) => {
    let heard;
    const socket = connect(path);
    socket.setEncoding('utf8');
    const impatience = setTimeout(() => {
      heard ??= '';
      socket.destroy();
    }, answerMs);
    socket.on('data', (text) => (heard = `${heard ?? ''}${text}`));
    socket.on('error', ({ code, message }) => {
      if (['ECONNREFUSED', 'ENOENT', 'ENOTSOCK'].includes(code)) resolve(null);
      // One that has more to answer than fits is alive.
      else if (code === 'EAGAIN') resolve('');
      else if (!['ECONNRESET', 'EPIPE'].includes(code)) {
        reject(Object.assign(new Error(message), { code, path }));
      }
    });
    socket.on('close', () => {
      clearTimeout(impatience);
      resolve(heard);
    });
  });
}
