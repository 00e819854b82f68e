// The audit log: who did what, and whether it is whole.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { openBreaks, type auditShape, type Break, type verdictShape } from '../operators/audit.ts';
import { linkTo, may, type At } from './at.ts';
import { call, onceBy } from './call.ts';
import { Post } from './forms.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Done, Pages, Table, Time } from './parts.tsx';
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
  const { before, done } = given;
  const asked = filters.map((name) => [name, given[name]?.trim() ?? ''] as const);
  const filter = Object.fromEntries(asked.filter(([, text]) => text !== ''));
  const [answer, breaks] = await Promise.all([
    call<{ audit: Row[]; next: number | null }>(c, 'GET', '/audit', {
      query: { ...filter, before, limit: pageRows },
    }),
    openBreaks(c.env),
  ]);
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { audit, next } = answer.body;
  return respond(
    <Page at={at} title="Audit" nav="/audit" sub="Who did what, the newest first." live>
      <Done
        done={done}
        words={{ acknowledged: 'Acknowledged. The log passes its check again, and lists the break.' }}
      />
      <Breaks at={at} breaks={breaks} />
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
  const { lost = [] } = verdict;
  return respond(
    <Page at={at} title="The audit log" nav="/audit" sub={sentenceOf(verdict)}>
      {verdict.ok ? (
        <div class="banner ok" role="status">
          <p>
            Row {countOf(verdict.head.seq)} has the hash <code>{verdict.head.hash}</code>. It stands for all
            rows up to there.
          </p>
        </div>
      ) : isBreak(verdict) ? null : (
        <div class="banner bad" role="alert">
          <p>
            <b>
              At row {countOf(verdict.seq)}: {verdict.problem}.
            </b>
          </p>
          <p>
            D1 was changed past Lapidary. No acknowledgement ends that: find out who may write to D1, and what
            the row was before.
          </p>
        </div>
      )}
      <Breaks at={at} breaks={lost.filter(isOpen)} />
      <Acknowledged at={at} breaks={lost.filter((each) => !isOpen(each))} />
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

const isOpen = (each: Break): boolean => each.acknowledged_at === null;

/** Whether what is wrong is what `Breaks` says. */
function isBreak({ seq, lost = [] }: Extract<Verdict, { ok: false }>): boolean {
  return lost.some((each) => isOpen(each) && each.goes_on_at === seq);
}

/** `had come to row 6, and goes on at row 4` */
export function breakWords({ ended_at: endedAt, goes_on_at: goesOnAt }: Break): string {
  return `had come to row ${countOf(endedAt)}, and goes on at row ${countOf(goesOnAt)}`;
}

/** Where the log breaks off and nobody has said why, and the form by which an admin does. */
function Breaks({ at, breaks }: { at: At; breaks: readonly Break[] }) {
  if (breaks.length === 0) return null;
  const form = (
    <Post at={at} to="/audit/acknowledge" needs="admin" what="Acknowledging it">
      <p>
        Then the log passes its check again. That can not be taken back; the break stays listed, and a row
        says that you acknowledged it.
      </p>
      <button>Acknowledge that D1 was restored</button>
    </Post>
  );
  return (
    <div class="banner bad" role="alert">
      {breaks.map((each) => (
        <p>
          <b>The log {breakWords(each)}.</b> What it had from there on is lost. Found{' '}
          <Time at={at} iso={each.found_at} />.
        </p>
      ))}
      <p>
        A restored backup of D1 looks like that, and so does a log that somebody cut. The check fails until an
        admin who knows that D1 was restored says so.
      </p>
      {may(at, 'admin') ? (
        <details>
          <summary>D1 was restored…</summary>
          {form}
        </details>
      ) : (
        form
      )}
    </div>
  );
}

const breakColumns = [
  { title: 'Had come to row', n: true },
  { title: 'Goes on at row', n: true },
  { title: 'Found', n: true },
  { title: 'Acknowledged', n: true },
];

function Acknowledged({ at, breaks }: { at: At; breaks: readonly Break[] }) {
  if (breaks.length === 0) return null;
  return (
    <>
      <h2>What restored backups lost of it</h2>
      <Table label="What restored backups lost of it" columns={breakColumns}>
        {breaks.map((each) => (
          <tr>
            <td class="n">{countOf(each.ended_at)}</td>
            <td class="n">{countOf(each.goes_on_at)}</td>
            <td class="n">
              <Time at={at} iso={each.found_at} />
            </td>
            <td class="n">
              <Time at={at} iso={each.acknowledged_at} />
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

export async function acknowledgeBreaks(
  c: Context<AppEnv>,
  at: At,
  form: URLSearchParams,
): Promise<Response> {
  const answer = await call(c, 'POST', '/audit/acknowledge', { body: {}, headers: onceBy(form) });
  if (!answer.ok) return refusedPage(at, answer.refused);
  return c.redirect(linkTo(at, '/audit', { done: 'acknowledged' }), 303);
}
