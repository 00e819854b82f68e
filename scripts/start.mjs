// `npm start`: the built Worker on workerd, with its state in STATE_DIR. Keeps workerd running, ends with it,
// and takes over after a crash: whatever was killed, the next start needs no clean-up by hand.

import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { rootCertificates } from 'node:tls';
import { mintSecret } from '../dist/mint.js';
import { readSettings, SettingError, settingNames } from '../dist/settings.js';
import { processes } from './processes.mjs';

const host = process.env.HOST ?? '127.0.0.1';
const port = process.env.PORT ?? '8787';
const state = resolve(process.env.STATE_DIR ?? '.lapidary');
// The platform's binary itself: a launcher between would be one more process to lose.
const binary = createRequire(import.meta.url)('workerd').default;
const stateArgument = `--directory-path=feed-data=${join(state, 'feed')}`;
const operatorHeader = join(state, 'operator-header');
const config = new URL('../dist/config.capnp', import.meta.url).pathname;

if (!/^\d{1,5}$/.test(port)) stop('PORT must be a number');
for (const folder of ['feed', 'd1']) mkdirSync(join(state, folder), { recursive: true, mode: 0o700 });

const token = operatorToken();
const environment = { ...process.env, OPERATOR_TOKEN: token.value, BOOTSTRAP_SECRET: bootstrapSecret() };
let prefix;
try {
  prefix = readSettings(environment).pathPrefix;
} catch (error) {
  if (!(error instanceof SettingError)) throw error;
  stop(error.message);
}

endLastRun();

let child;
let ending = false;
let restart;
let served = false;
let failures = 0;

process.on('SIGTERM', end);
process.on('SIGINT', end);
run();
await ready();
introduce();

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
  if (!existsSync(path)) writeSecret(path, `${randomBytes(32).toString('base64url')}\n`);
  return readFileSync(path, 'utf8').trim();
}

/** Whole or not at all, and never readable by others on the way. */
function writeSecret(path, text) {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** A supervisor that was killed leaves its workerd behind, which still holds the port and the state. */
function endLastRun() {
  for (const { pid, supervisor } of running()) {
    if (supervisor) stop(`${state} is in use by another npm start (process ${supervisor})`);
    process.kill(pid, 'SIGKILL');
  }
  while (running().length > 0) spawnSync('sleep', ['0.05']);
}

/** Each workerd on this state, with the supervisor that it has, if it has one. */
function running() {
  const all = processes();
  const supervisors = all.filter(({ command }) => command.includes('start.mjs')).map(({ pid }) => pid);
  return all
    .filter(({ command }) => command.includes(` ${stateArgument} `))
    .map(({ pid, parent }) => ({ pid, supervisor: supervisors.includes(parent) ? parent : null }));
}

function run() {
  const passed = Object.fromEntries(settingNames.map((name) => [name, environment[name]]));
  child = spawn(
    binary,
    [
      'serve',
      config,
      `--socket-addr=http=${host}:${port}`,
      stateArgument,
      `--directory-path=d1-data=${join(state, 'd1')}`,
    ],
    // Only the settings and whom to trust: the rest of this environment is none of the Worker's business.
    { env: defined({ ...passed, ...authorities() }), stdio: ['ignore', 'inherit', 'inherit'] },
  );
  child.on('exit', (code, signal) => {
    if (ending) process.exit(0);
    if (!served && ++failures > 2) stop(`workerd does not start (it ended with ${signal ?? code})`);
    console.error(`workerd ended with ${signal ?? code}; starting it again`);
    restart = setTimeout(run, served ? 100 : 1000);
  });
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

function address() {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}${prefix}`;
}

/** Waits until the Worker answers; the first request also wakes the feed. */
async function ready() {
  for (;;) {
    try {
      const health = await fetch(`${address()}/health`);
      if (health.ok) break;
    } catch {
      // Not listening yet.
    }
    await new Promise((again) => setTimeout(again, 50));
  }
  served = true;
}

function introduce() {
  // A token that was given is not written down here.
  const header = process.env.OPERATOR_TOKEN
    ? '"Authorization: Bearer $OPERATOR_TOKEN"'
    : `@${operatorHeader}`;
  if (token.made) console.log(`operator token made: it is in ${join(state, 'operator-token')}`);
  const { UPSTREAM_URL, UPSTREAMS } = process.env;
  console.log(`lapidary serves ${address()}${UPSTREAM_URL || UPSTREAMS ? '' : ' (no UPSTREAM_URL: local decisions only)'}

# make a bouncer's key, ban an address, pull the stream:
KEY=$(curl -sS -H ${header} ${address()}/api/v1/bouncers -d '{"name":"first"}' | sed 's/.*"key":"\\([^"]*\\)".*/\\1/')
curl -sS -H ${header} ${address()}/api/v1/decisions -d '{"value":"192.0.2.1","duration":"4h"}'
echo "X-Api-Key: $KEY" | curl -sS -H @- '${address()}/v1/decisions/stream?startup=true'
`);
}

function end() {
  if (ending) return;
  ending = true;
  clearTimeout(restart);
  if (child.exitCode !== null || child.signalCode !== null) process.exit(0);
  child.kill('SIGTERM');
  setTimeout(() => child.kill('SIGKILL'), 5000).unref();
}

function stop(why) {
  console.error(`lapidary: ${why}`);
  process.exit(1);
}
