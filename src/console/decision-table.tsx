// Decisions one by one, as a look-up shows them.

import type { DecisionBody } from '../decisions/api.ts';
import { linkTo, may, type At } from './at.ts';
import { EngineLink, LookUpLink, Table } from './parts.tsx';
import { spanOf, utcOf } from './words.ts';

const columns = [
  { title: 'Value' },
  { title: 'Type' },
  { title: 'Origin' },
  { title: 'Scenario' },
  { title: 'Engine' },
  { title: 'Left', n: true },
];

export function DecisionTable(props: { at: At; label: string; decisions: readonly DecisionBody[] }) {
  const { at, label, decisions } = props;
  const all = may(at, 'operator') ? [...columns, { title: 'Unban' }] : columns;
  return (
    <Table label={label} columns={all}>
      {decisions.map((decision) => {
        const { value, scope, type, engine, left_behind: leftBehind, withheld_by: entry } = decision;
        const untilMs = Date.parse(decision.until);
        return (
          <tr>
            <th scope="row">
              <LookUpLink at={at} value={value} scope={scope} />{' '}
              {scope === 'Ip' || scope === 'Range' ? null : <span class="soft">{scope}</span>}
              <Withheld at={at} entry={entry} />
            </th>
            <td>{type}</td>
            <td class="wrap">{decision.origin}</td>
            <td class="wrap mono">{decision.scenario}</td>
            <td>
              {engine === null ? 'decided here' : <EngineLink at={at} name={engine} />}
              {leftBehind ? <span class="soft">, which does not confirm it any more</span> : null}
            </td>
            <td class="n">
              <time datetime={decision.until} title={`until ${utcOf(untilMs)}`}>
                {spanOf(untilMs - at.nowMs)}
              </time>
            </td>
            {may(at, 'operator') ? (
              <td>
                {engine === null || leftBehind ? (
                  <a href={linkTo(at, '/unban', { value, scope, type })}>Unban…</a>
                ) : (
                  <span class="soft">at the engine</span>
                )}
              </td>
            ) : null}
          </tr>
        );
      })}
    </Table>
  );
}

/** The entry of the allow-list by which no bouncer, or none of some, is served a decision. */
export function Withheld({ at, entry }: { at: At; entry: DecisionBody['withheld_by'] }) {
  if (entry === null) return null;
  if (entry.id === null) {
    const { engine, list } = entry;
    return (
      <a class="soft" href={linkTo(at, '/allow-list/engines', { engine, list })}>
        {`withheld: allow-list ${list} of ${engine}`}
      </a>
    );
  }
  return (
    <a class="soft" href={linkTo(at, `/allow-list/${entry.id}`)}>
      {entry.bouncers === null ? 'withheld' : `withheld from ${entry.bouncers.join(', ')}`}: allow-list
    </a>
  );
}
