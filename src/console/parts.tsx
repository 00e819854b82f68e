// What pages are put together from: times, states, tables, lines to paste.

import type { Child } from 'hono/jsx';
import { isOfAddresses } from '../formats/canonical.ts';
import { linkTo, type At } from './at.ts';
import { agoOf, utcOf } from './words.ts';

/** A moment: how long ago, and in UTC where one points at it. `never`: what stands in its place where there is none. */
export function Time({ at, iso, never }: { at: At; iso: string | null | undefined; never?: string }) {
  if (iso === null || iso === undefined) return <span class="soft">{never ?? 'never'}</span>;
  const ms = Date.parse(iso);
  return (
    <time datetime={iso} title={utcOf(ms)}>
      {agoOf(ms, at.nowMs)}
    </time>
  );
}

/** The same for milliseconds. */
export function Moment({ at, ms }: { at: At; ms: number }) {
  return <Time at={at} iso={new Date(ms).toISOString()} />;
}

export type Tone = 'ok' | 'warn' | 'bad' | 'off';

/** A state: a word, and a colour that says no more than the word does. */
export function Tag({ tone, children }: { tone: Tone; children?: Child }) {
  return <span class={`tag ${tone}`}>{children}</span>;
}

/** A table, or a form, that scrolls inside its frame where the screen is narrow. */
export function Panel({ label, children }: { label: string; children?: Child }) {
  return (
    <div class="panel" role="region" aria-label={label} tabindex={0}>
      {children}
    </div>
  );
}

export interface Column {
  readonly title: string;
  /** It holds numbers. */
  readonly n?: boolean;
  /** Where a click on its head leads, and how the rows are sorted now. */
  readonly sort?: { readonly to: string; readonly now: 'ascending' | 'descending' | null };
}

export function Table({
  label,
  columns,
  children,
}: {
  label: string;
  columns: readonly Column[];
  children?: Child;
}) {
  return (
    <Panel label={label}>
      <table>
        <thead>
          <tr>
            {columns.map(({ title, n, sort }) => (
              <th scope="col" class={n ? 'n' : undefined} aria-sort={sort?.now ?? undefined}>
                {sort ? (
                  <a href={sort.to}>
                    {title}
                    {sort.now === null ? '' : sort.now === 'ascending' ? ' ↑' : ' ↓'}
                  </a>
                ) : (
                  title
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </Panel>
  );
}

/** Links to the pages of a list before and after this one. */
export function Pages({
  before,
  beforeText = '← before',
  after,
}: {
  before?: string | null | undefined;
  beforeText?: string;
  after?: string | null | undefined;
}) {
  if (!before && !after) return null;
  return (
    <nav class="pages" aria-label="Parts of the list">
      {before ? <a href={before}>{beforeText}</a> : null}
      {after ? <a href={after}>next →</a> : null}
    </nav>
  );
}

/** Lines to paste, with a button that copies them where there is a script. */
export function Lines({ id, text }: { id: string; text: string }) {
  return (
    <>
      <pre id={id} tabindex={0} aria-label="Lines to paste" role="region">
        {text}
      </pre>
      <p>
        <button type="button" data-copy={id} hidden>
          Copy
        </button>
      </p>
    </>
  );
}

/** What was just done, or with `stale` not done. It comes with the address, so only known words are shown. */
export function Done({ done, words }: { done: string | undefined; words: Readonly<Record<string, string>> }) {
  if (done === undefined || !Object.hasOwn(words, done)) return null;
  return (
    <div class={`banner ${done === 'stale' ? 'warn' : 'ok'}`} role="status">
      <p>{words[done]}</p>
    </div>
  );
}

export function BouncerLink({ at, name }: { at: At; name: string }) {
  return <a href={linkTo(at, `/bouncers/${encodeURIComponent(name)}`)}>{name}</a>;
}

/** An engine's part of the page of engines. */
export function EngineLink({ at, name }: { at: At; name: string }) {
  return <a href={`${linkTo(at, '/engines')}#engine-${encodeURIComponent(name)}`}>{name}</a>;
}

/** Where a decision's value is looked up. An address is of its scope by itself: what covers it has others, too. */
export function lookUpLink(at: At, value: string, scope?: string, done?: string): string {
  const needed = scope === undefined || isOfAddresses(scope) ? undefined : scope;
  return linkTo(at, '/lookup', { value, scope: needed, done });
}

export function LookUpLink({ at, value, scope }: { at: At; value: string; scope: string }) {
  return (
    <a href={lookUpLink(at, value, scope)}>
      <code>{value}</code>
    </a>
  );
}
