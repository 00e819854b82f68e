// What may stand between a device and Lapidary and be out of order: a proxy that cuts answers off, or is silent.
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Front {
  url: string;
  /** Each body ends after its first half; the headers promise all of it. */
  cut(): void;
  /** No question is answered. */
  silence(): void;
  close(): Promise<void>;
}

export async function startFront(target: string): Promise<Front> {
  let mode: 'cut' | 'silent' = 'silent';
  const server = createServer((question, response) => {
    if (mode === 'silent') return;
    const { method, headers, url = '' } = question;
    const asked = request(target + url, { method, headers, agent: false }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('end', () => {
        const body = Buffer.concat(parts);
        response.writeHead(answer.statusCode ?? 0, answer.headers);
        response.write(body.subarray(0, body.length >> 1), () => response.destroy());
      });
    });
    asked.on('error', () => response.destroy());
    asked.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut: () => void (mode = 'cut'),
    silence: () => void (mode = 'silent'),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
