// `GET /metrics`, for Prometheus. All is read before the first byte goes out: what is out of reach is a 503, never a scrape
// that looks whole and is not. The text is made in slices, plain while it is sent.

import { Hono, type Context } from 'hono';
import * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { askFeed, report } from '../feed/client.ts';
import { acceptsGzip } from '../http/accept.ts';
import { problem } from '../http/failure.ts';
import type { Group } from '../operations/openapi.ts';
import { mount, operation } from '../operations/operation.ts';
import { identifyOperator } from '../operators/caller.ts';
import { gzip, streamOf } from '../stream/render.ts';
import { contentTypes, mediaTypeFor, mediaTypes, render, type Family } from './exposition.ts';
import { engineNamed, engineNamedOfBouncers, ofBouncers, ofFeed } from './families.ts';
import { readAllBouncers, readTotals } from './read.ts';
import { inTurns } from '../runtime/wait.ts';

const flag = z.enum(['0', '1'], 'must be 0 or 1').default('1');

const query = z.strictObject({
  bouncers: flag.meta({ description: '`0`: without the series of each bouncer.' }),
  engine_names: flag.meta({ description: '`0`: without the series that the engine has, too (`cs_…`).' }),
});

const metrics = operation({
  method: 'GET',
  path: '/metrics',
  needs: 'metrics',
  summary: 'What Prometheus scrapes',
  description:
    'In text format 0.0.4, or as OpenMetrics where `Accept` asks for it. docs/metrics.md lists the series.',
  query,
  answers: { 200: { description: 'As of now.', texts: mediaTypes } },
  reply: async (c, { query }) => {
    const families = await readFamilies(c.env, query, Date.now());
    return answer(c, families);
  },
});

export const metricsApi: Group = { tag: 'metrics', basePath: '', operations: [metrics] };

export const metricsRoutes = new Hono<AppEnv>();

metricsRoutes.use('/metrics', async (c, next) => {
  // Prometheus reads some thousand times a day: the log would have little else.
  const refused = await identifyOperator(c, { isNoted: false });
  if (refused) return problem(refused);
  await next();
});
mount(metricsRoutes, metricsApi.operations);

async function answer(c: Context<AppEnv>, families: readonly Family[]): Promise<Response> {
  const mediaType = mediaTypeFor(c.req.header('accept') ?? '');
  const slices = inTurns(render(families, mediaType), slicesInTurn);
  const headers = { 'content-type': contentTypes[mediaType], 'cache-control': 'no-store', vary: 'accept' };
  if (!acceptsGzip(c.req.raw)) return new Response(sent(slices), { headers });
  const gzipped = { ...headers, 'content-encoding': 'gzip', vary: 'accept, accept-encoding' };
  return new Response(streamOf(await gzip(slices)), { headers: gzipped, encodeBody: 'manual' });
}

/** Some 10 ms. Of 10,000 bouncers there are 200 slices. */
const slicesInTurn = 4;

function sent(slices: AsyncGenerator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await slices.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
  });
}

async function readFamilies(env: Env, flags: z.output<typeof query>, nowMs: number): Promise<Family[]> {
  await report(env);
  const [counts, status] = await Promise.all([
    askFeed(env, async (feed) => feed.counts()),
    askFeed(env, async (feed) => feed.status()),
  ]);
  const { patterns = [] } = status;
  const readings = [
    askFeed(env, async (feed) => feed.census()),
    readTotals(env, counts),
    flags.bouncers === '0' ? Promise.resolve([]) : readAllBouncers(env, counts, patterns, nowMs),
  ] as const;
  await Promise.allSettled(readings);
  const [kinds, totals, bouncers] = await Promise.all(readings);
  return [
    ...(flags.engine_names === '0' ? [] : [...engineNamed(kinds), ...engineNamedOfBouncers(bouncers)]),
    ...ofFeed(status, kinds, totals),
    ...(flags.bouncers === '0' ? [] : ofBouncers(bouncers)),
  ];
}
