// What a client accepts as an answer.

/**
 * Whether the client itself asked for gzip. On Cloudflare, which sets `colo`, the header is `br, gzip` for everybody:
 * there only `clientAcceptEncoding` counts.
 */
export function acceptsGzip(request: Request): boolean {
  const { colo, clientAcceptEncoding } = (request.cf ?? {}) as Partial<IncomingRequestCfProperties>;
  const asked = colo === undefined ? request.headers.get('accept-encoding') : clientAcceptEncoding;
  const accepted = (asked ?? '').toLowerCase();
  return accepted.split(',').some((part) => {
    const [coding, ...parameters] = part.split(';').map((text) => text.trim());
    return coding === 'gzip' && !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter));
  });
}
