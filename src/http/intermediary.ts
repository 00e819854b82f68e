// Whether an answer is the engine's own, or that of an intermediary before it: a tunnel without an engine, Access, a
// firewall. A mistake here tells a log processor, or an operator, that a valid key or account is refused.

/**
 * Why an answer can't be the engine's; undefined when it can. LAPI refuses in JSON, knows no redirect and no error above
 * 500, and sends no HTML.
 */
export function intermediaryAnswer({ status, headers }: Response): string | undefined {
  if (status >= 300 && status < 400) return `the engine answers with a redirect (status ${status})`;
  const type = headers.get('content-type') ?? '';
  const isRefusal = status === 401 || status === 403;
  const isForeign =
    status > 500 || /^text\/html\b/i.test(type) || (isRefusal && !/^application\/json\b/i.test(type));
  return isForeign ? `what stands before the engine answers with status ${status}` : undefined;
}
