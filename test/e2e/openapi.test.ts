// Every operation answers as /openapi.json says. Each status that it lists is brought about on a real server, or stands in
// the table `notHere` with the reason. Each body fits the schema that is listed for its status, and has no other fields.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine } from '../lab/engine.ts';
import { startIssuer, type IssuerServer } from '../lab/issuer.ts';
import { createSshHost } from '../lab/ssh-host.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import type { Example } from './openapi-examples.ts';

interface Described {
  operationId: string;
  method: string;
  path: string;
  description: string;
  /** Empty: hosts call it, which sign what they send. */
  security: object[];
  parameters?: { in: string; name: string; required?: boolean }[];
  requestBody?: object;
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}

let lapidary: Lapidary;
let document: any;
let operations: Map<string, Described>;
let admin: string;
let viewer: string;
/** Somebody whom the issuer knows, and to whom no rule gives a role. */
let roleless: string;
let issuer: IssuerServer;
const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);

/** What was brought about: `postBouncers 409`. */
const seen = new Set<string>();

/** What is listed and can not be brought about here, by operation (`*`: by any), and why. */
const notHere: Readonly<Record<string, string>> = {
  '* 500': 'a bug, or lost storage: nothing that a request asks for leads there',
  '* 503': 'an outage of D1 or of the feed: test/faults/silent-store.test.ts, test/store/unwritable.test.ts',
  'postBouncersImport 409': 'a key that the feed pulled with earlier: test/engines/keys.test.ts',
};

/** What only an engine can answer. */
const besideEngine = [
  'deleteDecisions 409',
  'postEngineKey 200',
  'postEngineKey 409',
  'postMachine 200',
  'postMachine 409',
  'postFeedSync 502',
];

beforeAll(async () => {
  issuer = await startIssuer('https://lapidary.example');
  await issuer.addKey('ES256', 'ec-1');
  const rules = [{ claim: 'groups', equals: 'readers', role: 'viewer' }];
  const issuers = [{ issuer: issuer.url, audience: issuer.audience, rules }];
  lapidary = await startLapidary({ settings: { OPERATOR_ISSUERS: JSON.stringify(issuers) } });
  roleless = await issuer.sign({ claims: { groups: ['guests'] } });
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
afterAll(async () => {
  await lapidary?.close();
  await issuer?.stop();
});

/** Sends a request, and compares its answer with the document. */
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
    const body: any = type.endsWith('json') ? await response.json() : await response.text();
    expect(fits?.(body), `${answered}: ${ajv.errorsText(fits?.errors)}`).toBe(true);
    if (status === '409' && type.includes('problem'))
      expect(body.errors, answered).toMatchObject([{ field: expect.any(String) }]);
  }
  seen.add(`${described.operationId} ${status}`);
  return response;
}

/** Sends a request that has to be answered with this status. */
async function expectStatus(
  status: number,
  ...[described, ...request]: Parameters<typeof send>
): Promise<void> {
  const answered = await send(described, ...request);
  expect(answered.status, `${described.operationId}: ${JSON.stringify(request[0])}`).toBe(status);
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
      const answers = (status: number, changed: Partial<Example>) =>
        expectStatus(status, described, { ...example, ...changed });
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

  test('refuses who may not call it, and a body that it can not read', async () => {
    for (const described of operations.values()) {
      const good = examples.find(({ id }) => id === described.operationId) as Example;
      const headers = { 'if-match': '*', ...good.headers };
      if (described.security.length > 0) {
        await expectStatus(401, described, good, null);
        await expectStatus(403, described, good, roleless);
        const isViewers = /role `(metrics|viewer)`/.test(described.description);
        if (!isViewers) await expectStatus(403, described, good, viewer);
      }
      if (described.requestBody) {
        const coded = { ...headers, 'content-encoding': 'br' };
        await expectStatus(400, described, { ...good, headers, text: '{' });
        await expectStatus(415, described, { ...good, headers: coded, text: '{}' });
        // No larger than it must be: whoever is refused while it still sends may see a cut connection instead.
        const length = described.operationId === 'postBouncersImport' ? 3_000_000 : 70_000;
        await expectStatus(413, described, {
          ...good,
          headers,
          text: JSON.stringify({ x: 'x'.repeat(length) }),
        });
      } else if (described.responses['400']) {
        await expectStatus(400, described, { ...good, query: { nonsense: '1' } });
      }
    }
  });

  test('of the address of this broker is refused where a setting says the address', async () => {
    const body = { url: 'https://lapidary.example.net' };
    const fixed = await startLapidary({ settings: { PUBLIC_URL: body.url } });
    try {
      const token = (await readFile(join(fixed.stateDir, 'operator-token'), 'utf8')).trim();
      await expectStatus(409, operations.get('putPublicUrl') as Described, { body }, token, fixed);
    } finally {
      await fixed.close();
    }
  });

  test('of a host is refused when one address asks too often', async () => {
    for (let asked = 0; asked < 121; asked++) await fetch(`${lapidary.url}/bootstrap/v1/challenge`);
    for (const id of ['getChallenge', 'postKeys', 'postEngineKey', 'postMachine']) {
      await expectStatus(429, operations.get(id) as Described, {});
    }
  });

  describeWith('beside an engine', ['lab'], () => {
    test('says what only an engine can undo, and that an engine is down', async () => {
      const engine = await startEngine();
      const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
      await engine.ban('192.0.2.1');
      const mirror = await startLapidary({ upstream });
      const token = (await readFile(join(mirror.stateDir, 'operator-token'), 'utf8')).trim();
      const answers = (status: number, id: string, query: Record<string, string> = {}) =>
        expectStatus(status, operations.get(id) as Described, { query }, token, mirror);
      try {
        await answers(200, 'postFeedSync', { full: 'true' });
        await answers(409, 'deleteDecisions', { value: '192.0.2.1' });
        await answers(200, 'getFeed');
        const host = createSshHost('engine-1');
        const fields = { public_key: host.publicKey, bouncers: [], engine: true, machine: 'default' };
        await mirror.operator('PUT', '/hosts/engine-1', fields);
        for (const [id, path, own] of [
          ['postEngineKey', 'engine-key', { engine_key: 'a-key-that-cscli-made' }],
          ['postMachine', 'machine', { machine_password: 'a-password-that-the-host-has-made' }],
        ] as const) {
          const body = await host.request(mirror.url, path, own);
          for (const status of [200, 409]) {
            await expectStatus(status, operations.get(id) as Described, { body }, null, mirror);
          }
        }
        host.close();
        await engine.close();
        await answers(502, 'postFeedSync');
      } finally {
        await mirror.close();
        await engine.close();
      }
    });
  });

  test('has answered with each status that it lists, but for those that the table names', () => {
    const listed = [...operations.values()].flatMap(({ operationId, responses }) =>
      Object.keys(responses).map((status) => `${operationId} ${status}`),
    );
    const exceptions = new Set([
      ...Object.keys(notHere),
      ...(inject('abilities').lab.ok ? [] : besideEngine),
    ]);
    const isException = (each: string) => exceptions.has(each) || exceptions.has(each.replace(/^\w+/, '*'));
    expect(listed.filter((each) => !seen.has(each) && !isException(each))).toEqual([]);
    expect([...seen].filter(isException)).toEqual([]);
    expect(besideEngine.filter((each) => !listed.includes(each))).toEqual([]);
  });
});
