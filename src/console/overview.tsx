// The overview: whether all is served, what needs somebody, and how much there is.

import type { Context } from 'hono';
import type { FeedBody } from '../decisions/feed-api.ts';
import type { AppEnv } from '../env.ts';
import { askFeed } from '../feed/client.ts';
import type { Kind } from '../mirror/census.ts';
import type { At } from './at.ts';
import { call } from './call.ts';
import { EngineTable, stateOf } from './engines.tsx';
import { Page, refusedPage, respond } from './frame.tsx';
import { Lines, Table } from './parts.tsx';
import { countOf, some } from './words.ts';

export async function overview(c: Context<AppEnv>, at: At): Promise<Response> {
  const [feed, kinds] = await Promise.all([
    call<FeedBody>(c, 'GET', '/feed'),
    askFeed(c.env, async (each) => each.census()),
  ]);
  if (!feed.ok) return refusedPage(feed.refused, at.base);
  const { engines, decisions } = feed.body;
  const troubled = engines.filter((engine) => stateOf(engine).tone !== 'ok').length;
  const sub =
    engines.length === 0
      ? 'There is no engine: what operators ban here is served.'
      : troubled === 0
        ? `Everything is served. ${some(engines.length, 'engine is', 'engines are')} fresh.`
        : `${some(troubled, 'engine')} of ${countOf(engines.length)} ${troubled === 1 ? 'needs' : 'need'} attention. What is known is served.`;
  return respond(
    <Page at={at} title="Overview" nav="/" sub={sub} live>
      {engines.length === 0 ? <FirstEngine /> : null}
      {engines.length === 0 ? null : (
        <>
          <h2>Engines</h2>
          <EngineTable at={at} engines={engines} />
        </>
      )}
      <h2>Decisions by origin</h2>
      <Origins kinds={kinds} decisions={decisions} />
    </Page>,
  );
}

function FirstEngine() {
  return (
    <>
      <h2>Connect an engine</h2>
      <p>On the engine’s machine make a key that nothing but Lapidary uses, and start Lapidary with it:</p>
      <Lines
        id="first-engine"
        text={'cscli bouncers add lapidary\nUPSTREAM_URL=http://127.0.0.1:8080 UPSTREAM_API_KEY=… npm start'}
      />
    </>
  );
}

/** Scenarios are many, origins few. An engine may still make up any number of them. */
const mostOrigins = 30;

function Origins({ kinds, decisions }: { kinds: readonly Kind[]; decisions: number }) {
  const counts = new Map<string, Kind & { count: number }>();
  for (const kind of kinds) {
    const key = `${kind.engine}\n${kind.origin}\n${kind.type}`;
    const known = counts.get(key);
    if (known) known.count += kind.count;
    else counts.set(key, { ...kind });
  }
  if (decisions === 0) return <p class="soft">There are none: no address is banned.</p>;
  const rows = [...counts.values()].sort((a, b) => b.count - a.count);
  const columns = [
    { title: 'Origin' },
    { title: 'Engine' },
    { title: 'Type' },
    { title: 'Decisions', n: true },
  ];
  return (
    <Table label="Decisions by origin" columns={columns}>
      {rows.slice(0, mostOrigins).map(({ origin, engine, type, count }) => (
        <tr>
          <th scope="row" class="mono wrap">
            {origin}
          </th>
          <td>{engine === '' ? 'decided here' : engine}</td>
          <td>{type}</td>
          <td class="n">{countOf(count)}</td>
        </tr>
      ))}
    </Table>
  );
}
