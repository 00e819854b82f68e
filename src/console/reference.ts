// `/reference`: the document of /openapi.json as a page for people. Server-rendered, one request, no script.

import { html, raw } from 'hono/html';
import type { openApiDocument } from '../operations/openapi.ts';

type Document = ReturnType<typeof openApiDocument>;
type Schema = Readonly<Record<string, any>>; // eslint-disable-line @typescript-eslint/no-explicit-any
type Html = ReturnType<typeof html>;

interface Field {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
  readonly description: string;
}

const style = `
  :root { color-scheme: light dark; --line: #8884; --soft: #8882; }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
  h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
  h3 { margin: 2rem 0 0.25rem; font: 600 1rem ui-monospace, monospace; }
  h4 { margin: 0.75rem 0 0.25rem; font-size: 0.85rem; }
  code { font: 0.9em ui-monospace, monospace; background: var(--soft); padding: 0 0.25em; border-radius: 3px; }
  table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
  td, th { text-align: left; vertical-align: top; padding: 0.2rem 0.75rem 0.2rem 0; border-top: 1px solid var(--line); }
  td:first-child, th:first-child { white-space: nowrap; }
  nav ul { columns: 2; padding-left: 1rem; }
  nav li { break-inside: avoid; list-style: none; }
  p { margin: 0.25rem 0 0.5rem; }
`;

/** The page. `documentPath`: where the document itself is. */
export function referencePage(document: Document, documentPath: string): Html {
  const operations = Object.entries(document.paths ?? {}).flatMap(([path, methods]) => {
    return Object.entries(methods as Record<string, Schema>).map(([method, operation]) => {
      return { method: method.toUpperCase(), path, operation };
    });
  });
  const sections = (document.tags ?? []).map(({ name }) => {
    return { name, operations: operations.filter(({ operation }) => operation['tags'].includes(name)) };
  });
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${document.info.title} reference</title>
        <style>
          ${raw(style)}
        </style>
      </head>
      <body>
        <h1>${document.info.title}</h1>
        <p>
          ${withCode(document.info.description ?? '')} The same for programs:
          <a href="${documentPath}">OpenAPI 3.1</a>.
        </p>
        <p>
          Send <code>Authorization: Bearer …</code> and JSON. Every refusal is RFC 9457 problem+json; what is
          bad input names the field, and nothing is changed.
        </p>
        <nav>
          ${sections.map(
            (section) => html`
              <h4>${section.name}</h4>
              <ul>
                ${section.operations.map(
                  ({ method, path, operation }) =>
                    html`<li><a href="#${operation['operationId']}">${method} ${path}</a></li>`,
                )}
              </ul>
            `,
          )}
        </nav>
        ${sections.map(
          (section) => html`
            <h2>${section.name}</h2>
            ${section.operations.map(({ method, path, operation }) =>
              operationSection(document, method, path, operation),
            )}
          `,
        )}
        <h2>What is answered</h2>
        ${Object.entries((document.components?.schemas ?? {}) as Record<string, Schema>).map(
          ([name, schema]) =>
            html`<h3>${name}</h3>
              ${fieldTable('', fieldsOf(document, schema))}`,
        )}
      </body>
    </html>`;
}

function operationSection(document: Document, method: string, path: string, operation: Schema): Html {
  const { operationId, summary, description, parameters = [], requestBody, responses } = operation;
  const asked = (parameters as Schema[]).map((parameter): Field => {
    return {
      name: `${parameter['name']} (${parameter['in']})`,
      type: typeOf(document, parameter['schema']),
      required: parameter['required'] === true,
      description: parameter['description'] ?? parameter['schema'].description ?? '',
    };
  });
  const body = requestBody?.content['application/json'].schema;
  const statuses = Object.entries(responses as Record<string, Schema>).map(([status, response]): Field => {
    const schema = response['content']?.['application/json']?.schema;
    const type = schema ? typeOf(document, schema) : '';
    return { name: status, type, required: true, description: response['description'] };
  });
  const answered = Object.values(responses as Record<string, Schema>)
    .map((response) => response['content']?.['application/json']?.schema)
    .find((schema) => schema !== undefined);
  return html`<section id="${operationId}">
    <h3>${method} ${path}</h3>
    <p>${summary}.</p>
    ${paragraphs(description ?? '')} ${fieldTable('Takes', asked)}
    ${body ? fieldTable('Body', fieldsOf(document, body)) : ''}
    ${answered ? fieldTable('Answers', fieldsOf(document, answered)) : ''} ${fieldTable('Status', statuses)}
  </section>`;
}

function paragraphs(text: string): Html[] {
  return text.split('\n\n').map((paragraph) => html`<p>${withCode(paragraph)}</p>`);
}

/** Text in which `…` is code. */
function withCode(text: string): (Html | string)[] {
  return text.split('`').map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : part));
}

function fieldTable(title: string, fields: readonly Field[]): Html | string {
  if (fields.length === 0) return '';
  return html`${title === '' ? '' : html`<h4>${title}</h4>`}
    <table>
      ${fields.map(
        ({ name, type, required, description }) =>
          html`<tr>
            <td><code>${name}</code>${required ? '' : ' (optional)'}</td>
            <td>${type}</td>
            <td>${withCode(description)}</td>
          </tr>`,
      )}
    </table>`;
}

/** The fields of an object, those of the objects in it below them with a path for a name. */
function fieldsOf(document: Document, of: Schema, prefix = ''): Field[] {
  // What has a name is shown once, under it.
  if (prefix !== '' && of['$ref'] !== undefined) return [];
  const schema = resolve(document, of);
  const variants: Schema[] = schema['anyOf'] ?? schema['oneOf'] ?? [];
  if (variants.length > 0) return variants.flatMap((variant) => fieldsOf(document, variant, prefix));
  if (schema['type'] === 'array') return fieldsOf(document, schema['items'], `${prefix}[]`);
  const required: readonly string[] = schema['required'] ?? [];
  return Object.entries((schema['properties'] ?? {}) as Record<string, Schema>).flatMap(([name, field]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const described = {
      name: path,
      type: typeOf(document, field),
      required: required.includes(name),
      description: field['description'] ?? '',
    };
    return [described, ...fieldsOf(document, field, path)];
  });
}

function typeOf(document: Document, of: Schema): string {
  const name = of['$ref'] === undefined ? undefined : String(of['$ref']).split('/').at(-1);
  const schema = resolve(document, of);
  if (name !== undefined && schema['type'] === 'object') return name;
  if (schema['enum']) return (schema['enum'] as unknown[]).join(' | ');
  if (schema['const'] !== undefined) return String(schema['const']);
  const variants: Schema[] = schema['anyOf'] ?? schema['oneOf'] ?? [];
  if (variants.length > 0) return [...new Set(variants.map((each) => typeOf(document, each)))].join(' | ');
  if (schema['type'] === 'array') return `list of ${typeOf(document, schema['items'])}`;
  if (schema['format'] === 'date-time') return 'time';
  const type: unknown = schema['type'] ?? 'any';
  return Array.isArray(type) ? type.join(' | ') : String(type);
}

function resolve(document: Document, schema: Schema): Schema {
  const name = /^#\/components\/schemas\/(.+)$/.exec(schema['$ref'] ?? '')?.[1];
  if (name === undefined) return schema;
  return (document.components?.schemas as Record<string, Schema> | undefined)?.[name] ?? {};
}
