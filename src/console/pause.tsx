// Pausing a bouncer, and what it does meanwhile. docs/keys.md has the same facts, with what they were learnt from.

import type { At } from './at.ts';
import type { BouncerBody } from './bouncers.tsx';
import { Post } from './forms.tsx';
import { Table } from './parts.tsx';
import { agoOf } from './words.ts';

/** What a kind of bouncer does while it is answered 403. */
interface OnRefusal {
  readonly title: string;
  /** How its User-Agent begins. */
  readonly agent: RegExp;
  readonly running: string;
  readonly starting: string;
}

const keeps = 'keeps what it has, asks again';
const exits = 'exits';
const again = 'asks again';

const kinds: readonly OnRefusal[] = [
  {
    title: 'Firewall',
    agent: /^crowdsec-firewall-bouncer/,
    running: keeps,
    starting: 'exits: Debian’s for good and without its rules, current ones are restarted by systemd',
  },
  {
    title: 'Custom',
    agent: /^crowdsec-custom-bouncer/,
    running: keeps,
    starting: 'Debian’s never polls again until it is restarted; current ones exit',
  },
  {
    title: 'Blocklist mirror, AWS WAF',
    agent: /^crowdsec-(?:blocklist-mirror|aws-waf)/,
    running: keeps,
    starting: exits,
  },
  {
    title: 'HAProxy SPOA',
    agent: /^crowdsec-spoa/,
    running: keeps,
    starting: 'exits, or asks again where it is configured to',
  },
  {
    title: 'nginx, OpenResty',
    agent: /^crowdsec-(?:nginx|openresty)/,
    running: 'stream: keeps what it has; live: lets everybody in',
    starting: again,
  },
  {
    title: 'HAProxy (Lua)',
    agent: /^crowdsec-haproxy/,
    running: 'stream: keeps what it has; live: lets everybody in',
    starting: again,
  },
  {
    title: 'Traefik',
    agent: /traefik/i,
    running:
      'stream: refuses every visitor that it has not seen, unless updateMaxFailure is set; live: refuses every visitor',
    starting: 'the same',
  },
  {
    title: 'Caddy',
    agent: /^caddy/i,
    running: 'stream: keeps what it has; live: lets everybody in, or ends (hard fail)',
    starting: again,
  },
  {
    title: 'PHP, WordPress',
    agent: /^csphplapi/,
    running: 'an error to the application; a warm-up clears its cache first',
    starting: 'an error to the application',
  },
  {
    title: 'Node',
    agent: /^(?:nodejs-cs|express)/,
    running: 'an error to the application, which takes the key for a bad one',
    starting: again,
  },
  {
    title: 'Cloudflare Worker',
    agent: /cloudflare-worker-bouncer/,
    running: keeps,
    starting: 'the daemon exits, the sync worker asks again',
  },
  {
    title: 'Windows firewall, RouterOS, Envoy',
    agent: /^(?:cs-windows|cs-routeros|envoy)/,
    running: keeps,
    starting: again,
  },
];

export function Pause({ at, bouncer }: { at: At; bouncer: BouncerBody }) {
  const { name, type, paused_at: pausedAt } = bouncer;
  if (pausedAt !== null) {
    return (
      <div class="banner warn">
        <p>
          <b>Paused {agoOf(Date.parse(pausedAt), at.nowMs)}:</b> its requests are refused. Resumed, it gets
          what came and went meanwhile with its first poll.
        </p>
        <WhilePaused type={type} />
        <PauseForm at={at} bouncer={bouncer} to="resume" />
      </div>
    );
  }
  return (
    <>
      <h2>Pause it</h2>
      <details>
        <summary>Pause {name}…</summary>
        <p>
          Within 5 s every request with its keys is answered 403, until it is resumed. Its keys, its limits
          and its place in the stream stay.
        </p>
        <WhilePaused type={type} />
        <PauseForm at={at} bouncer={bouncer} to="pause" />
      </details>
    </>
  );
}

function PauseForm({ at, bouncer, to }: { at: At; bouncer: BouncerBody; to: 'pause' | 'resume' }) {
  const { name, revision } = bouncer;
  return (
    <Post
      at={at}
      to={`/bouncers/${name}/${to}`}
      needs="operator"
      what={to === 'pause' ? 'Pausing it' : 'Resuming it'}
    >
      <input type="hidden" name="revision" value={String(revision)} />
      {to === 'pause' ? (
        <button class="danger">Pause {name}</button>
      ) : (
        <button class="primary">Resume {name}</button>
      )}
    </Post>
  );
}

function WhilePaused({ type }: { type: string | null }) {
  return (
    <>
      <p>
        <b>Unbans stop, too:</b> it hears of no decision that is removed or has ended. Bouncers with a clock
        of their own (the firewall’s sets, nginx, Traefik, PHP, Node) let a ban run out; the others keep it
        until they are resumed. What a bouncer does on a 403 is its own choice:
      </p>
      <WhenRefused type={type} />
    </>
  );
}

/** Of the bouncer's own kind; of one that is not known, every kind. */
function WhenRefused({ type }: { type: string | null }) {
  const own = kinds.find(({ agent }) => agent.test(type ?? ''));
  if (own) {
    const { title, running, starting } = own;
    return (
      <dl>
        <dt>{title}, while it runs</dt>
        <dd>{running}</dd>
        <dt>{title}, when it starts</dt>
        <dd>{starting}</dd>
      </dl>
    );
  }
  const columns = [{ title: 'Bouncer' }, { title: 'On a 403 while it runs' }, { title: 'When it starts' }];
  return (
    <Table label="What each kind of bouncer does" columns={columns}>
      {kinds.map(({ title, running, starting }) => (
        <tr>
          <th scope="row">{title}</th>
          <td class="wrap">{running}</td>
          <td class="wrap">{starting}</td>
        </tr>
      ))}
    </Table>
  );
}
