// Go durations, as LAPI writes and reads them (time.Duration.String, time.ParseDuration).
// Bouncers keep a ban for as long as this text says: a wrong unit here is a permanent or a lost ban.

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
const term = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/y;

/** Go's limit: 2^63 nanoseconds. Beyond it no bouncer can read what we would write. */
export const longestMs = 9_223_372_036_854;

/**
 * Milliseconds of a Go duration (`3h59m59.5s`, `-2s`, `0`), or undefined when it is not one. Go's largest, which LAPI
 * writes for any later end (`2562047h47m16.854775807s`), is `longestMs`, and its smallest `-longestMs`.
 */
export function parseDuration(text: string): number | undefined {
  const negative = text.startsWith('-');
  const body = negative || text.startsWith('+') ? text.slice(1) : text;
  if (body === '0') return 0;
  let totalMs = 0;
  let at = 0;
  while (at < body.length) {
    term.lastIndex = at;
    const match = term.exec(body);
    if (!match) return undefined;
    totalMs += Number(match[1]) * (unitMs[match[2] as string] as number);
    at = term.lastIndex;
  }
  if (at === 0 || totalMs >= longestMs + 1) return undefined;
  const boundedMs = Math.min(totalMs, longestMs);
  return negative ? -boundedMs : boundedMs;
}

/**
 * Whole seconds as Go prints them: `4h0m0s`, `59m59s`, `1s`, `0s`, `-3s`. Never a fraction: since v1.0.12
 * lua-cs-bouncer reads `59.5s` as "for ever".
 */
export function formatDuration(seconds: number): string {
  const sign = seconds < 0 ? '-' : '';
  const whole = Math.abs(Math.trunc(seconds));
  const s = whole % 60;
  const m = Math.trunc(whole / 60) % 60;
  const h = Math.trunc(whole / 3600);
  if (h > 0) return `${sign}${h}h${m}m${s}s`;
  if (m > 0) return `${sign}${m}m${s}s`;
  return whole === 0 ? '0s' : `${sign}${s}s`;
}
