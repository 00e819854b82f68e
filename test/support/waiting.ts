// Polls that wait for a change, in an isolate of workerd: when they wait, when they have looked, and how they end.
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { vi } from 'vitest';
import type { serve } from '../../src/app.ts';
import type { waiting } from '../../src/feed/client.ts';
import type { WireDecision } from './bouncer.ts';
import { waitUntil } from './patience.ts';

const path = '/v1/decisions/stream';

export interface Stream {
  new: WireDecision[];
  deleted: WireDecision[];
}

export interface WaitOptions {
  /** Without `?`. */
  readonly query?: string;
  /** In place of the isolate's own. */
  readonly bindings?: object;
  readonly signal?: AbortSignal;
}

/** Of the isolate whose modules these are. */
export function watchWaits(isolate: { serve: typeof serve; waiting: typeof waiting }) {
  vi.spyOn(isolate.waiting, 'told');
  vi.spyOn(isolate.waiting, 'changes');
  const { mock } = vi.mocked(isolate.waiting.changes);

  /** A poll, which may not have begun to wait yet. */
  function begin(key: string, { query = 'wait=50', bindings = {}, signal }: WaitOptions = {}) {
    const ctx = createExecutionContext();
    const request = new Request(`http://edge.example${path}?${query}`, {
      headers: { 'x-api-key': key },
      ...(signal && { signal }),
    });
    let isOver = false;
    const answer = Promise.resolve(isolate.serve(request, { ...env, ...bindings } as Env, ctx)).finally(
      () => {
        isOver = true;
      },
    );
    /** Its answer, before its time is up. */
    const ended = async (): Promise<Response> => {
      await waitUntil(() => isOver);
      await waitOnExecutionContext(ctx);
      return answer;
    };
    return {
      isOver: () => isOver,
      ended,
      status: async () => (await ended()).status,
      stream: async () => (await ended()).json<Stream>(),
    };
  }

  return {
    begin,

    /** A poll, once it waits: it has had its first look, and has got nothing by it. */
    async wait(key: string, options?: WaitOptions) {
      const looks = () => vi.mocked(isolate.waiting.told).mock.calls.length;
      const before = looks();
      const poll = begin(key, options);
      await waitUntil(() => poll.isOver() || looks() > before);
      return poll;
    },

    /** One that waits, and began to look after this was called, has seen nothing. */
    async looked(): Promise<void> {
      const before = mock.calls.length;
      const isDone = () => mock.settledResults.slice(before).some(({ type }) => type === 'fulfilled');
      await waitUntil(isDone);
    },

    /** How many looks there were. */
    looks: () => mock.calls.length,
  };
}
