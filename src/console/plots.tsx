// The last 24 hours as plots: SVG that the server draws, with the same in words and in a table.

import { mostSteps, type Step } from '../counters/steps.ts';
import { linkTo, type At } from './at.ts';
import * as day from './day.ts';
import { Table } from './parts.tsx';
import { countOf, utcOf } from './words.ts';

export function LastDay({ at, steps }: { at: At; steps: readonly Step[] }) {
  const of = day.dayOf(steps, at.nowMs);
  return (
    <>
      <h2>The last 24 hours</h2>
      <div class="plots">
        <Plot id="decisions" title="Decisions" series={of.decisions} words={day.levelWords(of.decisions)} />
        <Plot id="changes" title="Changes" series={of.changes} words={day.sumWords(of.changes)} />
        <Plot id="polls" title="Polls and look-ups" series={of.polls} words={day.sumWords(of.polls)} />
        <Plot id="refused" title="Refused attempts" series={of.refused} words={day.sumWords(of.refused)} />
      </div>
      <Hours of={of} />
      <h2>Refused attempts</h2>
      <Refusals at={at} of={of} />
    </>
  );
}

interface PlotOf {
  readonly id: string;
  readonly title: string;
  readonly series: day.Series;
  readonly words: string;
}

const height = 100;

/** Its scale begins at 0. What is not known is a grey band. */
function Plot({ id, title, series, words }: PlotOf) {
  const stretches = day.stretchesOf(series);
  const top = day.topOf(series);
  return (
    <figure class="panel pad">
      <figcaption>
        <b>{title}</b>
        <span class="soft">{words}</span>
      </figcaption>
      <div class="scale" aria-hidden="true">
        {countOf(top)}
      </div>
      <svg
        viewBox={`0 0 ${mostSteps} ${height}`}
        preserveAspectRatio="none"
        role="img"
        aria-labelledby={`plot-${id} words-${id}`}
      >
        <title id={`plot-${id}`}>{title} in the last 24 hours</title>
        <desc id={`words-${id}`}>{words}</desc>
        {stretches
          .filter(({ isKnown }) => !isKnown)
          .map(({ from, to }) => (
            <rect class="unknown" x={from} y={0} width={to - from} height={height} />
          ))}
        {[0, height / 2, height].map((y) => (
          <line class="grid" x1={0} y1={y} x2={mostSteps} y2={y} />
        ))}
        {stretches
          .filter(({ isKnown }) => isKnown)
          .map((stretch) => (
            <path class="curve" d={pathOf(series, stretch, top)} />
          ))}
      </svg>
      <div class="scale" aria-hidden="true">
        <span>24 h ago</span>
        <span>now</span>
      </div>
    </figure>
  );
}

/** The outline of a stretch. Each number holds for its five minutes: between two of them nothing is made up. */
function pathOf(series: day.Series, { from, to }: day.Stretch, top: number): string {
  let path = `M${from} ${height}`;
  let lastY: number | undefined;
  for (let at = from; at < to; at++) {
    const y = Math.round(height * (1 - (series[at] ?? 0) / top) * 10) / 10;
    if (y !== lastY) path += `H${at}V${y}`;
    lastY = y;
  }
  return `${path}H${to}V${height}Z`;
}

const hourColumns = [
  { title: 'Hour (UTC)' },
  { title: 'Decisions at its end', n: true },
  { title: 'Changes', n: true },
  { title: 'Polls and look-ups', n: true },
  { title: 'Refused attempts', n: true },
  { title: 'Known of it', n: true },
];

function Hours({ of }: { of: day.Day }) {
  return (
    <details class="panel pad">
      <summary>The same hour by hour</summary>
      <Table label="The last 24 hours, hour by hour" columns={hourColumns}>
        {day.hoursOf(of).map((hour) => (
          <tr>
            <th scope="row">
              <time datetime={new Date(hour.startMs).toISOString()}>
                {utcOf(hour.startMs).replace(/:\d\d UTC$/, '')}
              </time>
            </th>
            {[hour.decisions, hour.changes, hour.polls, hour.refused].map((count) => (
              <td class="n">{count === null ? <span class="soft">not known</span> : countOf(count)}</td>
            ))}
            <td class="n">{hour.minutes === 0 ? 'nothing' : `${hour.minutes} min`}</td>
          </tr>
        ))}
      </Table>
    </details>
  );
}

const refusalColumns = [{ title: 'Who' }, { title: 'Why' }, { title: 'In the last 24 h', n: true }];

/** By face and reason of `lapidary_auth_failures_total`. */
const reasons: Readonly<Record<string, string>> = {
  'bouncer no-key': 'sent no key',
  'bouncer unknown-key': 'sent a key that is none, or is none any more',
  'bouncer paused': 'is paused',
  'bouncer address': 'came from an address that its limits do not allow',
  'operator unauthorised': 'sent no token, or one that opens nothing',
  'operator forbidden': 'signed in, but has no role here',
  'operator role': 'asked for what takes another role',
  'host forbidden': 'is not known, or asked for what is not its own',
  'host bad-nonce': 'answered a challenge that was not made here',
  'host stale-nonce': 'answered a challenge too late',
  'host replayed': 'answered a challenge that was answered before',
  'host host-revoked': 'is removed',
  'host generation-mismatch': 'came with another count: it may be a copy',
  'machine forbidden': 'is blocked, or asked for what it may not',
  'machine login': 'logged in with a wrong name or password',
  'machine token': 'came without a token that is good',
};

function Refusals({ at, of }: { at: At; of: day.Day }) {
  if (of.refusals.length === 0) return <p class="soft">None in the last 24 hours, as far as is known.</p>;
  return (
    <>
      <Table label="Refused attempts" columns={refusalColumns}>
        {of.refusals.map(([what, count]) => (
          <tr>
            <th scope="row">{`A ${what.split(' ', 1)[0]}`.replace('A operator', 'An operator')}</th>
            <td class="wrap">{reasons[what] ?? what.replace(/^\S+ /, '')}</td>
            <td class="n">{countOf(count)}</td>
          </tr>
        ))}
      </Table>
      {of.refusals.some(([what]) => what.startsWith('host ')) ? (
        <p class="pages">
          <a href={linkTo(at, '/hosts')}>The hosts say why each was refused last</a>
        </p>
      ) : null}
    </>
  );
}
