// The operator API of rotations of many bouncers at once.

import * as z from 'zod';
import { problem } from '../http/failure.ts';
import { cursor, nextOf, pageFields, pageOf } from '../operations/fields.ts';
import * as rotations from './rotations.ts';
import { mutation, operation } from '../operations/operation.ts';

const planned = z.object({
  rotation: rotations.rotationShape,
  members: z.array(rotations.memberShape),
  slower_than_grace: rotations.slowShape,
});

export const rotationOperations = [
  mutation({
    method: 'POST',
    path: '/rotations',
    needs: 'operator',
    summary: 'Rotate the keys of many bouncers',
    description:
      'Each gets a new version of its key, and a due time. The old version is valid at least until then. Without a ' +
      'grace (`0s`) it expires at that time, whether the new one was used or not. Where a host makes the key, the ' +
      'answer has none: the host is asked at the due time, and the old key is valid until the host has made one.',
    body: rotations.newRotation,
    answers: {
      200: { description: 'Which bouncers would be rotated, and when (`dry_run`).', body: planned },
      201: {
        description: 'Which bouncers are rotated, when, and the new keys.',
        body: planned.extend({
          keys: z
            .record(z.string(), z.string())
            .optional()
            .meta({ description: 'The keys that were made here, by bouncer. Shown this once.' }),
        }),
      },
    },
    refusals: [409],
    change: rotations.rotateMany,
  }),
  operation({
    method: 'GET',
    path: '/rotations',
    needs: 'viewer',
    summary: 'Rotations, the newest first',
    query: z.strictObject({
      before: cursor.optional().meta({ description: 'The `next` of the page before.' }),
      ...pageFields,
    }),
    answers: { 200: pageOf('rotations', rotations.rotationShape) },
    reply: async (c, { query: { before, limit } }) => {
      const listed = await rotations.listRotations(c.env.DB, before ?? null, limit);
      return c.json({ rotations: listed, next: nextOf(listed, limit, ({ id }) => id ?? 0) });
    },
  }),
  operation({
    method: 'GET',
    path: '/rotations/{id}',
    needs: 'viewer',
    summary: 'A rotation, with the state of each bouncer',
    answers: {
      200: {
        description: 'As of now.',
        body: planned.extend({
          counts: z.record(z.string(), z.int()).meta({ description: 'How many are in each state.' }),
        }),
      },
    },
    refusals: [404],
    reply: async (c) => {
      const id = Number(/^\d{1,9}$/.exec(c.req.param('id') ?? '')?.[0] ?? 0);
      const shown = await rotations.showRotation(c.env, id, Date.now());
      return shown.ok ? c.json(shown.value) : problem(shown.failure);
    },
  }),
];
