// Numbers and times as people say them. Pure.

const units = [
  ['d', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const;

/** A length of time by its two largest units: `3 h 41 min`, `17 d`, `5 s`. Days stand alone from ten on. */
export function spanOf(ms: number): string {
  let seconds = Math.max(0, Math.floor(ms / 1000));
  const parts: string[] = [];
  for (const [unit, size] of units) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count > 0) parts.push(`${countOf(count)} ${unit}`);
    // Nobody asks for the second unit of a long time, or of one that is behind a gap.
    if (parts.length === 2 || (parts.length === 1 && (count === 0 || (unit === 'd' && count >= 10)))) break;
  }
  return parts.join(' ') || '0 s';
}

/** How long ago, in one unit, or how far ahead: `14 min ago`, `in 3 h 12 min`. */
export function agoOf(ms: number, nowMs: number): string {
  if (ms > nowMs) return `in ${spanOf(ms - nowMs)}`;
  return `${spanOf(nowMs - ms).replace(/^(\S+ \S+).*/, '$1')} ago`;
}

/** `48 917`, with spaces that do not break. */
export function countOf(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** `1 bouncer`, `3 bouncers`. */
export function some(count: number, one: string, many = `${one}s`): string {
  return `${countOf(count)} ${count === 1 ? one : many}`;
}

/** `default, paris and operators` */
export function listOf(names: readonly string[]): string {
  return names.join(', ').replace(/, ([^,]*)$/, ' and $1');
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `28 Nov 2026, 20:12:31 UTC` */
export function utcOf(ms: number): string {
  const iso = new Date(ms).toISOString();
  return `${Number(iso.slice(8, 10))} ${months[Number(iso.slice(5, 7)) - 1]} ${iso.slice(0, 4)}, ${iso.slice(11, 19)} UTC`;
}
