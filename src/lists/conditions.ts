// Whether a client has a list already (RFC 9110, 13.1). Pure. A mistake here leaves a device with an old list for ever.

/** As the request has them. */
export interface Conditions {
  readonly ifNoneMatch: string | null;
  readonly ifModifiedSince: string | null;
}

/** What names a list, in the coding in which it would be sent. */
export interface Validators {
  readonly etag: string;
  /** Null: it changed within this second, and might do so again: who has no date can not ask by it (RFC 9110, 8.8.2.2). */
  readonly lastModified: string | null;
}

/** Where a client names what it has, the date does not count. */
export function isUnchanged(
  { ifNoneMatch, ifModifiedSince }: Conditions,
  { etag, lastModified }: Validators,
): boolean {
  if (ifNoneMatch !== null) {
    // A proxy that compresses makes a weak one of ours, and any comparison here is weak.
    const named = ifNoneMatch.match(/(?:W\/)?"[^"]*"|\*/g) ?? [];
    return named.some((tag) => tag === '*' || tag.replace(/^W\//, '') === etag);
  }
  // Not «no later than»: after the clock was set back a list may be newer than its date.
  return ifModifiedSince !== null && ifModifiedSince === lastModified;
}

/** When a list changed, in seconds: each change has a second of its own. */
export function changedAt(beforeSeconds: number | undefined, nowMs: number): number {
  return Math.max(Math.floor(nowMs / 1000), (beforeSeconds ?? -1) + 1);
}

/** As HTTP writes it; null: its second is not over. */
export function lastModified(changedSeconds: number, nowMs: number): string | null {
  return (changedSeconds + 1) * 1000 > nowMs ? null : new Date(changedSeconds * 1000).toUTCString();
}
