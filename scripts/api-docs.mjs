// `npm run docs`: writes docs/api.md, the document of /openapi.json as a page for people.
// The document is the one that the Worker itself answers; nothing of it is called but that route.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { format, resolveConfig } from 'prettier';

const root = fileURLToPath(new URL('../', import.meta.url));
const page = join(root, 'docs/api.md');

/** The page as it belongs into docs/api.md. */
export async function apiPage() {
  const text = render(await openApiDocument());
  return format(text, { ...(await resolveConfig(page)), parser: 'markdown' });
}

async function openApiDocument() {
  const folder = await mkdtemp(join(tmpdir(), 'lapidary-api-docs-'));
  try {
    const outfile = join(folder, 'app.mjs');
    await build({
      entryPoints: [join(root, 'src/app.ts')],
      outfile,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'es2024',
      plugins: [withoutCloudflare],
      logLevel: 'warning',
    });
    const { serve } = await import(pathToFileURL(outfile).href);
    const request = new Request('http://localhost/openapi.json', { headers: { host: 'localhost' } });
    const response = await serve(request, {}, {});
    if (!response.ok) throw new Error(`/openapi.json: ${response.status} ${await response.text()}`);
    return await response.json();
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Node has no modules of `cloudflare:`. They are only imported here, never used. */
const withoutCloudflare = {
  name: 'without-cloudflare',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^cloudflare:/ }, ({ path }) => ({ path, namespace: 'none' }));
    onLoad({ filter: /./, namespace: 'none' }, () => ({ contents: 'module.exports = {}' }));
  },
};

/** The page in Markdown, not yet formatted. */
function render(document) {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      return { ...operation, heading: `${method.toUpperCase()} ${path}` };
    }),
  );
  const sections = document.tags.map(({ name }) => {
    return {
      name: name[0].toUpperCase() + name.slice(1),
      operations: operations.filter(({ tags }) => tags.includes(name)),
    };
  });
  const objects = Object.entries(document.components.schemas);
  const { schemas } = document.components;
  return [
    '<!-- Made by `npm run docs` (scripts/api-docs.mjs) from the operations in src/. -->',
    '# HTTP API',
    document.info.description,
    'Every Lapidary answers this page for programs, as OpenAPI 3.1, at `/openapi.json`. With `PATH_PREFIX` each path begins with it.',
    'Send JSON, and `Authorization: Bearer …` where a role is needed: ' +
      document.components.securitySchemes.operator.description,
    '## Contents',
    ...sections.map(
      ({ name, operations }) =>
        `**${link(name)}**\n\n${operations.map(({ heading, summary }) => `- ${link(heading)}: ${summary}`).join('\n')}`,
    ),
    `**${link('Objects')}**: ${objects.map(([name]) => linkObject(name)).join(', ')}`,
    `**${link('Headers')}**, **${link('Errors')}**`,
    ...sections.flatMap(({ name, operations }) => [
      `## ${name}`,
      ...operations.flatMap((operation) => describe(schemas, operation)),
    ]),
    '## Objects',
    ...objects.flatMap(([name, schema]) => [
      `### Object ${name}`,
      schema.description ?? '',
      fieldTable(schemas, fieldsOf(schemas, schema)),
    ]),
    '## Headers',
    table(
      ['header', 'meaning'],
      headersOf(...operations).map(([name, { schema }]) => [`\`${name}\``, meaningOf(schema)]),
    ),
    '## Errors',
    `Every refusal is ${linkObject('Problem')}, with the media type \`application/problem+json\`.`,
    table(
      ['status', 'means'],
      errorsOf(operations).map(([status, { description }]) => [status, description]),
    ),
  ].join('\n\n');
}

function describe(schemas, { heading, summary, description, parameters = [], requestBody, responses }) {
  const asked = parameters.filter((parameter) => parameter.in === 'query');
  const headers = headersOf({ parameters }).map(([name, { required }]) => {
    return `\`${name}\`${required ? '' : ' (optional)'}`;
  });
  const body = fieldsOf(schemas, requestBody?.content['application/json'].schema ?? {});
  const answers = Object.entries(responses).filter(([status]) => isGood(status));
  return [
    `### ${heading}`,
    `${summary}.`,
    description,
    ...(asked.length > 0 ? ['Query:', fieldTable(schemas, asked)] : []),
    ...(headers.length > 0 ? [`${link('Headers')}: ${headers.join(', ')}.`] : []),
    ...(body.length > 0 ? ['Body:', fieldTable(schemas, body)] : []),
    ...answers.flatMap(([status, { description, content }]) => {
      if (!content) return [`Answers **${status}**, without a body: ${description}`];
      const json = content['application/json'];
      const types = Object.keys(content).map((type) => `\`${type}\``);
      if (!json) return [`Answers **${status}** with ${types.join(' or ')}: ${description}`];
      const fields = fieldsOf(schemas, json.schema);
      return [`Answers **${status}**: ${description}`, fieldTable(schemas, fields)];
    }),
    `${link('Errors')}: ${errorsOf([{ responses }])
      .map(([status]) => status)
      .join(', ')}.`,
  ].filter(Boolean);
}

/** Of several operations each header once, by its name. */
function headersOf(...operations) {
  const all = operations.flatMap(({ parameters = [] }) => parameters.filter((each) => each.in === 'header'));
  return Object.entries(Object.fromEntries(all.map((each) => [each.name, each])));
}

const isGood = (status) => status.startsWith('2');

/** Status and what it means, each once, in order. */
function errorsOf(operations) {
  const bad = operations.flatMap(({ responses }) => Object.entries(responses)).filter(([s]) => !isGood(s));
  return Object.entries(Object.fromEntries(bad));
}

/** The fields of an object, those of the objects in it below them with a path for a name. */
function fieldsOf(schemas, of, prefix = '') {
  // What has a name is shown once, under it.
  if (prefix !== '' && of.$ref !== undefined) return [];
  const schema = resolve(schemas, of);
  const variants = schema.anyOf ?? schema.oneOf ?? [];
  if (variants.length > 0) return variants.flatMap((variant) => fieldsOf(schemas, variant, prefix));
  if (schema.type === 'array') return fieldsOf(schemas, schema.items, `${prefix}[]`);
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const required = (schema.required ?? []).includes(name);
    return [{ name: path, required, schema: field }, ...fieldsOf(schemas, field, path)];
  });
}

/** In words: `list of [Bouncer](#bouncer)`, `"ban" or "captcha"`, `integer, 1 to 1000`. */
function typeOf(schemas, of) {
  const name = of.$ref?.split('/').at(-1);
  const schema = resolve(schemas, of);
  if (name !== undefined && schema.type === 'object') return linkObject(name);
  if (schema.enum) return schema.enum.map(literal).join(' or ');
  if (schema.const !== undefined) return literal(schema.const);
  const variants = schema.anyOf ?? schema.oneOf ?? [];
  if (variants.length > 0) return [...new Set(variants.map((each) => typeOf(schemas, each)))].join(' or ');
  if (schema.type === 'array') return `list of ${typeOf(schemas, schema.items ?? {})}`;
  if (schema.format === 'date-time') return 'time';
  const { minimum, maximum } = schema;
  const isBounded = Math.abs(minimum) < 1e12 && Math.abs(maximum) < 1e12;
  return [schema.type ?? 'any'].flat().join(' or ') + (isBounded ? `, ${minimum} to ${maximum}` : '');
}

const literal = (value) => `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;

function resolve(schemas, schema) {
  return schema.$ref === undefined ? schema : schemas[schema.$ref.split('/').at(-1)];
}

function fieldTable(schemas, fields) {
  const rows = fields.map(({ name, required, schema }) => {
    const usually = schema.default === undefined ? '' : `, default ${literal(schema.default)}`;
    const type = typeOf(schemas, schema) + usually;
    return [`\`${name}\`${required ? '' : ', optional'}`, type, meaningOf(schema)];
  });
  return table(['field', 'type', 'meaning'], rows);
}

function meaningOf({ description = '', example }) {
  return description + (example === undefined ? '' : ` Example: ${literal(example)}`);
}

function table(head, rows) {
  const line = (cells) => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

const cell = (text) =>
  text
    .replaceAll('|', '\\|')
    .replaceAll(/\s*\n\s*/g, ' ')
    .trim();

const linkObject = (name) => link(`Object ${name}`, name);

/** A link to a heading, which GitHub names so. */
function link(heading, text = heading) {
  const anchor = heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
  return `[${text}](#${anchor})`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(page, await apiPage());
