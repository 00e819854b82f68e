// The four real bouncers behind one question, "is this address banned?", so that one check runs on each of them
// and against any LAPI.
import type { AbilityName } from './ability.ts';
import { startCustomBouncer } from './custom-bouncer.ts';
import { startFirewallBouncer } from './firewall-bouncer.ts';
import { startCrowdsecClient, startNodejsBouncer } from './npm-bouncers.ts';
import { until } from './wait.ts';

/** Any LAPI, real or ours, and a bouncer key that it knows. */
export interface Lapi {
  url: string;
  key: string;
}

export interface Enforcer {
  enforces(ip: string): Promise<boolean>;
  /** How many of its pulls failed so far. */
  failedPulls(): number;
  /** What the bouncer itself had to say, for the message of a failed check. */
  trace(): unknown;
  /** Ends the bouncer and removes what it left. */
  close(): Promise<void>;
}

export interface Operator {
  ban(value: string, options?: { duration?: string }): Promise<void>;
  unban(value: string): Promise<void>;
}

export const enforcers = {
  'custom bouncer': async (lapi) => {
    const bouncer = await startCustomBouncer(lapi);
    return {
      enforces: async (ip) => bouncer.active().has(ip),
      failedPulls: () => failuresIn(bouncer.log()),
      trace: () => [bouncer.events().slice(-10), bouncer.log().slice(-1000)],
      close: bouncer.close,
    };
  },
  'firewall bouncer': async (lapi) => {
    const bouncer = await startFirewallBouncer(lapi);
    return {
      async enforces(ip) {
        const { v4, v6 } = await bouncer.sets();
        return v4.has(ip) || v6.has(ip);
      },
      failedPulls: () => failuresIn(bouncer.log()),
      trace: () => bouncer.log().slice(-1000),
      close: bouncer.close,
    };
  },
  'nodejs-bouncer': async (lapi) => {
    const bouncer = startNodejsBouncer(lapi);
    return {
      enforces: async (ip) => (await bouncer.remediation(ip)) === 'ban',
      failedPulls: () => bouncer.errors().length,
      trace: () => bouncer.errors(),
      close: bouncer.stop,
    };
  },
  'crowdsec-client': async (lapi) => {
    const bouncer = await startCrowdsecClient(lapi);
    return {
      enforces: async (ip) => bouncer.active().has(ip),
      failedPulls: () => bouncer.errors().length,
      trace: () => [bouncer.events().slice(-10), bouncer.errors()],
      close: bouncer.stop,
    };
  },
} satisfies Record<string, (lapi: Lapi) => Promise<Enforcer>>;

export type EnforcerName = keyof typeof enforcers;
export const enforcerNames = Object.keys(enforcers) as EnforcerName[];

/** Beside the lab. */
export function needsOf(name: EnforcerName): AbilityName[] {
  return name === 'firewall bouncer' ? ['netns'] : [];
}

/** How Debian's bouncers, both built on go-cs-bouncer, log a pull that got no good answer. */
function failuresIn(log: string): number {
  return log.match(/level=error msg="(?!auth-api)/g)?.length ?? 0;
}

/** Waits until the bouncer enforces each of `banned` and none of `free`. */
export async function untilEnforced(
  enforcer: Enforcer,
  expected: { banned?: string[]; free?: string[] },
  timeoutMs?: number,
): Promise<void> {
  const { banned = [], free = [] } = expected;
  const what = `the bouncer enforces [${banned.join(', ')}] and not [${free.join(', ')}]`;
  await until(
    what,
    async (saw) => {
      saw(enforcer.trace());
      for (const ip of banned) if (!(await enforcer.enforces(ip))) return false;
      for (const ip of free) if (await enforcer.enforces(ip)) return false;
      return true;
    },
    timeoutMs,
  );
}

/**
 * IPv6 hosts are left out for nodejs-bouncer: 0.2.0 looks them up written out in full (2001:0db8:0000:…), so it
 * misses every decision whose value is in the usual short form.
 */
export const readsShortIpv6 = (name: EnforcerName): boolean => name !== 'nodejs-bouncer';

/**
 * A bouncer started by `name` at `lapi` learns what was banned before it came, what is banned while it runs, and
 * each unban. The addresses must be free in that LAPI; they are free again afterwards.
 */
export async function checkBansAndUnbans(
  name: EnforcerName,
  lapi: Lapi,
  operator: Operator,
  addresses: { before: string; during: string },
): Promise<void> {
  const { before, during } = addresses;
  await operator.ban(before);
  const enforcer: Enforcer = await enforcers[name](lapi);
  try {
    await untilEnforced(enforcer, { banned: [before], free: [during] });
    await operator.ban(during);
    await untilEnforced(enforcer, { banned: [before, during] });
    await operator.unban(before);
    await untilEnforced(enforcer, { banned: [during], free: [before] });
    await operator.unban(during);
    await untilEnforced(enforcer, { free: [before, during] });
  } finally {
    await enforcer.close();
  }
}

/** A running bouncer keeps what it enforces while its LAPI is away, and goes on when it is back. */
export async function checkOutage(
  name: EnforcerName,
  lapi: Lapi,
  operator: Operator,
  outage: { begin(): Promise<void>; end(): Promise<void> },
  addresses: { before: string; after: string },
): Promise<void> {
  const { before, after } = addresses;
  await operator.ban(before);
  const enforcer: Enforcer = await enforcers[name](lapi);
  try {
    await untilEnforced(enforcer, { banned: [before] });
    const failed = enforcer.failedPulls();
    await outage.begin();
    await until('a pull of the bouncer fails', (saw) => {
      saw(enforcer.trace());
      return enforcer.failedPulls() > failed;
    });
    await untilEnforced(enforcer, { banned: [before] }, 0);
    await outage.end();
    await operator.ban(after);
    await untilEnforced(enforcer, { banned: [before, after] });
    await operator.unban(before);
    await untilEnforced(enforcer, { banned: [after], free: [before] });
    await operator.unban(after);
    await untilEnforced(enforcer, { free: [before, after] });
  } finally {
    await enforcer.close();
  }
}
