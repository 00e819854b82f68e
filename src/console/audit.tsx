// The audit log: who did what, and whether it is whole.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import type { auditShape, verdictShape } from '../operators/audit.ts';
import { linkTo, type At } from './at.ts';
import { call } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { Pages, Table, Time } from './parts.tsx';
import { countOf } from './words.ts';

type Row = z.input<typeof auditShape>;
type Verdict = z.input<typeof verdictShape>;

const pageRows = 100;
const filters = ['actor', 'action', 'target'] as const;

const columns = [
  { title: 'When', n: true },
  { title: 'Who' },
  { title: 'Did' },
  { title: 'To' },
  { title: 'How' },
  { title: 'Row', n: true },
];

export async function showAudit(c: Context<AppEnv>, at: At): Promise<Response> {
  const given = c.req.query();
  const { before } = given;
  const asked = filters.map((name) => [name, given[name]?.trim() ?? ''] as const);
  const filter = Object.fromEntries(asked.filter(([, text]) => text !== ''));
  const answer = await call<{ audit: Row[]; next: number | null }>(c, 'GET', '/audit', {
    query: { ...filter, before, limit: pageRows },
  });
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { audit, next } = answer.body;
  return respond(
    <Page at={at} title="Audit" nav="/audit" sub="Who did what, the newest first." live>
      <div class="bar">
        <form class="bar" role="search" method="get" action={linkTo(at, '/audit')}>
          {filters.map((name) => (
            <input
              name={name}
              value={filter[name] ?? ''}
              placeholder={words[name]}
              aria-label={words[name]}
            />
          ))}
          <button>Filter</button>
        </form>
        <a class="end" href={linkTo(at, '/audit/verify')}>
          Verify the log
        </a>
      </div>
      {audit.length === 0 ? (
        <p class="soft">No row is like that.</p>
      ) : (
        <Table label="Audit log" columns={columns}>
          {audit.map((row) => (
            <tr>
              <td class="n">
                <Time at={at} iso={row.at} />
              </td>
              <td class="wrap">
                <a href={linkTo(at, '/audit', { actor: row.actor })}>{row.actor}</a>
              </td>
              <td>
                <a href={linkTo(at, '/audit', { action: row.action })}>{row.action}</a>
              </td>
              <td class="wrap">
                <a href={linkTo(at, '/audit', { target: row.target })}>{row.target}</a>
              </td>
              <td class="wrap soft">{detailOf(row.detail)}</td>
              <td class="n">{countOf(row.seq)}</td>
            </tr>
          ))}
        </Table>
      )}
      <Pages
        before={before === undefined ? null : linkTo(at, '/audit', filter)}
        beforeText="← to the newest"
        after={next === null ? null : linkTo(at, '/audit', { ...filter, before: next })}
      />
    </Page>,
  );
}

const words = { actor: 'Who', action: 'Did, like bouncer.rotate', target: 'To' } as const;

const mostCharacters = 300;

/** `grace seconds: 900; number: 2`. What is null or false says nothing; an import's row names all its bouncers. */
function detailOf(detail: unknown): string {
  if (typeof detail !== 'object' || detail === null) return cutAt(String(detail));
  const said = Object.entries(detail).filter(([, value]) => value !== null && value !== false);
  const parts = said.map(([name, value]) => {
    if (name === 'break_glass') return 'with OPERATOR_TOKEN';
    return `${name.replaceAll('_', ' ')}: ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`;
  });
  return cutAt(parts.join('; '));
}

function cutAt(text: string): string {
  return text.length > mostCharacters ? `${text.slice(0, mostCharacters)}…` : text;
}

export async function verifyAudit(c: Context<AppEnv>, at: At): Promise<Response> {
  const { after } = c.req.query();
  const answer = await call<Verdict>(c, 'GET', '/audit/verify', { query: { after } });
  if (!answer.ok && answer.refused.status !== 409) return refusedPage(at, answer.refused);
  const verdict = answer.ok ? answer.body : (answer.refused.body as Verdict);
  return respond(
    <Page at={at} title="The audit log" nav="/audit" sub={sentenceOf(verdict)}>
      {verdict.ok ? (
        <div class="banner ok" role="status">
          <p>
            Row {countOf(verdict.head.seq)} has the hash <code>{verdict.head.hash}</code>. It stands for all
            rows up to there.
          </p>
        </div>
      ) : (
        <div class="banner bad" role="alert">
          <p>
            At row {countOf(verdict.seq)}: {verdict.problem}.
          </p>
        </div>
      )}
      <p>
        {verdict.ok && verdict.next !== null ? (
          <a href={linkTo(at, '/audit/verify', { after: verdict.next })}>
            Go on after row {countOf(verdict.next)}
          </a>
        ) : (
          <a href={linkTo(at, '/audit')}>To the log</a>
        )}
      </p>
    </Page>,
    answer.ok ? 200 : 409,
  );
}

function sentenceOf(verdict: Verdict): string {
  if (!verdict.ok) return 'It is not whole.';
  if (verdict.next !== null) return `It is whole up to row ${countOf(verdict.next)}, and goes on.`;
  return 'It is whole: no row is changed, missing, or cut off at its end.';
}
