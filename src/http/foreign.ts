// Whether an answer is the engine's own, or that of what stands before it: a tunnel without an engine, Access, a
// firewall. A mistake here tells a log processor, or an operator, that a good key or account is refused.

/**
 * Why an answer can't be the engine's; undefined when it can. LAPI refuses in JSON, knows no redirect and no error above
 * 500, and never speaks HTML.
 */
export function foreignAnswer({ status, headers }: Response): string | undefined {
  if (status >= 300 && status < 400) return `the engine answers with a redirect (status ${status})`;
  const type = headers.get('content-type') ?? '';
  const refusal = status === 401 || status === 403;
  const foreign =
    status > 500 || /^text\/html\b/i.test(type) || (refusal && !/^application\/json\b/i.test(type));
  return foreign ? `what stands before the engine answers with status ${status}` : undefined;
}
