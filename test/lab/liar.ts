// A proxy on loopback before an engine that can be told to lie. The engine is always asked first, so that it
// counts as delivered what the liar then withholds or spoils: the worst case for whoever reads the stream.
import { createServer, request as ask, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** `elsewhere` is no decision route: what a client asks for that follows a redirect. */
export type Subject = 'stream' | 'list' | 'tail' | 'lookup' | 'elsewhere';

/** What the engine answered. */
export interface Truth {
  subject: Subject;
  status: number;
  type: string;
  body: Buffer;
}

export type Lie = (truth: Truth, response: ServerResponse) => void;

export interface Liar {
  url: string;
  /** From now on, about the subjects given (all of them unless given); earlier lies end. */
  lie(lie: Lie, about?: Subject): void;
  tellTheTruth(): void;
  /** From now on, before a question is passed on: `count` says how many of its subject have come, this one included. */
  onArrival(arrived: (subject: Subject, count: number) => Promise<void> | void): void;
  /** How many questions came so far, and how many were answered to the last byte. */
  asked(subject: Subject): number;
  answered(subject: Subject): number;
  close(): Promise<void>;
}

export async function startLiar(engine: { url: string }): Promise<Liar> {
  const asked = noQuestions();
  const answered = noQuestions();
  let current: { lie: Lie; about?: Subject } | undefined;
  let arrived: Parameters<Liar['onArrival']>[0] = () => undefined;

  const server = createServer((question, response) => {
    void (async () => {
      const subject = subjectOf(question.url ?? '');
      const count = ++asked[subject];
      response.on('finish', () => answered[subject]++);
      try {
        await arrived(subject, count);
        const truth = await truthOf(engine.url, question, subject);
        const lying = current && (!current.about || current.about === subject);
        (lying ? current!.lie : sendTruth)(truth, response);
      } catch {
        // The engine is down.
        response.destroy();
      }
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    lie(lie, about) {
      current = { lie, about };
    },
    tellTheTruth() {
      current = undefined;
    },
    onArrival(told) {
      arrived = told;
    },
    asked: (subject) => asked[subject],
    answered: (subject) => answered[subject],
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function noQuestions(): Record<Subject, number> {
  return { stream: 0, list: 0, tail: 0, lookup: 0, elsewhere: 0 };
}

function subjectOf(url: string): Subject {
  if (url.startsWith('/v1/decisions/stream')) return 'stream';
  if (url === '/v1/decisions') return 'list';
  if (url.startsWith('/v1/decisions?id_gt=')) return 'tail';
  return url.startsWith('/v1/decisions?') ? 'lookup' : 'elsewhere';
}

const passed = ['x-api-key', 'user-agent', 'authorization', 'content-type'];

function truthOf(engine: string, question: IncomingMessage, subject: Subject): Promise<Truth> {
  const { method, url } = question;
  const sent = passed.filter((name) => question.headers[name] !== undefined);
  const headers = Object.fromEntries(sent.map((name) => [name, question.headers[name]]));
  return new Promise((resolve, reject) => {
    const asking = ask(engine + url, { method, headers }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => {
        const { statusCode: status = 0, headers } = answer;
        resolve({ subject, status, type: headers['content-type'] ?? '', body: Buffer.concat(parts) });
      });
    });
    asking.on('error', reject);
    question.pipe(asking);
  });
}

export const sendTruth: Lie = ({ status, type, body }, response) => {
  response.writeHead(status, { 'content-type': type, 'content-length': body.length }).end(body);
};

const json = { 'content-type': 'application/json; charset=utf-8' };

/** A whole and well-formed answer of status 200 with another body. */
export const sendInstead =
  (change: (truth: Truth) => Buffer | string): Lie =>
  (truth, response) => {
    response.writeHead(200, json).end(change(truth));
  };

const half = (body: Buffer) => body.subarray(0, Math.ceil(body.length / 2));

/** Answers in two steps, the second of which is up to the test. */
export const sendHalfAndWait: Lie = ({ body }, response) => {
  response.writeHead(200, { ...json, 'content-length': body.length }).write(half(body));
};

let evenTurn = false;

/**
 * Every other decision, and the next time the others: no two answers agree on what is gone. By their ids: places move
 * when something ends between the two.
 */
const halfOfTheList = ({ subject, body }: Truth): Buffer | string => {
  if (subject !== 'list') return body;
  evenTurn = !evenTurn;
  const all = JSON.parse(body.toString()) as { id: number }[];
  return JSON.stringify(all.filter(({ id }) => (id % 2 === 0) === evenTurn));
};

const noDurations = ['soon', '', '1d', '-', '1.5', '４h'];
let noDuration = 0;

const html = '<!doctype html><title>Sign in</title><form action="/login"><input name="password"></form>';

/** What goes wrong between an engine and those who ask it, by name. */
export const lies = {
  'status 500': (_, response) => {
    response.writeHead(500, json).end('{"message":"database is locked"}');
  },
  'status 403': (_, response) => {
    response.writeHead(403, json).end('{"message":"access forbidden"}');
  },
  'silence before the headers': () => undefined,
  'silence in mid-body': sendHalfAndWait,
  'a body cut before its Content-Length': ({ body }, response) => {
    response.writeHead(200, { ...json, 'content-length': body.length });
    response.write(half(body), () => response.destroy());
  },
  'a chunked body without its end': ({ body }, response) => {
    response.writeHead(200, json);
    response.write(half(body), () => response.destroy());
  },
  'an empty object': sendInstead(() => '{}'),
  'a bare empty array for the stream': sendInstead(({ subject, body }) =>
    subject === 'stream' ? '[]' : body,
  ),
  'a page of HTML': (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end(html);
  },
  'an empty body': sendInstead(() => ''),
  'empty lists': sendInstead(({ subject }) => (subject === 'list' ? 'null' : '{"new":null,"deleted":null}')),
  'empty lists of the chunked dialect': sendInstead(({ subject }) =>
    subject === 'list' ? '[]' : '{"new": [], "deleted": []}',
  ),
  'half of the list': sendInstead(halfOfTheList),
  'a redirect to a login page': (_, response) => {
    response.writeHead(302, { location: '/login' }).end();
  },
  'bytes of no meaning': sendInstead(() =>
    Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * at * 31) & 255)),
  ),
  'durations that are none': sendInstead(({ body }) => {
    const duration = noDurations[noDuration++ % noDurations.length];
    return body.toString().replaceAll(/"duration":"[^"]*"/g, `"duration":"${duration}"`);
  }),
  "a duration beyond Go's own": sendInstead(({ subject, body }) =>
    subject === 'list' ? body.toString().replace(/"duration":"[^"]*"/, '"duration":"2562048h"') : body,
  ),
} satisfies Record<string, Lie>;

export type LieName = keyof typeof lies;
