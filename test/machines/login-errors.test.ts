// What a machine is told that has not logged in: what is wrong with its request, and not what is behind the engine.
import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';
import { serve } from '../../src/app.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

let engine: ModelEngine;
let strangers = 0;

beforeEach(() => {
  engine = startModelEngine();
});

describe('who has not logged in', () => {
  const faults = [
    'failed to connect to `user=crowdsec database=lapi`: 192.0.2.7:5432 (db-1): dial error',
    "Error 1045 (28000): Access denied for user 'crowdsec'@'192.0.2.7' (using password: YES)",
    'lookup db-1 on 192.0.2.7:53: no such host',
    'unable to open database file: /var/lib/crowdsec/data/crowdsec.db',
    'input format error\nuser=crowdsec',
  ];
  const paths = ['/v1/watchers/login', '/v1/watchers'];
  const cases = paths.flatMap((path) =>
    [401, 500].flatMap((status) => faults.map((fault) => [path, status, fault] as const)),
  );

  test.each(cases)(
    'is not told at %s what is behind the engine, with %i: %s',
    async (path, status, message) => {
      engine.fault = () => Response.json({ code: status, message }, { status });
      const answer = await strange(path);
      const text = await answer.text();
      expect(answer.status).toBe(503);
      expect(text).toContain('message');
      expect(text).not.toMatch(/crowdsec|192\.0\.2\.7|db-1/);
    },
  );

  test.each([
    [401, 'incorrect Username or Password'],
    [401, 'ent: machine not found'],
    [401, 'machine web-1 not validated'],
    [401, 'input format error'],
    [401, 'missing: EOF'],
    [401, 'invalid token for auto registration'],
    [401, 'IP not in allowed range for auto registration'],
    [403, "user 'web-1': user already exist"],
    [422, 'validation failure list:\npassword in body is required'],
  ])('is told what is wrong with the request: %i %s', async (status, message) => {
    engine.fault = () => Response.json({ message }, { status });
    for (const path of paths) {
      const answer = await strange(path);
      expect([answer.status, await answer.json()]).toEqual([status, { message }]);
    }
  });

  async function strange(path: string): Promise<Response> {
    const body = JSON.stringify({ machine_id: `nobody-${strangers}`, password: 'wrong' });
    const ctx = createExecutionContext();
    const request = new Request(`http://edge.example${path}`, {
      method: 'POST',
      body,
      headers: { 'cf-connecting-ip': `2001:db8::${(++strangers).toString(16)}` },
    });
    return serve(request, { ...env, MACHINE_ALLOW: '2001:db8::/32' } as Env, ctx);
  }
});
