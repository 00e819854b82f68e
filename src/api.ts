// The operator API: who calls it, and the list of all its operations.

import { Hono } from 'hono';
import type { AppEnv } from './env.ts';
import { problem } from './http/failure.ts';
import { forgetLatest } from './feed/client.ts';
import { allowlistOperations } from './allowlist/api.ts';
import { bouncerOperations } from './bouncers/api.ts';
import { decisionOperations } from './decisions/api.ts';
import { feedOperations } from './decisions/feed-api.ts';
import { sentOperation } from './decisions/sent-api.ts';
import { valuesOperation } from './decisions/values-api.ts';
import { rotationOperations } from './bouncers/rotations-api.ts';
import { hostOperations } from './hosts/api.ts';
import { machineOperations } from './machines/api.ts';
import type { Group } from './operations/openapi.ts';
import { mount } from './operations/operation.ts';
import { operatorOperations } from './operators/api.ts';
import { identifyOperator, isRead } from './operators/caller.ts';
import { fixPublicUrl } from './hosts/public-url.ts';
import { webhookOperations } from './webhooks/api.ts';

/** Every operation, by subject, in the order of the documentation. */
export const operatorApi: readonly Group[] = [
  { tag: 'bouncers', operations: bouncerOperations },
  { tag: 'rotations', operations: rotationOperations },
  { tag: 'hosts', operations: hostOperations },
  { tag: 'decisions', operations: [...decisionOperations, valuesOperation, sentOperation] },
  { tag: 'allowlist', operations: allowlistOperations },
  { tag: 'machines', operations: machineOperations },
  { tag: 'feed', operations: feedOperations },
  { tag: 'webhooks', operations: webhookOperations },
  { tag: 'operators', operations: operatorOperations },
].map((group) => ({ ...group, basePath: '/api/v1' }));

export const operatorRoutes = new Hono<AppEnv>();

operatorRoutes.use(async (c, next) => {
  const refused = await identifyOperator(c);
  if (refused) return problem(refused);
  await Promise.all([next(), fixPublicUrl(c, Date.now())]);
  // The next poll of this isolate sees what was changed here.
  if (!isRead(c)) forgetLatest(Date.now());
});

mount(
  operatorRoutes,
  operatorApi.flatMap(({ operations }) => operations),
);
