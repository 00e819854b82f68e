// The load: so many connections, each with one request after the other, for a time or a number of requests; as fast as
// they are answered, or so many a second. On
// bare sockets with requests made beforehand: Node's own clients cost several times what the Worker does.
import { connect } from 'node:net';
import { cpuSeconds } from './cpu.ts';

export interface LoadOptions {
  url: string;
  /** Sent in turn by whichever connection is free. */
  requests: readonly Buffer[];
  connections: number;
  /** When to stop sending; what is under way is waited for and counted. */
  seconds?: number;
  count?: number;
  /**
   * Requests are due at this rate, however slow the answers are: one that waits for a free connection is late by as much.
   * Without it each is sent when the one before was answered.
   */
  perSecond?: number;
  /** The process that answers, for its CPU time. */
  pid: number;
  /** The right answer's, or any of them, 200 unless told. */
  status?: number | readonly number[];
}

export interface LoadResult {
  answered: number;
  perSecond: number;
  p50Ms: number;
  p99Ms: number;
  worstMs: number;
  cpuMicrosPerRequest: number;
  /** Of the longest answer, with its headers. */
  mostBytes: number;
}

export function requestBytes(
  path: string,
  key: string,
  method = 'GET',
  more: Readonly<Record<string, string>> = {},
): Buffer {
  const headers = { Host: '127.0.0.1', 'X-Api-Key': key, 'User-Agent': 'bench/v1', ...more };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
}

/** Fails when an answer had another status or a connection broke: such a rate would mean nothing. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const { url, connections, seconds = Infinity, count = Infinity, pid, perSecond } = options;
  const latencies: number[] = [];
  const cpuBefore = cpuSeconds(pid);
  const startedMs = performance.now();
  const run: Run = {
    options,
    startedMs,
    intervalMs: perSecond === undefined ? 0 : 1000 / perSecond,
    deadlineMs: startedMs + seconds * 1000,
    count,
    sent: 0,
    errors: 0,
    mostBytes: 0,
    latencies,
    lastMs: startedMs,
  };
  await Promise.all(Array.from({ length: connections }, () => converse(run)));
  const answered = latencies.length;
  if (run.errors > 0 || answered === 0)
    throw new Error(`${run.errors} errors, ${answered} answers of ${url}`);
  latencies.sort((a, b) => a - b);
  return {
    answered,
    perSecond: (answered * 1000) / (run.lastMs - startedMs),
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    worstMs: percentile(latencies, 1),
    cpuMicrosPerRequest: ((cpuSeconds(pid) - cpuBefore) * 1e6) / answered,
    mostBytes: run.mostBytes,
  };
}

interface Run {
  options: LoadOptions;
  startedMs: number;
  /** Between two requests that are due; 0: each is due when it can be sent. */
  intervalMs: number;
  deadlineMs: number;
  count: number;
  sent: number;
  /** Answers of another status, and connections that broke. */
  errors: number;
  mostBytes: number;
  latencies: number[];
  lastMs: number;
}

/** One connection until the run is over. */
function converse(run: Run): Promise<void> {
  const { url, requests, status = 200 } = run.options;
  const { hostname, port } = new URL(url);
  const expected = [status].flat().map((each) => `HTTP/1.1 ${each} `);
  const bodiless = requests[0].toString('latin1', 0, 5) === 'HEAD ';
  return new Promise((resolve) => {
    let dueMs = 0;
    let received: Buffer | null = null;
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });

    const send = () => {
      const nowMs = performance.now();
      dueMs = run.intervalMs > 0 ? run.startedMs + run.sent * run.intervalMs : nowMs;
      if (dueMs >= run.deadlineMs || run.sent >= run.count) return socket.destroy();
      const request = requests[run.sent++ % requests.length];
      if (dueMs <= nowMs) socket.write(request);
      else setTimeout(() => socket.write(request), Math.ceil(dueMs - nowMs));
    };
    socket.on('connect', send);
    socket.on('data', (chunk) => {
      received = received ? Buffer.concat([received, chunk]) : chunk;
      if (!isWhole(received, bodiless)) return;
      run.lastMs = performance.now();
      run.latencies.push(run.lastMs - dueMs);
      if (received.length > run.mostBytes) run.mostBytes = received.length;
      if (!expected.includes(received.toString('latin1', 0, 'HTTP/1.1 200 '.length))) run.errors++;
      received = null;
      send();
    });
    socket.on('end', () => run.errors++);
    socket.on('error', () => run.errors++);
    socket.on('close', () => resolve());
  });
}

/** Whether nothing of it is still to come. */
export function isWhole(answer: Buffer, bodiless: boolean): boolean {
  const headEnd = answer.indexOf('\r\n\r\n');
  if (headEnd < 0) return false;
  if (bodiless) return true;
  const head = answer.toString('latin1', 0, headEnd);
  const length = /\r\ncontent-length: (\d+)/i.exec(head);
  if (length) return answer.length >= headEnd + 4 + Number(length[1]);
  // Chunked: JSON has no such five bytes in it.
  return answer.toString('latin1', answer.length - 5) === '0\r\n\r\n';
}

/** Of the least first. */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
