// What an engine does with machines that register and log in (LAPI: controllers/v1/machines.go, middlewares/v1/jwt.go), in
// place of the network: auto-registration is of 1.6.3, and CI's real engine is older.
import { vi } from 'vitest';

export interface ModelAccounts {
  /** By `machine_id`. */
  readonly machines: Map<string, { password: string; validated: boolean }>;
  /** What was asked where, with the headers that it came with. */
  readonly requests: { host: string; path: string; headers: Headers; body: any }[];
  /** The token of its auto-registration; null: an engine before 1.6.3, or one without. */
  token: string | null;
  /** What the next requests get instead of an answer. */
  fault: (() => Response) | undefined;
}

export function startModelAccounts(): ModelAccounts {
  const engine: ModelAccounts = { machines: new Map(), requests: [], token: null, fault: undefined };
  const refuse = (status: number, message: string): Response =>
    Response.json({ code: status, message }, { status });

  const register = ({ machine_id: name, password, registration_token: token }: any): Response => {
    if (engine.machines.has(name)) return refuse(403, `user '${name}': user already exist`);
    if (engine.token !== null && token !== undefined && token !== engine.token) {
      return refuse(401, `invalid token for auto registration`);
    }
    const validated = engine.token !== null && token === engine.token;
    engine.machines.set(name, { password, validated });
    return new Response(null, { status: validated ? 202 : 201 });
  };

  const logIn = ({ machine_id: name, password }: any): Response => {
    const machine = engine.machines.get(name);
    if (!machine) return refuse(401, 'ent: machine not found');
    if (!machine.validated) return refuse(401, `machine ${name} not validated`);
    if (machine.password !== password) return refuse(401, 'incorrect Username or Password');
    return Response.json({ code: 200, expire: '2026-11-22T12:11:11Z', token: 'jwt-of-the-engine' });
  };

  vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const { hostname: host, pathname: path } = new URL(input instanceof Request ? input.url : String(input));
    const body = JSON.parse(await new Response(init?.body).text());
    engine.requests.push({ host, path, headers: new Headers(init?.headers), body });
    if (engine.fault) return engine.fault();
    return path === '/v1/watchers' ? register(body) : logIn(body);
  });
  return engine;
}
