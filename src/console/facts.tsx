// What is known of one bouncer: when it polls, what it asks for, how far it is behind, what it enforces.

import type { At } from './at.ts';
import type { BouncerBody } from './bouncers.tsx';
import { Tag, Time } from './parts.tsx';
import type { RosterRow } from './roster.ts';
import { viewOf } from '../mirror/view.ts';
import { countOf, some } from './words.ts';

/** What `GET /bouncers/{name}` answers. */
export type One = BouncerBody & { readonly metrics: unknown; readonly metrics_at: string | null };

/** `viewSize`: how many values its view has decisions on; null: not known. */
export function Facts(props: { at: At; bouncer: One; row: RosterRow | undefined; viewSize: number | null }) {
  const { at, bouncer, row, viewSize } = props;
  const lag = row?.lag ?? null;
  return (
    <div class="panel pad">
      <dl>
        <dt>Last pull</dt>
        <dd>
          <Time at={at} iso={bouncer.last_pull} />
          {bouncer.address === null ? '' : ' from '}
          <code>{bouncer.address}</code>
        </dd>
        <dt>Behind the feed</dt>
        <dd>
          {lag === null
            ? 'not known: it looks up, or has not pulled'
            : lag === 0
              ? 'up to date'
              : `${some(lag, 'change')} at most, in whatever view`}
        </dd>
        <dt>Asks for</dt>
        <dd>{row?.view ? asksFor(row.view) : 'not known: it looks up, or has not pulled'}</dd>
        <dt>Its view has</dt>
        <dd>
          {viewSize === null
            ? 'not known'
            : `decisions on ${some(viewSize, 'value')}, of what it asks for and may read`}
        </dd>
        <dt>Enforces</dt>
        <dd>
          <Enforced at={at} bouncer={bouncer} viewSize={viewSize} />
        </dd>
        <dt>Made</dt>
        <dd>
          <Time at={at} iso={bouncer.created_at} />
          {bouncer.lapi_name === null ? '' : `, imported as ${bouncer.lapi_name}`}
        </dd>
        {bouncer.rotation_asked_at ? (
          <>
            <dt>Its host was asked for a new key</dt>
            <dd>
              <Time at={at} iso={bouncer.rotation_asked_at} />
            </dd>
          </>
        ) : null}
      </dl>
    </div>
  );
}

/** What a client asks for, by its cursor. Engines stand there by handles, which nobody knows. */
function asksFor(request: string): string {
  const { scopes, origins, scenariosContaining, scenariosNotContaining, type, value, within, engines } =
    viewOf(request);
  const listed = (what: string, list: readonly string[] | null | undefined): string[] =>
    list ? [`${what} ${list.slice(0, mostNamed).join(', ')}${list.length > mostNamed ? ', …' : ''}`] : [];
  const parts = [
    ...listed('scopes', scopes),
    ...listed('origins', origins),
    ...listed('scenarios with', scenariosContaining),
    ...listed('scenarios without', scenariosNotContaining),
    ...(type === null ? [] : [`the type ${type}`]),
    ...(value === null && !within ? [] : ['some values']),
    ...(engines ? [some(engines.length, 'engine')] : []),
  ];
  return parts.length === 0 ? 'everything' : parts.join('; ');
}

const mostNamed = 10;

/** An older report says nothing of now (metrics/read.ts). */
const reportCountsMs = 2 * 3_600_000;

function Enforced({ at, bouncer, viewSize }: { at: At; bouncer: One; viewSize: number | null }) {
  const reported = reportedIn(bouncer.metrics);
  if (reported === null) return <>it has not reported</>;
  const isNew = at.nowMs - Date.parse(bouncer.metrics_at ?? '') < reportCountsMs;
  // As the alert has it (ops/prometheus/rules.yml).
  const isFew = isNew && viewSize !== null && reported < viewSize / 2;
  return (
    <>
      {some(reported, 'decision')}, as it reported <Time at={at} iso={bouncer.metrics_at} />{' '}
      {isFew ? <Tag tone="warn">less than half of the {countOf(viewSize)} in its view</Tag> : null}
    </>
  );
}

/** The `active_decisions` of the last window of a report, of which nothing is known but that it is JSON; null: none. */
function reportedIn(metrics: unknown): number | null {
  const windows = fieldOf(metrics, 'metrics');
  const items = Array.isArray(windows) ? fieldOf(windows.at(-1), 'items') : undefined;
  if (!Array.isArray(items)) return null;
  const values = items
    .filter((item) => fieldOf(item, 'name') === 'active_decisions')
    .map((item) => fieldOf(item, 'value'))
    .filter((value) => typeof value === 'number');
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
