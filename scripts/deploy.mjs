// `npm run deploy`: brings this checkout to Cloudflare. What is yours (lapidary.toml, which git does not track) is laid
// over wrangler.toml, the migrations of D1 are applied, and then the Worker is uploaded. Arguments go to `wrangler deploy`.

import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { experimental_readRawConfig as readConfig } from 'wrangler';
import { mintSecret } from '../dist/mint.js';
import { readSettings, settingNames } from '../dist/settings.js';

const mineName = 'lapidary.toml';
/** Beside wrangler.toml, so that paths in it mean the same. */
const madeName = 'wrangler.deploy.json';

const mine = existsSync(mineName) ? read(mineName) : {};
const config = laidOver(read('wrangler.toml'), mine);
// A second Lapidary in one account has its own keys, unless it says whose.
if (mine.name && !mine.d1_databases) config.d1_databases[0].database_name = mine.name;
checkSettings(config.vars);
writeFileSync(madeName, `${JSON.stringify(config, null, 2)}\n`);

const given = process.argv.slice(2);
// First, so that no code meets a database that it does not know. wrangler's question is not shown: the upload follows either way.
if (!given.includes('--dry-run')) run(['d1', 'migrations', 'apply', 'DB', '--remote'], 'ignore');
run(['deploy', ...given], 'inherit');

function read(path) {
  try {
    return readConfig({ config: path }).rawConfig;
  } catch (error) {
    return stop(`${path} can not be read: ${error.message}`);
  }
}

/** Tables key by key; everything else, lists too, in place of what was there. */
function laidOver(base, over) {
  const both = Object.entries(over).map(([name, value]) => {
    return [name, isTable(value) && isTable(base[name]) ? laidOver(base[name], value) : value];
  });
  return { ...base, ...Object.fromEntries(both) };
}

function isTable(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What is wrong with a setting would else be seen by bouncers first. Secrets are not known here. */
function checkSettings(vars) {
  const unknown = Object.keys(vars).find((name) => !settingNames.includes(name));
  if (unknown) stop(`${mineName}: there is no setting ${unknown}`);
  try {
    readSettings({ ...vars, BOOTSTRAP_SECRET: mintSecret('cso_') });
  } catch (error) {
    stop(`${mineName}: ${error.message}`);
  }
}

function run(args, stdin) {
  // npm has put this checkout's first on the PATH.
  const { status } = spawnSync('wrangler', [...args, '-c', madeName], {
    stdio: [stdin, 'inherit', 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
}

function stop(problem) {
  console.error(problem);
  return process.exit(1);
}
