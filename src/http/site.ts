// Whether a browser sends a request for a page of another site.

/**
 * By Fetch Metadata (W3C), which browsers send over HTTPS and to this machine. Over plain HTTP there is only the page's
 * origin, with every request that is no GET. A client that is no browser sends neither.
 */
export function isFromElsewhere({ headers, url }: Request): boolean {
  const site = headers.get('sec-fetch-site');
  if (site !== null) return site !== 'same-origin' && site !== 'none';
  const origin = headers.get('origin');
  return origin !== null && (!URL.canParse(origin) || new URL(origin).host !== new URL(url).host);
}
