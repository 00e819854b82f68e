// Engines that move: machines ban and unban over their API, in every scope and origin, among few values, so that several
// decisions meet on one. No origin and no scope but that of addresses has more than a hundred of them.
import { setTimeout as delay } from 'node:timers/promises';
import { login, postAlert, type AlertDecision } from './alert.ts';
import type { Engine } from './engine.ts';
import { untilUnlocked } from './locked.ts';

interface Pool {
  scenario: string;
  decision: (at: number) => AlertDecision;
  size: number;
}

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

const pools: readonly Pool[] = [
  {
    scenario: 'crowdsecurity/ssh-bf',
    decision: (at) => ({ value: `192.0.2.${at}`, origin: 'crowdsec' }),
    size: 40,
  },
  {
    scenario: 'crowdsecurity/http-probing',
    decision: (at) => ({ value: `192.0.2.${40 + at}`, origin: 'crowdsec', type: 'captcha' }),
    size: 30,
  },
  { scenario: 'firehol', decision: (at) => ({ value: `192.0.2.${at}`, origin: 'lists' }), size: 80 },
  {
    scenario: 'manual',
    decision: (at) => ({ value: `198.51.100.${at * 8}/29`, scope: 'Range', origin: 'cscli' }),
    size: 32,
  },
  {
    scenario: 'manual',
    decision: (at) => ({ value: `Q${letters[at]}`, scope: 'Country', origin: 'cscli' }),
    size: 26,
  },
  {
    scenario: 'crowdsecurity/http-crawl',
    decision: (at) => ({ value: String(64_496 + at), scope: 'AS', origin: 'crowdsec' }),
    size: 16,
  },
];

export interface Churn {
  /** Leaves the engine at this place alone: it is about to be killed. */
  leave(at: number): void;
  /** To be called when it runs again. */
  resume(at: number): void;
  /** Decisions that were made or ended by a request. */
  changes(): number;
  /** Requests that an engine refused which was not left alone. */
  problems(): readonly string[];
  stop(): Promise<void>;
}

export interface ChurnOptions {
  changesPerSecond: number;
  random: () => number;
}

/** A token is good for an hour, or until the engine is started again. */
const tokenMs = 600_000;
const leastPauseMs = 100;
/** Beyond so many on one engine each ban is followed by an unban. */
const mostBanned = 80;

/** Moves all these engines, at so many changes a second in all. */
export function startChurn(engines: readonly Engine[], { changesPerSecond, random }: ChurnOptions): Churn {
  const stopping = new AbortController();
  const { signal } = stopping;
  const below = (end: number): number => Math.floor(random() * end);
  const left = new Set<Engine>();
  /** Those that run again: the tokens that they gave out before are good no more. */
  const returned = new Set<Engine>();
  const problems: string[] = [];
  const beganMs = Date.now();
  let changes = 0;

  async function ban(engine: Engine, token: string, banned: AlertDecision[]): Promise<number> {
    const { scenario, decision, size } = pools[below(pools.length)] as Pool;
    const decisions = [0, 1, 2].map(() => {
      // Some end by themselves.
      const duration = random() < 0.3 ? `${3 + below(8)}s` : '4h';
      return { ...decision(below(size)), duration };
    });
    await postAlert(engine, { scenario, decisions }, token);
    banned.push(...decisions.filter(({ duration }) => duration === '4h'));
    return decisions.length;
  }

  async function unban({ url }: Engine, token: string, banned: AlertDecision[]): Promise<number> {
    const [target] = banned.splice(below(banned.length), 1);
    if (!target) return 0;
    const { scope, value } = target;
    // Deletion knows no scope.
    const which = scope === undefined ? `ip=${value}` : `value=${encodeURIComponent(value)}`;
    return untilUnlocked(async () => {
      const headers = { authorization: `Bearer ${token}`, 'user-agent': 'lapidary-lab/v1' };
      const answer = await fetch(`${url}/v1/decisions?${which}`, { method: 'DELETE', headers });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`couldn't unban ${value}: ${answer.status} ${text}`);
      return Number((JSON.parse(text) as { nbDeleted: string }).nbDeleted);
    });
  }

  async function move(engine: Engine): Promise<void> {
    const banned: AlertDecision[] = [];
    let token = '';
    let tokenEndsMs = 0;
    while (!signal.aborted) {
      try {
        if (!left.has(engine)) {
          if (returned.delete(engine)) tokenEndsMs = 0;
          if (Date.now() >= tokenEndsMs) {
            token = await login(engine);
            tokenEndsMs = Date.now() + tokenMs;
          }
          changes += await ban(engine, token, banned);
          while (banned.length > mostBanned) changes += await unban(engine, token, banned);
        }
      } catch (error) {
        if (!left.has(engine)) problems.push(String(error));
        tokenEndsMs = 0;
      }
      const aheadMs = (changes / changesPerSecond) * 1000 - (Date.now() - beganMs);
      await delay(Math.max(leastPauseMs, aheadMs), undefined, { signal }).catch(() => undefined);
    }
  }

  const moving = Promise.all(engines.map(move));
  return {
    leave: (at) => void left.add(engines[at] as Engine),
    resume(at) {
      returned.add(engines[at] as Engine);
      left.delete(engines[at] as Engine);
    },
    changes: () => changes,
    problems: () => problems,
    async stop() {
      stopping.abort();
      await moving;
    },
  };
}
