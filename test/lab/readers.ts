// Programs of hosts that read a plain list: Debian's HAProxy, nginx and ipset, unpacked as the other programs are.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Ability } from './ability.ts';
import { run, startChild } from './child.ts';
import { libraryFolders, unpacked } from './debian.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

/** Libraries that a minimal Debian does not have. Their names differ by release. */
const libraries = /^lib(?:ipset|lua|opentracing)/;

async function packages(program: string): Promise<string[]> {
  const all = await run('apt-cache', ['depends', '--recurse', '--no-recommends', '--no-suggests', program]);
  return [program, ...all.split('\n').filter((name) => libraries.test(name))];
}

/** The command of a program, with what it needs to run. */
async function commandOf(program: 'haproxy' | 'nginx' | 'ipset'): Promise<string[]> {
  const root = await unpacked(program, () => packages(program));
  const folders = (await libraryFolders(root)).join(delimiter);
  return ['env', `LD_LIBRARY_PATH=${folders}`, join(root, 'usr/sbin', program)];
}

/** Whether they can run here; fetches them the first time. */
export async function canRunReaders(): Promise<Ability> {
  try {
    for (const program of ['haproxy', 'nginx', 'ipset'] as const) {
      const [env = '', ...args] = await commandOf(program);
      await run(env, [...args, '-v']);
    }
    return { ok: true };
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    return { ok: false, why: `Debian's haproxy, nginx and ipset can not be fetched: ${why}` };
  }
}

export const ipsetCommand = (): Promise<string[]> => commandOf('ipset');

/** How a proxy is told of a list, each with the lines of docs/lists/hosts.md. */
const configurations = {
  haproxy: {
    list: (text: string) => text,
    file: (folder: string, port: number) => `defaults
  mode http
  timeout client 5s
frontend web
  bind 127.0.0.1:${port}
  acl banned hdr_ip(x-forwarded-for) -f ${folder}/list
  http-request deny if banned
  http-request return status 200
`,
    args: (file: string) => ['-db', '-f', file],
    check: (file: string) => ['-c', '-f', file],
  },
  nginx: {
    list: (text: string) => text.replace(/^.+$/gm, 'deny $&;'),
    file: (folder: string, port: number) => `daemon off;
pid ${folder}/pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  set_real_ip_from 127.0.0.1;
  real_ip_header X-Forwarded-For;
  include ${folder}/list;
  server {
    listen 127.0.0.1:${port};
    location / { empty_gif; }
  }
}
`,
    args: (file: string) => ['-c', file],
    check: (file: string) => ['-t', '-c', file],
  },
} as const;

export type ProxyName = keyof typeof configurations;
export const proxyNames = Object.keys(configurations) as ProxyName[];

/** A proxy that refuses whom a list bans. `list`: as `/lists/plain` has it. */
export async function startProxy(name: ProxyName, list: string) {
  const configuration = configurations[name];
  const folder = await mkdtemp(join(tmpdir(), `lapidary-${name}-`));
  const port = await freePort();
  const file = join(folder, 'configuration');
  await writeFile(join(folder, 'list'), configuration.list(list));
  await writeFile(file, configuration.file(folder, port));
  const [env = '', ...command] = await commandOf(name);
  await run(env, [...command, ...configuration.check(file)]);
  const child = startChild(env, [...command, ...configuration.args(file)]);

  const statusFor = (client: string): Promise<number> =>
    new Promise((resolve) => {
      const sent = request(
        { port, host: '127.0.0.1', agent: false, headers: { 'x-forwarded-for': client } },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      sent.on('error', () => resolve(0));
      sent.end();
    });

  await until(`${name} answers`, async (saw) => {
    saw(child.log());
    return (await statusFor('203.0.113.250')) !== 0;
  });
  return {
    /** Whether a client at this address is refused. */
    refuses: async (client: string): Promise<boolean> => (await statusFor(client)) === 403,
    async close(): Promise<void> {
      await child.end();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
