// `/openapi.json`: Lapidary's own HTTP API as an OpenAPI 3.1 document, made of the operations themselves.

import * as z from 'zod';
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi';
import { etagRule, idempotencyKeyRule, type Operation } from './operation.ts';

/** Operations below one path that belong to one subject. */
export interface Group {
  readonly tag: string;
  readonly basePath: string;
  readonly operations: readonly Operation[];
}

const problemShape = z
  .object({
    type: z.string().meta({ example: 'urn:lapidary:bad-input' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: 'What was wrong, where, and what to do next. Never a secret.' }),
    errors: z
      .array(z.object({ field: z.string(), detail: z.string() }))
      .optional()
      .meta({ description: 'The field that was wrong, where it is one.' }),
  })
  .meta({ id: 'Problem', description: 'RFC 9457.' });

const refusals: Readonly<Record<number, string>> = {
  400: 'Bad input; it names the field. Nothing was changed.',
  401: 'Missing or invalid credentials.',
  403: 'The caller is not allowed to do this.',
  404: 'Not found.',
  409: 'It conflicts with what is there; it says how.',
  410: 'It was removed for good.',
  412: 'It was changed since its ETag was read.',
  413: 'The body is too large.',
  415: 'The body has a coding other than gzip.',
  422: 'This `Idempotency-Key` was used for another request.',
  428: 'Send `If-Match`.',
  429: 'Too many requests; `Retry-After` says when to come back.',
  500: 'Internal error; the log has details under the id that it names.',
  503: 'Something that this needs is out of reach; try again.',
};

const idempotencyKey = z.string().regex(idempotencyKeyRule).optional().meta({
  description:
    'Within 24 h the same request with the same key is done once. It is answered again, but without the secret.',
});

/** The document. `publicPath`: the prefix of every path (`PATH_PREFIX`). */
export function openApiDocument(groups: readonly Group[], publicPath: string) {
  const paths: Record<string, Record<string, ZodOpenApiOperationObject>> = {};
  for (const { tag, basePath, operations } of groups) {
    for (const each of operations) {
      const there = (paths[basePath + each.path] ??= {});
      there[each.method.toLowerCase()] = describeOperation(each, tag);
    }
  }
  return createDocument({
    openapi: '3.1.0',
    info: {
      title: 'Lapidary',
      version: '1',
      description:
        'The API of operators and hosts. Bouncers and machines speak CrowdSec’s Local API below `/v1`, which is not described here.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: publicPath || '/' }],
    tags: groups.map(({ tag }) => ({ name: tag })),
    paths: paths as ZodOpenApiPathsObject,
    components: {
      securitySchemes: {
        operator: {
          type: 'http',
          scheme: 'bearer',
          description:
            '`OPERATOR_TOKEN`, a token of Lapidary (`cso_…`), or one of an issuer in `OPERATOR_ISSUERS`.',
        },
      },
    },
  });
}

function describeOperation(operation: Operation, tag: string): ZodOpenApiOperationObject {
  const { method, path, needs, summary, description, query, body, answers } = operation;
  const names = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] as string);
  const header = {
    ...(operation.repeatable ? { 'Idempotency-Key': idempotencyKey } : {}),
    ...(operation.ifMatch ? { 'If-Match': ifMatch(operation.ifMatch) } : {}),
  };
  const problem = { 'application/problem+json': { schema: problemShape } };
  const problems = refusalsOf(operation).map((status) => {
    return [status, { description: refusals[status] ?? '', content: problem }];
  });
  const bodies = Object.entries(answers).map(([status, answer]) => {
    const json = answer.body && [['application/json', { schema: answer.body }] as const];
    const content = json ?? answer.texts?.map((type) => [type, { schema: z.string() }] as const);
    const described = content && { content: Object.fromEntries<{ schema: z.ZodType }>(content) };
    return [status, { description: answer.description, ...described }];
  });
  const needed = needs === null ? '' : `Needs the role \`${needs}\`.`;
  return {
    operationId: idOf(method, path),
    tags: [tag],
    summary,
    description: [description, needed].filter(Boolean).join('\n\n'),
    security: needs === null ? [] : [{ operator: [] }],
    requestParams: {
      ...(names.length > 0
        ? { path: z.object(Object.fromEntries(names.map((name) => [name, z.string()]))) }
        : {}),
      ...(query ? { query: query as z.ZodObject } : {}),
      ...(Object.keys(header).length > 0 ? { header: z.object(header) } : {}),
    },
    ...(body ? { requestBody: bodyOf(body) } : {}),
    responses: Object.fromEntries([...problems, ...bodies]),
  };
}

/** A missing body counts as `{}` (operation.ts). The body is required where `{}` is refused. */
function bodyOf(schema: z.ZodType) {
  return { required: !schema.safeParse({}).success, content: { 'application/json': { schema } } };
}

/** Every status but those of success. Most follow from what an operation takes and from who may call it. */
function refusalsOf(operation: Operation): number[] {
  const { needs, query, body, repeatable, ifMatch, refusals: own = [] } = operation;
  const statuses = [
    ...own,
    ...(needs === null ? [] : [401, 403]),
    ...(query || body || repeatable || ifMatch ? [400] : []),
    ...(body ? [413, 415] : []),
    ...(repeatable ? [422] : []),
    ...(ifMatch ? [412] : []),
    ...(ifMatch === 'required' ? [428] : []),
    500,
    503,
  ];
  return [...new Set(statuses)].filter((status) => !(status in operation.answers));
}

function ifMatch(need: 'optional' | 'required') {
  const etag = z
    .string()
    .regex(etagRule)
    .meta({ description: 'The ETag that was read, or `*`.', example: '"3"' });
  return need === 'required' ? etag : etag.optional();
}

/** `postBouncersNameRotate` */
function idOf(method: string, path: string): string {
  const words = path.split(/\W+/).filter(Boolean);
  return method.toLowerCase() + words.map((word) => word[0]?.toUpperCase() + word.slice(1)).join('');
}
