// Alerts posted over the engine's machine API, so that decisions of any origin come in as an agent sends them.
import type { Engine } from './engine.ts';
import { untilUnlocked } from './locked.ts';

export interface AlertDecision {
  value: string;
  scope?: string;
  type?: string;
  duration?: string;
  /** crowdsec, CAPI, lists, cscli, … */
  origin?: string;
  /** The alert's scenario unless given. */
  scenario?: string;
}

export interface Alert {
  decisions: AlertDecision[];
  scenario?: string;
  /** Of the alert and so of all its decisions: the engine does not read a decision's own. */
  simulated?: boolean;
  /** When the attack ended; the engine counts durations from here. */
  stopAt?: Date;
}

/** Logs in as the lab's machine. The engine writes that down: it waits while its database is locked. */
export async function login(engine: Pick<Engine, 'url' | 'machine'>): Promise<string> {
  const { token } = (await post(`${engine.url}/v1/watchers/login`, {
    machine_id: engine.machine.login,
    password: engine.machine.password,
    scenarios: ['crowdsecurity/ssh-bf'],
  })) as { token: string };
  return token;
}

/** Posts one alert as the lab's machine, with `token` of an earlier login if given; answers the alert's id. */
export async function postAlert(
  engine: Pick<Engine, 'url' | 'machine'>,
  alert: Alert,
  token?: string,
): Promise<string> {
  const { scenario = 'crowdsecurity/ssh-bf', simulated = false, stopAt = new Date() } = alert;
  const first = alert.decisions[0];
  if (!first) throw new Error('an alert needs a decision');
  const body = {
    scenario,
    scenario_hash: 'lab',
    scenario_version: '0.1',
    message: `${scenario} on ${first.value}`,
    events_count: 1,
    start_at: stopAt.toISOString(),
    stop_at: stopAt.toISOString(),
    capacity: 0,
    leakspeed: '0',
    simulated,
    events: [],
    source: { scope: first.scope ?? 'Ip', value: first.value },
    decisions: alert.decisions.map((decision) => ({
      scope: 'Ip',
      type: 'ban',
      duration: '4h',
      origin: 'crowdsec',
      scenario,
      simulated,
      ...decision,
    })),
  };
  const ids = (await post(`${engine.url}/v1/alerts`, [body], token ?? (await login(engine)))) as string[];
  return String(ids[0]);
}

const post = (url: string, body: unknown, token?: string) => untilUnlocked(() => postOnce(url, body, token));

async function postOnce(url: string, body: unknown, token?: string): Promise<unknown> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    'user-agent': 'lapidary-lab/v1',
  };
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`couldn't post to ${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}
