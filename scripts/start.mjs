// `npm start`: the built Worker on workerd, with its state in STATE_DIR. Keeps workerd running, ends with it,
// and takes over after a crash: whatever was killed, the next start needs no clean-up by hand.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { rootCertificates } from 'node:tls';
import { isLoopbackUrl } from '../dist/public-url.js';
import { mintSecret } from '../dist/mint.js';
import { readSettings, SettingError, settingNames } from '../dist/settings.js';
import { diskProblem, writeProblem } from './disk.mjs';
import { takeLock } from './lock.mjs';
import { processes } from './processes.mjs';

/** How often in a row workerd may end without having served. */
const mostFailures = 5;
/** The pause before workerd is started again: doubled for each that lived shorter than `steadyMs`. */
const shortestPauseMs = 100;
const longestPauseMs = 10_000;
const steadyMs = 10_000;
/** How long workerd may take to answer after it listens. */
const readyMs = 60_000;
/** How long one answer may take meanwhile. */
const answerMs = 10_000;
/** How long it may take to end what it has begun, until it is killed. */
const graceMs = 5000;

// `*` is workerd's own name for every address.
const host = process.env.HOST === '*' ? '::' : (process.env.HOST ?? '127.0.0.1');
const port = process.env.PORT ?? '8787';
// The platform's binary itself: a launcher between would be one more process to lose.
const binary = createRequire(import.meta.url)('workerd').default;
const config = new URL('../dist/config.capnp', import.meta.url).pathname;

if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) stop('PORT must be a number up to 65535');
// Before anything that runs is ended: a start that can not be must not end what serves.
const { pathPrefix: prefix, engines } = checkSettings({
  ...process.env,
  OPERATOR_TOKEN: process.env.OPERATOR_TOKEN || mintSecret('cso_'),
  BOOTSTRAP_SECRET: process.env.BOOTSTRAP_SECRET || newSecret(),
});
const state = stateFolder();
const stateArgument = `--directory-path=feed-data=${join(state, 'feed')}`;
const operatorHeader = join(state, 'operator-header');
stopIf(await diskProblem(state));
const lock = await lockState();

const token = written(operatorToken);
const environment = {
  ...process.env,
  OPERATOR_TOKEN: token.value,
  BOOTSTRAP_SECRET: written(bootstrapSecret),
};
checkSettings(environment);
const trusted = written(authorities);
// Hosts on this machine register by what is printed; those elsewhere by the name that an operator's request fixes.
if (isLoopbackUrl(address())) environment.PUBLIC_URL ||= address();

let child;
let ending = false;
let introduced = false;

process.on('SIGTERM', end);
process.on('SIGINT', end);
await keepRunning();

/** What the settings say, with every one right. */
function checkSettings(environment) {
  try {
    return readSettings(environment);
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    return stop(error.message);
  }
}

/** The real one, so that two names of it are one. */
function stateFolder() {
  const named = resolve(process.env.STATE_DIR ?? '.lapidary');
  try {
    for (const folder of ['feed', 'd1']) mkdirSync(join(named, folder), { recursive: true, mode: 0o700 });
    return realpathSync(named);
  } catch (error) {
    return stop(writeProblem(named, error));
  }
}

/** What `write` gives back; nothing can be served when it can not write. */
function written(write) {
  try {
    return write();
  } catch (error) {
    if (error.code === undefined) throw error;
    return stop(writeProblem(error.path ?? state, error));
  }
}

/** The operator's token: given, kept from an earlier start, or made now. Never printed: output is kept as a log. */
function operatorToken() {
  if (process.env.OPERATOR_TOKEN) return { value: process.env.OPERATOR_TOKEN, made: false };
  const path = join(state, 'operator-token');
  const kept = existsSync(path);
  const value = kept ? readFileSync(path, 'utf8').trim() : mintSecret('cso_');
  if (!kept) writeSecret(path, `${value}\n`);
  // For curl -H @file: a token in the arguments of a command is readable by every user of the machine.
  writeSecret(operatorHeader, `Authorization: Bearer ${value}\n`);
  return { value, made: !kept };
}

/** What signs challenges for hosts and seals their engine's key: given, kept, or made now. Nobody needs to see it. */
function bootstrapSecret() {
  if (process.env.BOOTSTRAP_SECRET) return process.env.BOOTSTRAP_SECRET;
  const path = join(state, 'bootstrap-secret');
  if (!existsSync(path)) writeSecret(path, `${newSecret()}\n`);
  return readFileSync(path, 'utf8').trim();
}

function newSecret() {
  return randomBytes(32).toString('base64url');
}

/** Whole or not at all, and never readable by others on the way. */
function writeSecret(path, text) {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** A supervisor that was killed leaves its workerd behind, which serves on, and holds the port and the lock. */
async function endLastRun() {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    const deadlineMs = Date.now() + graceMs;
    for (const pid of leftBehind()) endProcess(pid, signal);
    while (leftBehind().length > 0 && Date.now() < deadlineMs) await delay(50);
  }
}

/** Each workerd on this state whose supervisor is gone. */
function leftBehind() {
  const all = processes();
  const starts = all
    .filter(({ args }) => args.some((arg) => arg.endsWith('start.mjs')))
    .map(({ pid }) => pid);
  return all
    .filter(
      ({ args, parent }) => args[1] === 'serve' && args.includes(stateArgument) && !starts.includes(parent),
    )
    .map(({ pid }) => pid);
}

function endProcess(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch ({ code }) {
    if (code === 'EPERM') stop(`${state} is in use by another user's workerd (process ${pid}): end it first`);
  }
}

async function lockState() {
  let lock = await tryLock();
  if (!lock.ok && lock.holder === '') {
    await endLastRun();
    lock = await tryLock();
  }
  if (!lock.ok) {
    const holder = lock.holder || 'it does not answer';
    stop(`${state} is in use by another npm start (${holder}): end it first, or give another STATE_DIR`);
  }
  // A version that knew no lock may have left one, too.
  await endLastRun();
  return lock.fd;
}

async function tryLock() {
  try {
    return await takeLock(state, `process ${process.pid} on ${hostname()}`);
  } catch (error) {
    return stop(writeProblem(error.path ?? join(state, 'lock'), error));
  }
}

/** Whom workerd trusts: OpenSSL's variables, the system's list or, where a small system has none, Node's. */
function authorities() {
  const { SSL_CERT_FILE, SSL_CERT_DIR } = process.env;
  if (SSL_CERT_FILE || SSL_CERT_DIR || hasAuthorities()) return { SSL_CERT_FILE, SSL_CERT_DIR };
  const path = join(state, 'authorities.pem');
  writeFileSync(path, rootCertificates.join('\n'));
  return { SSL_CERT_FILE: path };
}

/** Where workerd, which does not start without any, looks for them. */
function hasAuthorities() {
  const files = ['/etc/ssl/cert.pem', '/etc/pki/tls/certs/ca-bundle.crt'];
  const folder = '/etc/ssl/certs';
  return files.some((path) => existsSync(path)) || (existsSync(folder) && readdirSync(folder).length > 0);
}

function defined(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

/** Starts workerd again whenever it ends, until it can not serve or is to end. */
async function keepRunning() {
  let failures = 0;
  let short = 0;
  for (;;) {
    const startedMs = Date.now();
    const problem = await portProblem();
    if (problem && !introduced) stop(problem);
    const { served, how } = problem ? { served: false, how: problem } : await runOnce();
    if (ending) process.exit(0);
    failures = served ? 0 : failures + 1;
    if (!served) stopIf(await diskProblem(state));
    if (failures >= mostFailures) stop(`workerd does not serve, ${failures} times in a row: ${how}`);
    short = Date.now() - startedMs < steadyMs ? short + 1 : 1;
    const pauseMs = Math.min(longestPauseMs, shortestPauseMs * 2 ** (short - 1));
    console.error(`${how}; starting it again in ${pauseMs / 1000} s`);
    await delay(pauseMs);
    if (ending) process.exit(0);
  }
}

/** Why nobody can listen here, or null: workerd itself says it in three lines. */
function portProblem() {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', ({ code, message }) => {
      const why =
        code === 'EADDRINUSE' ? 'another process listens there: end it, or give another PORT' : message;
      resolve(`can not listen on ${authority()}: ${why}`);
    });
    server.listen(Number(port), host, () => server.close(() => resolve(null)));
  });
}

/** One workerd from its start to its end: whether it has served, and how it ended. */
async function runOnce() {
  const passed = Object.fromEntries(settingNames.map((name) => [name, environment[name]]));
  child = spawn(
    binary,
    [
      'serve',
      config,
      `--socket-addr=http=${authority()}`,
      stateArgument,
      `--directory-path=d1-data=${join(state, 'd1')}`,
      '--control-fd=4',
    ],
    // Only the settings and whom to trust: the rest of this environment is none of the Worker's business.
    { env: defined({ ...passed, ...trusted }), stdio: ['ignore', 'inherit', 'inherit', lock, 'pipe'] },
  );
  const ended = new Promise((resolve) => {
    child.once('error', ({ message }) => resolve(`workerd can not be run: ${message}`));
    child.once('exit', (code, signal) => resolve(`workerd ended with ${signal ?? code}`));
  });
  // Said when it listens: only from then on it is this one who answers at the port.
  const listens = new Promise((resolve) => child.stdio[4].once('data', resolve));
  const over = new AbortController();
  let served = false;
  listens.then(async () => {
    served = await answers(over.signal);
    if (!served || introduced) return;
    introduced = true;
    introduce();
  });
  const how = await ended;
  over.abort();
  return { served, how };
}

/** Whether the Worker answers before workerd ends; the first request also wakes the feed. */
async function answers(signal) {
  const deadlineMs = Date.now() + readyMs;
  for (;;) {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
    const health = await fetch(`${address()}/health`, { signal: patience }).catch(() => null);
    if (signal.aborted) return false;
    if (health?.ok) return true;
    if (Date.now() > deadlineMs) {
      child.kill('SIGKILL');
      stop(`${address()}/health answers ${health?.status ?? 'nothing'}: what is above says why`);
    }
    await delay(50);
  }
}

/** The host as it stands before a port. */
function authority() {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function address() {
  // Who listens on every address listens on this machine's own.
  const shown = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  return `http://${shown.includes(':') ? `[${shown}]` : shown}:${port}${prefix}`;
}

function introduce() {
  // A token that was given is not written down here.
  const header = process.env.OPERATOR_TOKEN
    ? '"Authorization: Bearer $OPERATOR_TOKEN"'
    : `@${operatorHeader}`;
  const kept = process.env.OPERATOR_TOKEN
    ? 'OPERATOR_TOKEN'
    : `the token in ${join(state, 'operator-token')}`;
  console.log(`console: ${address()}/console/ (sign in with ${kept})`);
  if (token.made) console.log(`operator token made: it is in ${join(state, 'operator-token')}`);
  console.log(`lapidary serves ${address()}${engines.length > 0 ? '' : ' (no UPSTREAM_URL: local decisions only)'}

# make a bouncer's key, ban an address, pull the stream:
KEY=$(curl -sS -H ${header} ${address()}/api/v1/bouncers -d '{"name":"first"}' | sed 's/.*"key":"\\([^"]*\\)".*/\\1/')
curl -sS -H ${header} ${address()}/api/v1/decisions -d '{"value":"192.0.2.1","duration":"4h"}'
echo "X-Api-Key: $KEY" | curl -sS -H @- '${address()}/v1/decisions/stream?startup=true'
`);
}

function end() {
  if (ending) return;
  ending = true;
  // Between two of them there is none to wait for.
  if (!child || child.exitCode !== null || child.signalCode !== null) process.exit(0);
  child.kill('SIGTERM');
  setTimeout(() => child.kill('SIGKILL'), graceMs).unref();
}

function stopIf(why) {
  if (why !== null) stop(why);
}

function stop(why) {
  console.error(`lapidary: ${why}`);
  process.exit(1);
}
