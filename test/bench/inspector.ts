// workerd's inspector: heap figures and CPU profiles of one of its services, over a WebSocket.
import { until } from '../lab/wait.ts';

export interface Inspector {
  call(method: string, params?: object): Promise<any>;
  /** JavaScript's heap, its wrappers of C++ objects and its buffers, with garbage that is not collected yet. */
  usedBytes(): Promise<number>;
  /** Workerd collects, and answers, no sooner than the isolate's next request: `wake` makes one. */
  collectGarbage(wake: () => Promise<unknown>): Promise<void>;
  close(): void;
}

export async function openInspector(port: number, service: string): Promise<Inspector> {
  const targets = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as Record<string, string>[];
  const target = targets.find(({ id, title }) => id === service || title?.includes(service));
  if (!target) throw new Error(`no service ${service} at the inspector: ${JSON.stringify(targets)}`);
  const socket = new WebSocket(target['webSocketDebuggerUrl']);
  const waiting = new Map<number, (message: any) => void>();
  let last = 0;
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve());
    socket.addEventListener('error', () => reject(new Error('the inspector refuses the connection')));
  });
  socket.addEventListener('message', ({ data }) => {
    const message = JSON.parse(String(data));
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  });
  socket.addEventListener('close', () => {
    for (const answer of waiting.values()) answer({ error: { message: 'the inspector went away' } });
    waiting.clear();
  });

  function send(method: string, params: object): number {
    socket.send(JSON.stringify({ id: ++last, method, params }));
    return last;
  }

  async function call(method: string, params: object = {}): Promise<any> {
    const id = send(method, params);
    const message = await new Promise<any>((resolve) => waiting.set(id, resolve));
    if (message.error) throw new Error(`${method}: ${message.error.message}`);
    return message.result;
  }

  return {
    call,
    async usedBytes() {
      const { usedSize, embedderHeapUsedSize, backingStorageSize } = await call('Runtime.getHeapUsage');
      return usedSize + embedderHeapUsedSize + backingStorageSize;
    },
    async collectGarbage(wake) {
      let collected = false;
      const done = call('HeapProfiler.collectGarbage').then(() => (collected = true));
      const woken = until('the garbage is collected', async () => {
        await wake();
        return collected;
      });
      await Promise.all([done, woken]);
    },
    close: () => socket.close(),
  };
}
