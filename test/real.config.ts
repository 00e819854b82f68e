// The suites that run real programs: an engine, its command line, and bouncers, on loopback.
import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: resolve(import.meta.dirname, '..'),
  test: {
    include: ['test/{conformance,e2e,faults,nix}/**/*.test.ts'],
    environment: 'node',
    globalSetup: 'test/lab/setup.ts',
    pool: 'forks',
    // They wait more than they compute.
    maxWorkers: 3,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // nodejs-bouncer logs every look-up to standard output unless it is told otherwise before it is loaded.
    env: { LOG_LEVEL: 'silent' },
  },
});
