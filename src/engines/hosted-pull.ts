// The request to a hosted integration of CrowdSec, of the kind "remediation component": one start-up of LAPI's stream by a
// key, and nothing else of LAPI. Its answer is read and bounded as an engine's. Of an answer that failed nothing may be
// used: the caller throws away what was read.

import type { HostedSettings } from '../config/upstreams.ts';
import { SplitError } from '../formats/json-split.ts';
import { failed, noValidators, retryAfterMs, type Answer } from './list-pull.ts';
import { ask, createDeadline, split, type Enter, type Reader } from './upstream.ts';

/** The answer may be made for us alone, so its first byte may take as long as that of an engine's full list. */
const patience = 3;

export async function pullHosted(
  source: HostedSettings & { readonly enter: Enter },
  reader: Reader,
): Promise<Answer> {
  const { apiKey, keyName, timeoutMs } = source;
  const begins = await source.enter();
  const deadline = createDeadline(timeoutMs, patience * timeoutMs);
  const startedMs = Date.now();
  try {
    const path = '/v1/decisions/stream?startup=true';
    const response = await begins(ask(source, path, apiKey, { signal: deadline.signal }));
    const { status, headers, body } = response;
    const isPage = /^text\/html\b/i.test(headers.get('content-type') ?? '');
    if (status !== 200 || isPage || !body) {
      await body?.cancel();
      if (status === 204) return { kind: 'nothing' };
      if (status === 200) return failed(isPage ? 'answers with a web page' : 'answers with an empty body');
      const refused = status === 401 || status === 403;
      const problem = refused ? `refuses ${keyName} with status ${status}` : `answers with status ${status}`;
      return failed(problem, { waitMs: retryAfterMs(headers, Date.now()), refused });
    }
    const lists = await split(body, startedMs, reader, (bytes) => deadline.received(bytes));
    return lists.has('new')
      ? { kind: 'whole', validators: noValidators, isMeasured: true }
      : failed('answers with another kind of list');
  } catch (error) {
    if (deadline.signal.aborted) return failed(String(deadline.signal.reason));
    if (error instanceof SplitError) return failed(`sends what can't be read: ${error.message}`);
    return failed('is out of reach');
  } finally {
    deadline.stop();
  }
}
