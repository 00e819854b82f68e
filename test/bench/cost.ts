// Dollars from counts: what Cloudflare's paid plan costs a month of 30 days, and how far the free plan goes. Prices are
// those of developers.cloudflare.com/workers/platform/pricing in 2026.
import type { Counts } from '../lab/counted.ts';
import { kindNames, type Kinds } from './kinds.ts';

export interface Fleet {
  bouncers: number;
  /** Between two polls of each. */
  pollSeconds: number;
}

/** In the units of the bill. */
export interface Usage {
  requests: number;
  cpuMs: number;
  objectRequests: number;
  gbSeconds: number;
  objectRowsWritten: number;
  d1RowsRead: number;
  d1RowsWritten: number;
}

/** Included in the plan's price, and dollars for each million more. */
const prices: Readonly<Record<keyof Usage, { included: number; perMillion: number }>> = {
  requests: { included: 10e6, perMillion: 0.3 },
  cpuMs: { included: 30e6, perMillion: 0.02 },
  objectRequests: { included: 1e6, perMillion: 0.15 },
  gbSeconds: { included: 400_000, perMillion: 12.5 },
  objectRowsWritten: { included: 50e6, perMillion: 1 },
  d1RowsRead: { included: 25e9, perMillion: 0.001 },
  d1RowsWritten: { included: 50e6, perMillion: 1 },
};
const planDollars = 5;

/** A day of the free plan: beyond it there are errors until midnight, UTC. */
const freeDaily = { requests: 100_000, objectRequests: 100_000, objectRowsWritten: 100_000 };

export const daySeconds = 86_400;
const monthDays = 30;
/** SYNC_INTERVAL_SECONDS, as it is unless set. */
const roundSeconds = 10;
/** wrangler.toml's cron. */
const cronSeconds = 60;
/** Most bouncers report their usage so often. */
const reportSeconds = 1_800;
/** Assumed: twice to three times what workerd needs on a machine of one's own. */
const cpuMsPerPoll = 0.6;
/** An object counts as 128 MB, and this one is always awake. */
const objectGb = 0.128;
/** What clients.ts says of its rows: so many hold all, and so many are written in 10 s at most. */
const clientsPerRow = 500;
const mostClientRows = 64;

/** A community's list: how long, and how often it comes under new ids. */
export const community = { decisions: 50_000, renewalSeconds: 2 * 3_600 };

/** Rows that the object writes a day for the community's list alone. */
export function communityRowsADay(kinds: Kinds): number {
  const perRenewal = (kinds['1,000 decisions under new ids'].objectRows * community.decisions) / 1_000;
  return (perRenewal * daySeconds) / community.renewalSeconds;
}

/** What happens in a day. */
function eventsADay({ bouncers, pollSeconds }: Fleet) {
  const perDay = (seconds: number): number => daySeconds / seconds;
  return {
    polls: bouncers * perDay(pollSeconds),
    reports: bouncers * perDay(reportSeconds),
    rounds: perDay(roundSeconds),
    crons: perDay(cronSeconds),
  };
}

/** A day with so many calls of the object for all polls, and so many for each report of usage. No rows are counted. */
export function usageWithCalls(fleet: Fleet, pollCalls: number, reportCalls = 1): Usage {
  const { polls, reports, rounds, crons } = eventsADay(fleet);
  return {
    requests: polls + reports + crons,
    cpuMs: (polls + reports) * cpuMsPerPoll,
    objectRequests: pollCalls + reports * reportCalls + rounds + crons,
    gbSeconds: daySeconds * objectGb,
    objectRowsWritten: 0,
    d1RowsRead: 0,
    d1RowsWritten: 0,
  };
}

/** A day at most: every poll asks D1 and the object, and something changes every 10 s. */
function usageADay(fleet: Fleet, kinds: Kinds): Usage {
  const { bouncers } = fleet;
  const { polls, reports, rounds } = eventsADay(fleet);
  const poll = kinds['poll, 5 s after another'];
  const report = kinds['usage metrics'];
  const clientRows = Math.min(mostClientRows, Math.ceil(bouncers / clientsPerRow)) * rounds;
  return {
    ...usageWithCalls(fleet, polls * poll.calls, report.calls),
    objectRowsWritten: rounds * kinds['round without a change'].objectRows + clientRows,
    d1RowsRead: polls * poll.rowsRead + reports * report.rowsRead,
    d1RowsWritten: polls * poll.rowsWritten + reports * report.rowsWritten,
  };
}

type Dollars = Record<keyof Usage | 'total', number>;

/** With the community's list. */
export function dollarsAMonth(fleet: Fleet, kinds: Kinds): Dollars {
  const day = usageADay(fleet, kinds);
  return dollarsOf({ ...day, objectRowsWritten: day.objectRowsWritten + communityRowsADay(kinds) });
}

/** A month of such days by what is paid for; `total` has the plan in it. */
export function dollarsOf(day: Usage): Dollars {
  const dollars = Object.entries(prices).map(([what, { included, perMillion }]) => {
    const beyond = Math.max(0, day[what as keyof Usage] * monthDays - included);
    return [what as keyof Usage, (beyond / 1e6) * perMillion] as const;
  });
  const total = dollars.reduce((sum, [, each]) => sum + each, planDollars);
  return { ...(Object.fromEntries(dollars) as Record<keyof Usage, number>), total };
}

/** How many bouncers the free plan carries, with no community's list. */
export function freeBouncers(pollSeconds: number, kinds: Kinds): number {
  const fits = (bouncers: number): boolean => {
    const day = usageADay({ bouncers, pollSeconds }, kinds);
    return Object.entries(freeDaily).every(([what, most]) => day[what as keyof typeof freeDaily] <= most);
  };
  let bouncers = 0;
  while (fits(bouncers + 1)) bouncers++;
  return bouncers;
}

const columns: readonly (keyof Counts)[] = ['trips', 'rowsRead', 'rowsWritten', 'calls', 'objectRows'];

/** docs/deploy.md's table of counts. */
export function countTable(kinds: Kinds): string[][] {
  return kindNames.map((name) => [name, ...columns.map((column) => plain(kinds[name][column]))]);
}

/** Its table of dollars. */
export function dollarTable(kinds: Kinds): string[][] {
  return [10, 60].flatMap((pollSeconds) =>
    [10, 100, 1_000, 10_000].map((bouncers) => {
      const { requests, cpuMs, objectRequests, total } = dollarsAMonth({ bouncers, pollSeconds }, kinds);
      const cells = [requests, cpuMs, objectRequests].map((dollars) => plain(Math.round(dollars)));
      return [plain(bouncers), `${pollSeconds} s`, ...cells, `**$${plain(Math.round(total))}**`];
    }),
  );
}

/** Its table of what the free plan carries. */
export function freeTable(kinds: Kinds): string[][] {
  return [10, 60].map((pollSeconds) => [`${pollSeconds} s`, plain(freeBouncers(pollSeconds, kinds))]);
}

export function plain(number: number): string {
  return number.toLocaleString('en-US');
}
