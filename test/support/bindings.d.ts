declare namespace Cloudflare {
  interface Env {
    MIGRATIONS: import('@cloudflare/vitest-plugin').D1Migration[];
    /** Empty: as many as each property has by itself (runs.ts). */
    PROPERTY_RUNS: string;
  }
}
