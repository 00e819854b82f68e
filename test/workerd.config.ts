// The suites that run inside workerd, with a real D1 and a real Durable Object.
import { resolve } from 'node:path';
import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin';
import { defineConfig } from 'vitest/config';

const root = resolve(import.meta.dirname, '..');

export default defineConfig({
  root,
  plugins: [
    cloudflareTest(async () => ({
      wrangler: { configPath: resolve(root, 'wrangler.toml') },
      miniflare: {
        bindings: {
          MIGRATIONS: await readD1Migrations(resolve(root, 'migrations')),
          PROPERTY_RUNS: process.env['PROPERTY_RUNS'] ?? '',
          OPERATOR_TOKEN: 'operator-token-of-the-tests',
          BOOTSTRAP_SECRET: 'bootstrap-secret-of-the-tests-0123',
          PUBLIC_URL: 'http://edge.example',
          UPSTREAM_URL: 'http://engine.example',
          UPSTREAM_API_KEY: 'feed-key-of-the-tests',
          // Rounds run when a test asks for one, not by themselves.
          SYNC_INTERVAL_SECONDS: '3600',
          // A ceiling is where a test sets one.
          MAX_DECISIONS: '',
        },
      },
    })),
  ],
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/{conformance,e2e,faults,nix}/**'],
    setupFiles: ['test/support/setup.ts'],
    // All cores: most of a test is computing.
    maxWorkers: '100%',
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Hundreds of tests have an engine in trouble, and the feed says so each time (rounds.ts).
    onConsoleLog: (line) => !/^(engine|list|hosted) [a-z-]+: /.test(line),
  },
});
