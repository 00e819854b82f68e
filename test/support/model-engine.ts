// A naive LAPI: what an engine's database does to a bouncer's deltas, holes included, in the dialect that is
// asked for. It answers the feed's requests in place of the network, where the real engine can't be: inside
// workerd's tests, with a clock that the test moves.
import { vi } from 'vitest';

export interface ModelDecision {
  id: number;
  origin: string;
  scenario: string;
  scope: string;
  type: string;
  value: string;
  untilMs: number;
  createdMs: number;
}

/** `nanoseconds` and `null` lists (1.4), `null` lists (1.5 to 1.7.7), or `[]` lists (1.7.8 on). */
export type Dialect = 'A' | 'B' | 'C';

export interface ModelEngine {
  readonly rows: Map<number, ModelDecision>;
  dialect: Dialect;
  /** What the next requests get instead of an answer; undefined: an answer. */
  fault: ((path: string, target: string) => Response | Promise<Response>) | undefined;
  readonly requests: string[];
  /** The keys of the bouncers that it knows; null: any key is one. Each has its own place in the stream. */
  keys: string[] | null;
  /** What it answers at a path and query when nothing is wrong. */
  answer(target: string): Response;
  /** What it answers to usage metrics (404: an engine before 1.6.3), and what it was sent. */
  metricsStatus: number;
  readonly metrics: { readonly headers: Headers; readonly body: any }[];
  /** Its own allow-lists (null: an engine before 1.6.6), and the password of the machine that may read them. */
  allowLists:
    { name: string; items: { value: string; expiration?: string; description?: string }[] | null }[] | null;
  machinePassword: string;
  /** Tokens that it has given out. Without them its machines log in again. */
  readonly tokens: Set<string>;
  add(decision: Partial<ModelDecision> & { value: string; untilMs: number }): ModelDecision;
  /** A soft delete: it is announced to the next delta. */
  expire(id: number): void;
  /** A hard delete: no delta ever tells. */
  drop(id: number): void;
  /** A row that a poll between its stamp and its commit makes invisible to every delta. */
  addUnseen(decision: Partial<ModelDecision> & { value: string; untilMs: number }): ModelDecision;
  active(): ModelDecision[];
  /** Puts another database in place of this one, an empty one or one that was kept, and returns this one. */
  swap(other?: ModelDatabase): ModelDatabase;
}

export interface ModelDatabase {
  readonly rows: ModelDecision[];
  readonly nextId: number;
}

/** The one engine that there is, whatever its address. */
export function startModelEngine(): ModelEngine {
  const { engine, handle } = createModelEngine();
  vi.spyOn(globalThis, 'fetch').mockImplementation(handle);
  return engine;
}

/** Several, by their host names. */
export function startModelEngines<Name extends string>(...hosts: Name[]): Record<Name, ModelEngine> {
  const models = hosts.map((host) => [host, createModelEngine()] as const);
  const handles = new Map<string, typeof fetch>(models.map(([host, { handle }]) => [host, handle]));
  vi.spyOn(globalThis, 'fetch').mockImplementation((input, init) => {
    const handle = handles.get(new URL(String(input)).hostname);
    return handle ? handle(input, init) : Promise.reject(new Error('nobody is there'));
  });
  return Object.fromEntries(models.map(([host, { engine }]) => [host, engine])) as Record<Name, ModelEngine>;
}

function createModelEngine(): { readonly engine: ModelEngine; readonly handle: typeof fetch } {
  let nextId = 1;
  const pulls = new Map<string, number>();
  const engine: ModelEngine = {
    rows: new Map(),
    dialect: 'C',
    fault: undefined,
    requests: [],
    keys: null,
    answer: (target) => answer(new URL(target, 'http://engine.example'), 'GET', ''),
    metricsStatus: 201,
    metrics: [],
    allowLists: null,
    machinePassword: 'pass',
    tokens: new Set(),
    add(decision) {
      const row = {
        id: nextId++,
        origin: 'cscli',
        scenario: 'test',
        scope: decision.value.includes('/') ? 'Range' : 'Ip',
        type: 'ban',
        createdMs: Date.now(),
        ...decision,
      };
      engine.rows.set(row.id, row);
      return row;
    },
    addUnseen: (decision) => engine.add({ ...decision, createdMs: -1 }),
    expire(id) {
      const row = engine.rows.get(id);
      if (row) row.untilMs = Date.now();
    },
    drop: (id) => void engine.rows.delete(id),
    swap(other = { rows: [], nextId: 1 }) {
      const kept = { rows: [...engine.rows.values()].map((row) => ({ ...row })), nextId };
      engine.rows.clear();
      for (const row of other.rows) engine.rows.set(row.id, { ...row });
      nextId = other.nextId;
      return kept;
    },
    active: () => [...engine.rows.values()].filter((row) => row.untilMs > Date.now()),
  };

  const answer = (url: URL, method: string, key: string): Response => {
    if (engine.keys && !engine.keys.includes(key)) {
      return Response.json({ message: 'access forbidden' }, { status: 403 });
    }
    const nowMs = Date.now();
    const encode = (rows: ModelDecision[]) => rows.map((row) => encodeDecision(row, nowMs, engine.dialect));
    if (url.pathname === '/v1/decisions/stream') {
      const lastPullMs = pulls.get(key) ?? 0;
      const fresh = engine.active().filter((row) => row.createdMs > lastPullMs);
      const ended = [...engine.rows.values()].filter(
        (row) => row.untilMs <= nowMs && row.untilMs > lastPullMs - 2000,
      );
      pulls.set(key, nowMs);
      return Response.json(listsOf(engine.dialect, encode(fresh), encode(ended)));
    }
    const ip = url.searchParams.get('ip');
    if (method === 'GET' && !pulls.has(key)) pulls.set(key, nowMs);
    const above = engine.dialect === 'A' ? 0 : Number(url.searchParams.get('id_gt') ?? 0);
    const rows = engine.active().filter((row) => row.id > above && (ip === null || row.value === ip));
    return Response.json(rows.length === 0 ? null : encode(rows));
  };

  const refuse = (code: number, message: string) => Response.json({ code, message }, { status: code });
  const answerMachine = async (path: string, init?: RequestInit): Promise<Response | undefined> => {
    if (path === '/v1/watchers/login') {
      const { password } = JSON.parse(String(init?.body));
      if (password !== engine.machinePassword) return refuse(401, 'incorrect Username or Password');
      const token = `jwt-${engine.requests.length}`;
      engine.tokens.add(token);
      return Response.json({ code: 200, expire: '2026-11-22T12:11:11Z', token });
    }
    if (path !== '/v1/allowlists') return undefined;
    const token = new Headers(init?.headers).get('authorization')?.slice('Bearer '.length) ?? '';
    if (!engine.tokens.has(token)) return refuse(401, 'cookie token is empty');
    return engine.allowLists
      ? Response.json(engine.allowLists)
      : new Response('404 page not found', { status: 404 });
  };

  const handle: typeof fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    engine.requests.push(url.pathname + url.search);
    const key = new Headers(init?.headers).get('x-api-key') ?? '';
    if (url.pathname === '/v1/usage-metrics') {
      const body = JSON.parse(String(init?.body));
      engine.metrics.push({ headers: new Headers(init?.headers), body });
      return new Response(null, { status: engine.metricsStatus });
    }
    const machines = engine.fault ? undefined : await answerMachine(url.pathname, init);
    if (machines) return machines;
    return engine.fault
      ? engine.fault(url.pathname, url.pathname + url.search)
      : answer(url, init?.method ?? 'GET', key);
  };
  return { engine, handle };
}

function listsOf(dialect: Dialect, fresh: unknown[], ended: unknown[]): object {
  if (dialect === 'C') return { new: fresh, deleted: ended };
  return { deleted: ended.length === 0 ? null : ended, new: fresh.length === 0 ? null : fresh };
}

function encodeDecision(row: ModelDecision, nowMs: number, dialect: Dialect): object {
  const leftMs = row.untilMs - nowMs;
  const { id, origin, scenario, scope, type, value } = row;
  // 1.4 prints nanoseconds; Go accepts any mix of units and so do we.
  const duration = dialect === 'A' ? `${leftMs / 1000}s` : `${Math.round(leftMs / 1000)}s`;
  return { duration, id, origin, scenario, scope, type, value };
}
