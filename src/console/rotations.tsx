// Rotations of many bouncers: how far each has come.

import type { Context } from 'hono';
import type * as z from 'zod';
import type { memberShape, rotationShape, slowShape } from '../bouncers/rotations.ts';
import type { AppEnv } from '../env.ts';
import { linkTo, type At } from './at.ts';
import { call, part } from './call.ts';
import { Page, refusedPage, respond } from './frame.tsx';
import { BouncerLink, Lines, Pages, Table, Tag, Time, type Tone } from './parts.tsx';
import { countOf, some, spanOf } from './words.ts';

type Rotation = z.input<typeof rotationShape>;
type Member = z.input<typeof memberShape>;
type Slow = z.input<typeof slowShape>;

const pageRows = 50;

const columns = [
  { title: 'Rotation' },
  { title: 'Made', n: true },
  { title: 'By' },
  { title: 'Which' },
  { title: 'Bouncers', n: true },
];

function selectorOf({ selector }: Rotation): string {
  const { names, older_than_seconds: seconds } = selector;
  const parts = [
    ...(names ? [names.join(', ')] : []),
    ...(seconds === undefined ? [] : [`keys older than ${spanOf(seconds * 1000)}`]),
  ];
  return parts.join('; ');
}

export async function showRotations(c: Context<AppEnv>, at: At): Promise<Response> {
  const { before } = c.req.query();
  const answer = await call<{ rotations: Rotation[]; next: number | null }>(c, 'GET', '/rotations', {
    query: { before, limit: pageRows },
  });
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { rotations, next } = answer.body;
  return respond(
    <Page
      at={at}
      title="Rotations"
      nav="/rotations"
      sub="New keys for many bouncers at once, the newest first."
      live
    >
      {rotations.length === 0 ? (
        <>
          <p>There is none. One bouncer’s key is rotated on its page; those of many like this:</p>
          <Lines
            id="first-rotation"
            text={`curl -sS -H @.lapidary/operator-header ${at.url}/api/v1/rotations \\\n  -d '{"selector":{"older_than":"90d"},"spread":"1h","dry_run":true}'`}
          />
        </>
      ) : (
        <Table label="Rotations" columns={columns}>
          {rotations.map((rotation) => (
            <tr>
              <th scope="row">
                <a href={linkTo(at, `/rotations/${rotation.id}`)}>{rotation.id}</a>
              </th>
              <td class="n">
                <Time at={at} iso={rotation.created_at} />
              </td>
              <td class="wrap">{rotation.actor}</td>
              <td class="wrap mono">{selectorOf(rotation)}</td>
              <td class="n">{countOf(rotation.bouncers)}</td>
            </tr>
          ))}
        </Table>
      )}
      <Pages
        before={before === undefined ? null : linkTo(at, '/rotations')}
        beforeText="← to the newest"
        after={next === null ? null : linkTo(at, '/rotations', { before: next })}
      />
    </Page>,
  );
}

const states: Readonly<Record<Member['state'], readonly [Tone, string]>> = {
  waiting: ['warn', 'on the old key'],
  grace: ['ok', 'on the new key, the old one is still good'],
  done: ['ok', 'on the new key alone'],
  lapsed: ['bad', 'the new key expired unused'],
  replaced: ['off', 'another version took its place'],
  gone: ['off', 'deleted'],
};

const memberColumns = [
  { title: 'Bouncer' },
  { title: 'State' },
  { title: 'Due', n: true },
  { title: 'New key first used', n: true },
  { title: 'Old key last used', n: true },
];

const mostSlow = 10;

/** Those that may be refused before they have their new key. */
function SlowOnes({ at, slow, graceMs }: { at: At; slow: Slow; graceMs: number }) {
  const shown = slow.bouncers.slice(0, mostSlow);
  return (
    <p>
      <Tag tone="warn">{some(slow.count, 'bouncer')}</Tag> {slow.count === 1 ? 'pulls' : 'pull'} less often
      than the grace of {spanOf(graceMs)}, so a device may find its old key expired before it has the new one:{' '}
      {shown.map(({ name, interval_seconds }, index) => (
        <>
          {index > 0 && ', '}
          <BouncerLink at={at} name={name} /> ({spanOf(1000 * interval_seconds)})
        </>
      ))}
      {slow.count > shown.length && ` and ${countOf(slow.count - shown.length)} more`}.
    </p>
  );
}

/** `GET /rotations/{id}?state=&page=`: a rotation has at most 1,000 bouncers. */
export async function showRotation(c: Context<AppEnv>, at: At): Promise<Response> {
  const { state = '', page: pageText = '1' } = c.req.query();
  const id = c.req.param('id') ?? '';
  const answer = await call<{
    rotation: Rotation;
    members: Member[];
    counts: Record<string, number>;
    slower_than_grace: Slow;
  }>(c, 'GET', `/rotations/${part(id)}`);
  if (!answer.ok) return refusedPage(at, answer.refused);
  const { rotation, members, counts, slower_than_grace: slow } = answer.body;
  const found = members.filter((member) => state === '' || member.state === state);
  const last = Math.max(1, Math.ceil(found.length / pageRows));
  const page = Math.min(last, /^\d{1,4}$/.test(pageText) ? Math.max(1, Number(pageText)) : 1);
  const link = (more: Record<string, string | number>): string =>
    linkTo(at, `/rotations/${id}`, { state, ...more });
  const there = Object.entries(states).filter(([name]) => (counts[name] ?? 0) > 0);
  return respond(
    <Page
      at={at}
      title={`Rotation ${id}`}
      nav="/rotations"
      sub={`${countOf((counts['done'] ?? 0) + (counts['grace'] ?? 0))} of ${some(rotation.bouncers, 'bouncer')} on the new key. Of ${selectorOf(rotation)}, by ${rotation.actor}.`}
      live
    >
      <p class="bar">
        <a href={link({ state: '' })}>All {countOf(members.length)}</a>
        {there.map(([name, [tone, words]]) => (
          <a href={link({ state: name })}>
            <Tag tone={tone}>
              {countOf(counts[name] ?? 0)} {words}
            </Tag>
          </a>
        ))}
      </p>
      {slow.count > 0 && <SlowOnes at={at} slow={slow} graceMs={1000 * rotation.grace_seconds} />}
      <Table label="Bouncers of the rotation" columns={memberColumns}>
        {found.slice((page - 1) * pageRows, page * pageRows).map((member) => (
          <tr>
            <th scope="row">
              {member.state === 'gone' ? member.name : <BouncerLink at={at} name={member.name} />}
            </th>
            <td>
              <Tag tone={states[member.state][0]}>{states[member.state][1]}</Tag>
            </td>
            <td class="n">
              <Time at={at} iso={member.due_at} />
            </td>
            <td class="n">
              <Time at={at} iso={member.new_first_used} />
            </td>
            <td class="n">
              <Time at={at} iso={member.old_last_used} />
            </td>
          </tr>
        ))}
      </Table>
      <Pages
        before={page > 1 ? link({ page: page - 1 }) : null}
        after={page < last ? link({ page: page + 1 }) : null}
      />
    </Page>,
  );
}
