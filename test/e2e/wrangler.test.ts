// wrangler.toml as wrangler itself reads it: what a deployment gets that no local program shows.
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { unstable_readConfig as readConfig } from 'wrangler';

const { observability } = readConfig({ config: resolve(import.meta.dirname, '../../wrangler.toml') });

test('the log has what the code says: no line for each call, and no query, which may have a visitor’s address', () => {
  expect(observability).toMatchObject({
    enabled: true,
    redact_query_string: true,
    logs: { enabled: true, invocation_logs: false },
    traces: { enabled: false },
  });
});
