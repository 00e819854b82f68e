// Every operation answers as /openapi.json says: each status that it lists is brought about on a real server, and
// each body fits the schema that it lists for it, in which nothing may stand that it does not name.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine } from '../lab/engine.ts';
import { createSshHost } from '../lab/ssh-host.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import type { Example } from './openapi-examples.ts';

interface Described {
  operationId: string;
  method: string;
  path: string;
  description: string;
  parameters?: { in: string; name: string; required?: boolean }[];
  requestBody?: object;
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}

let lapidary: Lapidary;
let document: any;
let operations: Map<string, Described>;
let admin: string;
let viewer: string;
const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);

/** Statuses that were brought about, by operation. */
const seen = new Map<string, Set<string>>();

beforeAll(async () => {
  lapidary = await startLapidary();
  document = await (await fetch(`${lapidary.url}/openapi.json`)).json();
  operations = new Map(
    Object.entries(document.paths as Record<string, Record<string, any>>).flatMap(([path, methods]) => {
      return Object.entries(methods).map(([method, described]): [string, Described] => {
        return [described.operationId, { ...described, method: method.toUpperCase(), path }];
      });
    }),
  );
  ajv.addSchema(document, 'openapi');
  admin = (await readFile(join(lapidary.stateDir, 'operator-token'), 'utf8')).trim();
  const made = await lapidary.operator('POST', '/operator-tokens', {
    name: 'reader',
    role: 'viewer',
    expires_in: '1h',
  });
  viewer = made.body.token;
});
afterAll(() => lapidary?.close());

/** Sends a request and holds its answer against the document. */
async function send(
  described: Described,
  example: Omit<Example, 'id' | 'status'>,
  token: string | null = admin,
  server: Lapidary = lapidary,
) {
  const path = described.path.replace(/\{(\w+)\}/g, (_, name) => {
    return encodeURIComponent(example.params?.[name] ?? 'nobody');
  });
  const query = example.query ? `?${new URLSearchParams(example.query)}` : '';
  const text = example.text ?? (example.body === undefined ? undefined : JSON.stringify(example.body));
  const response = await fetch(server.url + path + query, {
    method: described.method,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...example.headers },
    ...(text === undefined ? {} : { body: text }),
  });
  const status = String(response.status);
  const listed = described.responses[status];
  const answered = `${described.operationId} ${status} ${(await response.clone().text()).slice(0, 300)}`;
  expect(listed, `not listed: ${answered}`).toBeDefined();
  const type = response.headers.get('content-type')?.split(';')[0] ?? null;
  expect(type, answered).toBe(Object.keys(listed?.content ?? {})[0] ?? null);
  if (type !== null) {
    const pointer = ['paths', described.path, described.method.toLowerCase(), 'responses', status]
      .concat(['content', type, 'schema'])
      .map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1')));
    const fits = ajv.getSchema(`openapi#/${pointer.join('/')}`);
    const body: any = await response.json();
    expect(fits?.(body), `${answered}: ${ajv.errorsText(fits?.errors)}`).toBe(true);
    if (status === '409') expect(body.errors, answered).toMatchObject([{ field: expect.any(String) }]);
  }
  const statuses = seen.get(described.operationId) ?? new Set();
  seen.set(described.operationId, statuses.add(status));
  return response;
}

function has(described: Described, name: string): boolean {
  return described.parameters?.some((parameter) => parameter.name === name) ?? false;
}

test('the document is OpenAPI 3.1', async () => {
  expect(await new Validator().validate(document)).toMatchObject({ valid: true });
  expect(document.openapi).toBe('3.1.0');
});

describeWith('each operation', ['hostTools'], () => {
  let examples: Example[];
  beforeAll(async () => {
    // It makes the keys of its hosts as it is loaded.
    ({ examples } = await import('./openapi-examples.ts'));
  });

  test('has an example here, and every example is of an operation', () => {
    expect([...new Set(examples.map(({ id }) => id))].sort()).toEqual([...operations.keys()].sort());
  });

  test('does what its examples ask for, in their order, and is safe to repeat where it says so', async () => {
    for (const [index, { make, ...fixed }] of examples.entries()) {
      const example: Example = { ...fixed, ...(await make?.(lapidary)) };
      const described = operations.get(example.id) as Described;
      const answers = async (status: number, changed: Partial<Example>): Promise<void> => {
        const response = await send(described, { ...example, ...changed });
        expect(response.status, `${example.id}: ${JSON.stringify(changed)}`).toBe(status);
      };
      const works = example.status < 300 && example.changes !== false;
      if (works && has(described, 'If-Match')) await answers(412, { headers: { 'if-match': '"999"' } });
      if (works && described.responses['428']) await answers(428, { headers: {} });
      const text = example.body === undefined ? '' : JSON.stringify(example.body);
      const headers = { ...example.headers, 'idempotency-key': `example-${index}` };
      if (!works || !has(described, 'Idempotency-Key')) await answers(example.status, {});
      else {
        await answers(example.status, { text, headers });
        await answers(example.status, { text, headers });
        await answers(422, { text: `${text} {}`.replace('} {}', '} '), headers });
      }
    }
  });

  test('refuses what it says that it refuses', async () => {
    for (const described of operations.values()) {
      const good = examples.find(({ id }) => id === described.operationId) as Example;
      if (described.responses['401']) await send(described, good, null);
      if (described.responses['403']) await send(described, good, viewer);
      if (described.requestBody) {
        const headers = { 'if-match': '*' };
        await send(described, { ...good, headers, text: '{' });
        await send(described, { ...good, headers: { ...headers, 'content-encoding': 'br' }, text: '{}' });
        // No larger than it must be: whoever is refused while it still sends may see a cut connection instead.
        const length = described.operationId === 'postBouncersImport' ? 3_000_000 : 70_000;
        await send(described, { ...good, headers, text: JSON.stringify({ x: 'x'.repeat(length) }) });
      } else if (described.responses['400']) {
        await send(described, { ...good, query: { nonsense: '1' } });
      }
    }
  });

  test('of a host is refused when one address asks too often', async () => {
    for (let asked = 0; asked < 121; asked++) await fetch(`${lapidary.url}/bootstrap/v1/challenge`);
    for (const id of ['getChallenge', 'postKeys', 'postEngineKey', 'postMachine']) {
      expect((await send(operations.get(id) as Described, {})).status).toBe(429);
    }
  });

  describeWith('beside an engine', ['lab'], () => {
    test('says what only an engine can undo, and that an engine is down', async () => {
      const engine = await startEngine();
      const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
      await engine.ban('192.0.2.1');
      const mirror = await startLapidary({ upstream });
      const ask = async (id: string, query: Record<string, string> = {}): Promise<number> => {
        const token = (await readFile(join(mirror.stateDir, 'operator-token'), 'utf8')).trim();
        return (await send(operations.get(id) as Described, { query }, token, mirror)).status;
      };
      try {
        expect(await ask('postFeedSync', { full: 'true' })).toBe(200);
        expect(await ask('deleteDecisions', { value: '192.0.2.1' })).toBe(409);
        expect(await ask('getFeed')).toBe(200);
        const host = createSshHost('engine-1');
        const fields = { public_key: host.publicKey, bouncers: [], engine: true, machine: 'default' };
        await mirror.operator('PUT', '/hosts/engine-1', fields);
        for (const [id, path, own] of [
          ['postEngineKey', 'engine-key', { engine_key: 'a-key-that-cscli-made' }],
          ['postMachine', 'machine', { machine_password: 'a-password-that-the-host-has-made' }],
        ] as const) {
          const body = await host.request(mirror.url, path, own);
          for (const status of [200, 409]) {
            const answer = await send(operations.get(id) as Described, { body }, null, mirror);
            expect(answer.status).toBe(status);
          }
        }
        host.close();
        await engine.close();
        expect(await ask('postFeedSync')).toBe(502);
      } finally {
        await mirror.close();
        await engine.close();
      }
    });

    test('lists no status that nothing brings about', () => {
      // A fault of ours, or of what is below us. A viewer may call whatever needs the role viewer; who has no role at
      // all comes with a token of an issuer (test/operators/oidc.test.ts). A log that is not whole: test/bouncers/versions.test.ts.
      // An address that the settings say: test/hosts/audience.test.ts. A key that the feed pulls with: test/engines/keys.test.ts.
      const elsewhere = new Set(['500', '503']);
      seen.get('getAuditVerify')?.add('409');
      seen.get('putPublicUrl')?.add('409');
      seen.get('postBouncersImport')?.add('409');
      const missing = [...operations.values()].flatMap(({ operationId, description, responses }) => {
        return Object.keys(responses)
          .filter((status) => !elsewhere.has(status) && !seen.get(operationId)?.has(status))
          .filter((status) => !(status === '403' && description.includes('role `viewer`')))
          .map((status) => `${operationId} ${status}`);
      });
      expect(missing).toEqual([]);
    });
  });
});
