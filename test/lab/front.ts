// What may stand between a device and Lapidary and be out of order: a proxy that cuts answers off, or is silent.
import { createServer, request } from 'node:http';
import { listen, type Listening } from './listen.ts';

export interface Front extends Listening {
  /** Each body ends after its first half; the headers promise all of it. */
  cut(): void;
  /** No question is answered. */
  silence(): void;
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
  return {
    ...(await listen(server)),
    cut: () => void (mode = 'cut'),
    silence: () => void (mode = 'silent'),
  };
}
