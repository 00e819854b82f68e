// Makes test/faults/state-539c253.json: the state that `npm start` of that commit leaves, as SQL, with what it served.
//   git worktree add /tmp/old 539c253 && ln -s "$PWD/node_modules" /tmp/old && node test/faults/make-state.mjs /tmp/old
// The clock of the machine must be right: what is banned in it ends in ten years.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const [checkout] = process.argv.slice(2);
const port = 18_787;
const url = `http://127.0.0.1:${port}`;
// The feed remembers it: after the upgrade nobody is there.
const enginePort = 18_788;
const upstreamUrl = `http://127.0.0.1:${enginePort}`;
const operatorToken = 'an-operator-of-long-ago';
const state = mkdtempSync(join(tmpdir(), 'lapidary-state-'));
const duration = '87600h0m0s';

const engine = createServer((request, response) => {
  const row = (id, value, more) => {
    return { id, origin: 'crowdsec', scenario: 'lab', scope: 'Ip', type: 'ban', value, duration, ...more };
  };
  const rows = [
    ...Array.from({ length: 30 }, (_, index) => row(index + 1, `192.0.2.${index + 1}`)),
    row(41, '198.51.100.0/24', { scope: 'Range', origin: 'lists', scenario: 'a list' }),
    row(42, '2001:db8::/48', { scope: 'Range', type: 'captcha' }),
    row(43, '203.0.113.1', { origin: 'CAPI' }),
  ];
  const { pathname } = new URL(request.url, url);
  const answers = { '/v1/decisions': rows, '/v1/decisions/stream': { new: rows, deleted: [] } };
  response.writeHead(answers[pathname] ? 200 : 404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answers[pathname] ?? { message: 'not here' }));
});
await new Promise((resolve) => engine.listen(enginePort, '127.0.0.1', resolve));

execFileSync(process.execPath, ['scripts/build.mjs'], { cwd: checkout });
const lapidary = spawn(process.execPath, ['scripts/start.mjs'], {
  cwd: checkout,
  stdio: ['ignore', 'pipe', 'inherit'],
  env: {
    PATH: process.env.PATH,
    PORT: String(port),
    STATE_DIR: state,
    OPERATOR_TOKEN: operatorToken,
    UPSTREAM_URL: upstreamUrl,
    UPSTREAM_API_KEY: 'a-key-of-the-engine',
  },
});
process.on('exit', () => lapidary.kill('SIGTERM'));
await new Promise((resolve) => lapidary.stdout.once('data', resolve));

const keyOf = (name) => `key-of-${name.replace(', ', '-')}`;
const digestOf = (name) => createHash('sha512').update(keyOf(name)).digest('hex');
for (const name of ['plain', 'limited', 'rotated', 'rotating', 'revoked']) {
  await operate('POST', '/bouncers', { name, key_sha512: digestOf(name) });
  await pull(name);
}
const { revision } = await operate('GET', '/bouncers/limited');
const limits = { view: { scopes: ['range'] }, allowed_addresses: ['127.0.0.0/8', '::1/128'] };
await operate('PATCH', '/bouncers/limited', limits, { 'if-match': `"${revision}"` });
await operate('POST', '/bouncers/rotated/rotate', { grace: '0s', key_sha512: digestOf('rotated, new') });
await pull('rotated, new');
await operate('POST', '/bouncers/rotating/rotate', { key_sha512: digestOf('rotating, new') });
await operate('DELETE', '/bouncers/revoked');
await operate('POST', '/decisions', { value: '203.0.113.77', duration });
await operate('POST', '/decisions', { value: '203.0.113.78', duration, type: 'captcha' });
await operate('POST', '/decisions', { value: '203.0.113.79', duration });
await operate('DELETE', '/decisions?value=203.0.113.79');
await operate('PUT', '/blocked-machines/robot', { reason: 'lab' });
await operate('POST', '/operator-tokens', { name: 'ended', role: 'viewer', expires_in: '1h' });
await operate('DELETE', '/operator-tokens/ended');
await operate('POST', '/enrolments', { hosts: 'web-*', expires_in: '1h' });
await operate('PUT', '/hosts/web-1', { public_key: hostKey(), bouncers: ['web-1-fw'] });

const served = {};
await pull('rotating, new');
for (const name of ['plain', 'limited', 'rotated', 'rotated, new', 'rotating, new', 'revoked']) {
  served[keyOf(name)] = await pull(name);
}
lapidary.kill('SIGTERM');
await new Promise((resolve) => lapidary.once('exit', resolve));
engine.close();

const names = readdirSync(state, { recursive: true }).filter((name) => name.endsWith('.sqlite'));
const databases = Object.fromEntries(names.sort().map((name) => [name, statementsOf(join(state, name))]));
const fixture = new URL('state-539c253.json', import.meta.url).pathname;
writeFileSync(fixture, JSON.stringify({ operatorToken, upstreamUrl, served, databases }));
execFileSync('npx', ['prettier', '--write', fixture]);
rmSync(state, { recursive: true });

async function operate(method, path, body, headers = {}) {
  const response = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${operatorToken}`, ...headers },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

/** What a bouncer has from its start-up, sorted; the status when it has nothing. */
async function pull(name) {
  const headers = { 'x-api-key': keyOf(name) };
  const response = await fetch(`${url}/v1/decisions/stream?startup=true`, { headers });
  if (!response.ok) return response.status;
  return (await response.json()).new.map(({ scope, type, value }) => `${scope} ${type} ${value}`).sort();
}

function hostKey() {
  const folder = mkdtempSync(join(tmpdir(), 'lapidary-host-'));
  execFileSync('ssh-keygen', ['-q', '-N', '', '-C', '', '-t', 'ed25519', '-f', join(folder, 'key')]);
  const text = execFileSync('ssh-keygen', ['-y', '-f', join(folder, 'key')], { encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  return text.trim();
}

/** What makes the same database. */
function statementsOf(path) {
  const database = new DatabaseSync(path);
  const all = (sql) =>
    database
      .prepare(sql)
      .all()
      .map((row) => Object.values(row)[0]);
  const schema = database.prepare(`SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL`).all();
  const tables = schema.filter(({ type, name }) => type === 'table' && !name.startsWith('sqlite_'));
  const statements = tables.flatMap(({ name, sql }) => {
    const columns = all(`SELECT 'quote("' || name || '")' FROM pragma_table_info('${name}')`);
    return [
      sql,
      ...all(
        `SELECT 'INSERT INTO "${name}" VALUES (' || ${columns.join(" || ', ' || ")} || ')' FROM "${name}"`,
      ),
    ];
  });
  const others = schema.filter(({ type }) => type !== 'table').map(({ sql }) => sql);
  const counters = all(`SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'`)[0] === 1;
  const counted = !counters
    ? []
    : [
        'DELETE FROM sqlite_sequence',
        ...all(
          `SELECT 'INSERT INTO sqlite_sequence VALUES (' || quote(name) || ', ' || seq || ')' FROM sqlite_sequence`,
        ),
      ];
  database.close();
  return [...statements, ...counted, ...others];
}
