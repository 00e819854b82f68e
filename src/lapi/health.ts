// `/health`: LAPI's answer with the feed's state beside it (feed/health.ts).

import type { Context } from 'hono';
import { type AppEnv } from '../env.ts';
import { lapiError } from '../http/failure.ts';
import { stateOf } from '../feed/health.ts';

export async function health(c: Context<AppEnv>): Promise<Response> {
  if (c.req.method !== 'GET') return lapiError({ kind: 'method-not-allowed', allow: ['GET'] });
  const state = await stateOf(c.env);
  if (!state.ok) return lapiError(state.failure);
  return c.json(state.value, 200, { 'cache-control': 'no-cache', expires: '-1', pragma: 'no-cache' });
}
