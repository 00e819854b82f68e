// A router with RouterOS as far as the script of docs/lists/mikrotik.md needs one: it runs that script as it stands, by
// MikroTik's page on scripting. A model, since no such router is to be had.
import { readFileSync } from 'node:fs';
import { ask } from './appliances.ts';
import { mikrotik } from './grammars.ts';

export interface Router {
  /** The scheduler runs the script. Whether it came to its end: a command that fails ends it. */
  run(): Promise<boolean>;
  /** What the rules drop: the addresses of both lists. */
  bans(nowMs?: number): string[];
  readonly statuses: number[];
}

type Value = string | number | boolean | readonly string[];

/** A text in quotes, with what is escaped in it. */
const quoted = String.raw`"(?:[^"\\]|\\.)*"`;

/** Splits where a separator stands outside of all brackets and quotes. */
function split(text: string, separator: RegExp): string[] {
  const parts = [''];
  let depth = 0;
  for (const [token] of text.matchAll(new RegExp(`${quoted}|[^]`, 'g'))) {
    if (/^[[{(]$/.test(token)) depth++;
    if (/^[\]})]$/.test(token)) depth--;
    if (depth === 0 && separator.test(token)) parts.push('');
    else parts[parts.length - 1] += token;
  }
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

const inside = (text: string, open: string, close: string): string | undefined =>
  text.startsWith(open) && text.endsWith(close) ? text.slice(1, -1).trim() : undefined;

/** The script of the document. `key`: in place of KEY. */
function scriptFor(base: string, key: string): string {
  const page = readFileSync(new URL('../../docs/lists/mikrotik.md', import.meta.url), 'utf8');
  const [, script] = /^```\n(:local[^]*?)^```$/m.exec(page) ?? [];
  if (script === undefined) throw new Error('docs/lists/mikrotik.md has no script');
  return script.replace('https://lapidary.example.net', base).replace('password=KEY', `password=${key}`);
}

export function startRouter(base: string, key: string): Router {
  /** By menu, list and address: when each ends. */
  const entries = new Map<string, number>();
  const files = new Map<string, string>();
  const statuses: number[] = [];

  const living = (nowMs: number): string[] =>
    [...entries].filter(([, until]) => until > nowMs).map(([id]) => id);

  /** Within parentheses: one operator, and what stands on both sides of it. */
  function resultOf(text: string, variables: Map<string, Value>): Value {
    const [, left = '', operator, right = ''] = /^(.+) ([.+>]) (.+)$/.exec(text) ?? [];
    if (operator === undefined) throw new Error(`this router does not know (${text})`);
    const [a, b] = [valueOf(left, variables), valueOf(right, variables)];
    if (operator === '.') return `${a as string}${b as string}`;
    return operator === '+' ? Number(a) + Number(b) : Number(a) > Number(b);
  }

  function valueOf(text: string, variables: Map<string, Value>): Value {
    const nested = inside(text, '(', ')');
    if (nested !== undefined) return resultOf(nested, variables);
    const asked = inside(text, '[', ']');
    if (asked !== undefined) return find(asked, variables);
    const said = inside(text, '"', '"');
    if (said !== undefined) {
      return said.replace(/\\([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
    }
    if (!text.startsWith('$')) return text;
    const value = variables.get(text.slice(1));
    if (value === undefined) throw new Error(`there is no variable ${text}`);
    return value;
  }

  /** `:len […]` and `/ip firewall address-list find where list=…`. */
  function find(text: string, variables: Map<string, Value>, menu = ''): Value {
    const [, counted] = /^:len (.+)$/.exec(text) ?? [];
    if (counted !== undefined) return (valueOf(counted, variables) as readonly string[]).length;
    const [, own = menu, list] =
      /^(?:\/(ip|ipv6) firewall address-list )?find where list=(.+)$/.exec(text) ?? [];
    if (own === '' || list === undefined) throw new Error(`this router does not know [${text}]`);
    const prefix = `${own} ${valueOf(list, variables) as string} `;
    return living(Date.now()).filter((id) => id.startsWith(prefix));
  }

  async function fetchFile(text: string, variables: Map<string, Value>): Promise<void> {
    const settings = new Map(
      split(text, /^ $/).map((each) => {
        const [name = '', ...value] = each.split('=');
        return [name, valueOf(value.join('='), variables) as string];
      }),
    );
    const pair = `${settings.get('user')}:${settings.get('password')}`;
    const authorization = `Basic ${Buffer.from(pair).toString('base64')}`;
    const { status, body } = await ask(settings.get('url') as string, { authorization });
    statuses.push(status);
    if (status !== 200) throw new Error(`the fetch failed: ${status}`);
    files.set(settings.get('dst-path') as string, body.toString());
  }

  function importFile(name: string): void {
    const { entries: added, refused } = mikrotik(files.get(name) as string);
    if (refused.length > 0) throw new Error(`the import stops: ${refused[0]}`);
    for (const { family, list, text, hours } of added) {
      const id = `${family === 4 ? 'ip' : 'ipv6'} ${list} ${text}`;
      // One that is there is refused, and keeps its own time.
      if ((entries.get(id) ?? 0) <= Date.now()) entries.set(id, Date.now() + hours * 3_600_000);
    }
  }

  async function runAll(script: string, variables: Map<string, Value>): Promise<void> {
    for (const command of split(script, /^[;\n]$/)) {
      const [, name, value] = /^:(?:local|set) (\w+) (.+)$/.exec(command) ?? [];
      const [, condition, body] = /^:if (\(.+\)) do=\{(.+)\}$/.exec(command) ?? [];
      const [, menu, removed] = /^\/(ip|ipv6) firewall address-list remove \[(.+)\]$/.exec(command) ?? [];
      const [, settings] = /^\/tool fetch (.+)$/.exec(command) ?? [];
      const [, file] = /^\/import (\S+)$/.exec(command) ?? [];
      if (name !== undefined && value !== undefined) variables.set(name, valueOf(value, variables));
      else if (condition !== undefined && body !== undefined) {
        if (valueOf(condition, variables) === true) await runAll(body, variables);
      } else if (removed !== undefined) {
        for (const id of find(removed, variables, menu) as readonly string[]) entries.delete(id);
      } else if (settings !== undefined) await fetchFile(settings, variables);
      else if (file !== undefined) importFile(file);
      else throw new Error(`this router does not know ${command}`);
    }
  }

  return {
    statuses,
    bans: (nowMs = Date.now()) => [...new Set(living(nowMs).map((id) => id.split(' ')[2] as string))].sort(),
    async run() {
      try {
        await runAll(scriptFor(base, key), new Map());
        return true;
      } catch (error) {
        if (/^the fetch failed/.test((error as Error).message)) return false;
        throw error;
      }
    },
  };
}
