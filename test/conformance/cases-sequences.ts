// Requests whose answer depends on what came before: deltas after a change, cursors, and decisions that would
// be in the way of other cases. Each makes its own decisions and begins with a start-up of its own.
import { type Case, streamPath } from './case.ts';
import type { Pair } from './pair.ts';

/** What a delta says after a start-up and the changes that `after` makes to what `given` made before it. */
function delta(
  name: string,
  steps: {
    given?: (pair: Pair) => Promise<unknown>;
    after: (pair: Pair) => Promise<unknown>;
    query?: string;
  },
  shows?: Case['shows'],
): Case {
  const { given, after, query = '' } = steps;
  const before = async (pair: Pair): Promise<void> => {
    await given?.(pair);
    await pair.sync();
    await pair.startup(query);
    await after(pair);
    await pair.sync();
  };
  return {
    name: `after ${name}`,
    path: `${streamPath}${query && `?${query}`}`,
    before,
    ...(shows && { shows }),
  };
}

/** Two bans on one value: the second lasts longer. */
const twoOn = (value: string) => async (pair: Pair) => {
  await pair.ban(value);
  await pair.ban(value, { duration: '24h' });
};

const endLongest = (value: string) => async (pair: Pair) => pair.end((await pair.idsOf(value))[0] as number);
const endShortest = (value: string) => async (pair: Pair) =>
  pair.end((await pair.idsOf(value)).at(-1) as number);

const twoSpellings = (value: string) => async (pair: Pair) => {
  await pair.ban(value);
  await pair.alert({ decisions: [{ value: `${value}/32`, scope: 'Range' }] });
};

const additions: Case[] = [
  delta('a ban', { after: (pair) => pair.ban('198.18.1.1') }),
  delta('a captcha on a banned value', {
    given: (pair) => pair.ban('198.18.1.2'),
    after: (pair) => pair.ban('198.18.1.2', { type: 'captcha' }),
  }),
  delta('a longer ban', {
    given: (pair) => pair.ban('198.18.1.3'),
    after: (pair) => pair.ban('198.18.1.3', { duration: '24h' }),
  }),
  delta('a shorter ban', {
    given: (pair) => pair.ban('198.18.1.4', { duration: '24h' }),
    after: (pair) => pair.ban('198.18.1.4'),
  }),
  delta('a shorter ban, dedup=false', {
    given: (pair) => pair.ban('198.18.1.5', { duration: '24h' }),
    after: (pair) => pair.ban('198.18.1.5'),
    query: 'dedup=false',
  }),
  delta('a range and IPv6', {
    after: async (pair) => {
      await pair.ban('198.18.32.0/20');
      await pair.ban('2001:DB8:18::1');
    },
  }),
  delta('a Country', { after: (pair) => pair.ban('DE', { scope: 'Country' }), query: 'scopes=country,as' }),
  delta('a scope of one’s own', {
    after: (pair) => pair.ban('bob', { scope: 'username' }),
    query: 'scopes=username',
  }),
  delta('a Country that nobody asked for', { after: (pair) => pair.ban('IT', { scope: 'Country' }) }),
  delta('a community decision', {
    after: (pair) => pair.alert({ decisions: [{ value: '198.18.1.6', origin: 'CAPI' }] }),
    query: 'origins=CAPI',
  }),
  delta(
    'an agent’s ban shorter than an operator’s, by origin',
    {
      given: (pair) => pair.ban('198.18.1.7', { duration: '24h' }),
      after: (pair) => pair.alert({ decisions: [{ value: '198.18.1.7' }] }),
      query: 'origins=crowdsec',
    },
    { 'filters-first': ['new: only Lapidary has Ip 198.18.1.7 ban crowdsec 4h'] },
  ),
  delta('a simulated decision', {
    after: (pair) => pair.alert({ simulated: true, decisions: [{ value: '198.18.1.8' }] }),
  }),
  delta(
    'a decision whose scope is in lower case',
    {
      after: (pair) => pair.alert({ decisions: [{ value: '198.18.1.9', scope: 'ip' }] }),
    },
    { 'scope-case': ['new: only Lapidary has Ip 198.18.1.9 ban crowdsec 4h'] },
  ),
];

const ends: Case[] = [
  delta('an unban', { given: (pair) => pair.ban('198.18.2.1'), after: (pair) => pair.unban('198.18.2.1') }),
  delta('a decision ran out', {
    given: (pair) => pair.ban('198.18.2.2', { duration: '6s' }),
    after: (pair) => pair.pauseMs(6_000),
  }),
  delta('an unban of one type', {
    given: async (pair) => {
      await pair.ban('198.18.2.3');
      await pair.ban('198.18.2.3', { type: 'captcha' });
    },
    after: (pair) => pair.unban('198.18.2.3', { type: 'captcha' }),
  }),
  delta(
    'the longer of two ended',
    { given: twoOn('198.18.2.4'), after: endLongest('198.18.2.4') },
    { survivor: ['new: only Lapidary has Ip 198.18.2.4 ban cscli 4h'] },
  ),
  delta('the shorter of two ended', { given: twoOn('198.18.2.5'), after: endShortest('198.18.2.5') }),
  delta(
    'the longer of two ended, dedup=false',
    {
      given: twoOn('198.18.2.6'),
      after: endLongest('198.18.2.6'),
      query: 'dedup=false',
    },
    {
      survivor: ['new: only Lapidary has Ip 198.18.2.6 ban cscli 4h'],
      'removal-held-back': ['deleted: only LAPI has Ip 198.18.2.6 ban cscli'],
    },
  ),
  delta(
    'both of two ended',
    { given: twoOn('198.18.2.7'), after: (pair) => pair.unban('198.18.2.7') },
    (engine) => ({
      'one-removal-per-value': [
        'deleted: only LAPI has Ip 198.18.2.7 ban cscli',
        ...(engine.since('1.5.0') ? [] : ['deleted: only Lapidary has Ip 198.18.2.7 ban cscli']),
      ],
    }),
  ),
  delta('both of two ended, dedup=false', {
    given: twoOn('198.18.2.8'),
    after: (pair) => pair.unban('198.18.2.8'),
    query: 'dedup=false',
  }),
  delta('an unban and a ban anew', {
    given: (pair) => pair.ban('198.18.2.9'),
    after: async (pair) => {
      await pair.unban('198.18.2.9');
      await pair.ban('198.18.2.9');
    },
  }),
  delta('a ban and an unban that Lapidary saw', {
    after: async (pair) => {
      await pair.ban('198.18.2.10');
      await pair.sync();
      await pair.unban('198.18.2.10');
    },
  }),
  delta(
    'a ban and an unban between two syncs',
    {
      after: async (pair) => {
        await pair.ban('198.18.2.11');
        await pair.unban('198.18.2.11');
      },
    },
    { unseen: ['deleted: only LAPI has Ip 198.18.2.11 ban cscli'] },
  ),
  delta(
    'an alert was deleted',
    {
      given: (pair) => pair.ban('198.18.2.12'),
      after: (pair) => pair.deleteAlerts('198.18.2.12'),
    },
    { 'hard-deletes': ['deleted: only Lapidary has Ip 198.18.2.12 ban cscli'] },
  ),
  delta(
    'a decision was ended once more',
    {
      given: async (pair) => {
        await pair.ban('198.18.2.13');
        await pair.sync();
        const [id = 0] = await pair.idsOf('198.18.2.13');
        await pair.end(id);
        endedTwice = id;
      },
      after: (pair) => pair.end(endedTwice),
    },
    { 'removed-again': ['deleted: only LAPI has Ip 198.18.2.13 ban cscli'] },
  ),
  delta('an unban of a Country', {
    given: (pair) => pair.ban('NL', { scope: 'Country' }),
    after: (pair) => pair.unban('NL', { scope: 'Country' }),
    query: 'scopes=country',
  }),
];
let endedTwice = 0;

const cursors: Case[] = [
  delta(
    'a ban, second delta',
    {
      after: async (pair) => {
        await pair.ban('198.18.3.1');
        await pair.sync();
        await pair.poll();
      },
    },
    { 'announced-twice': ['new: only Lapidary has Ip 198.18.3.1 ban cscli 4h'] },
  ),
  delta('a ban, third delta', {
    after: async (pair) => {
      await pair.ban('198.18.3.2');
      await pair.sync();
      await pair.poll();
      await pair.poll();
    },
  }),
  delta('an unban, second delta at once', {
    given: (pair) => pair.ban('198.18.3.3'),
    after: async (pair) => {
      await pair.unban('198.18.3.3');
      await pair.sync();
      await pair.poll();
    },
  }),
  delta(
    'an unban, second delta later',
    {
      given: (pair) => pair.ban('198.18.3.4'),
      after: async (pair) => {
        await pair.unban('198.18.3.4');
        await pair.sync();
        await pair.pauseMs(2_300);
        await pair.poll();
      },
    },
    { 'announced-twice': ['deleted: only Lapidary has Ip 198.18.3.4 ban cscli'] },
  ),
  delta('a refused delta', {
    after: async (pair) => {
      await pair.ban('198.18.3.5');
      await pair.ask({ path: `${streamPath}?ip=zz` });
    },
  }),
  delta('a lookup', {
    after: async (pair) => {
      await pair.ban('198.18.3.6');
      await pair.ask({ path: '/v1/decisions?ip=198.18.3.6' });
    },
  }),
  delta(
    'a lookup a minute after the last delta',
    {
      after: async (pair) => {
        await pair.ban('198.18.3.7');
        await pair.ageCursor(61);
        await pair.ask({ path: '/v1/decisions?ip=198.18.3.7' });
      },
    },
    { 'lookups-keep-cursor': ['new: only Lapidary has Ip 198.18.3.7 ban cscli 4h'] },
  ),
  delta(
    'HEAD on the stream',
    {
      after: async (pair) => {
        await pair.ban('198.18.3.8');
        await pair.ask({ method: 'HEAD', path: streamPath });
      },
    },
    { 'head-keeps-cursor': ['new: only Lapidary has Ip 198.18.3.8 ban cscli 4h'] },
  ),
  delta(
    'a delta of another view',
    {
      after: async (pair) => {
        await pair.ban('198.18.3.9');
        await pair.sync();
        await pair.poll('type=captcha');
      },
    },
    { 'cursor-per-view': ['new: only Lapidary has Ip 198.18.3.9 ban cscli 4h'] },
  ),
  {
    name: 'first delta of a key',
    path: `${streamPath}?value=192.0.2.1`,
    key: 'fresh',
    shows: { 'first-delta': ['new: only Lapidary has Ip 192.0.2.1 ban cscli 4h'] },
  },
  { name: 'first start-up of a key', path: `${streamPath}?startup=true&value=192.0.2.1`, key: 'fresh' },
];

const odd: Case[] = [
  {
    name: 'startup: a longer simulated decision on a banned value',
    path: `${streamPath}?startup=true&value=198.18.4.1`,
    async before(pair) {
      await pair.ban('198.18.4.1');
      const simulated = { value: '198.18.4.1', duration: '24h' };
      await pair.alert({ simulated: true, decisions: [simulated] });
      await pair.sync();
    },
    shows: { 'simulated-hides': ['new: only Lapidary has Ip 198.18.4.1 ban cscli 4h'] },
  },
  {
    name: 'startup: two decisions that end at once',
    path: `${streamPath}?startup=true&value=198.18.4.2`,
    async before(pair) {
      const twice = ['one', 'two'].map((scenario) => ({ value: '198.18.4.2', scenario }));
      await pair.alert({ decisions: twice });
      await pair.sync();
    },
    shows: { ties: ['new: only LAPI has Ip 198.18.4.2 ban crowdsec 4h'] },
  },
  {
    name: 'list: a scope in lower case',
    path: '/v1/decisions?value=198.18.4.3',
    async before(pair) {
      await pair.alert({ decisions: [{ value: '198.18.4.3', scope: 'ip' }] });
      await pair.sync();
    },
    shows: { 'scope-case': ['list: ip 198.18.4.3 ban crowdsec 4h: scope "ip" against "Ip"'] },
  },
  {
    name: 'list: a mapped address as the value of a decision',
    path: '/v1/decisions?ip=198.18.4.5',
    async before(pair) {
      await pair.alert({ decisions: [{ value: '::ffff:198.18.4.5' }] });
      await pair.sync();
    },
  },
  {
    name: 'list: less than a second left',
    path: '/v1/decisions?value=198.18.4.4',
    async before(pair) {
      const stopAt = new Date();
      await pair.alert({ stopAt, decisions: [{ value: '198.18.4.4', duration: '5s' }] });
      await pair.sync();
      // Engines from 1.6.3 on round: to Lapidary it may end half a second later.
      await pair.pauseMs(stopAt.getTime() + 5_000 - 400 - Date.now());
    },
    shows: { 'last-second': ['list: only LAPI has Ip 198.18.4.4 ban crowdsec*'] },
  },
  {
    name: 'startup: 250 decisions, gzip asked for',
    path: `${streamPath}?startup=true&scenarios_containing=bulk`,
    headers: [['Accept-Encoding', 'gzip']],
    async before(pair) {
      const addresses = Array.from({ length: 250 }, (_, index) => `198.18.250.${index}`);
      const shared = { duration: '24h', scope: 'ip', type: 'ban', reason: 'bulk' };
      await pair.engine.importDecisions(addresses.map((value) => ({ ...shared, value })));
      await pair.sync();
    },
    shows: { gzip: ['content-encoding none against gzip'] },
  },
  { name: 'startup: 250 decisions, plain', path: `${streamPath}?startup=true&scenarios_containing=bulk` },
  { name: 'list: 250 decisions, plain', path: '/v1/decisions?scenarios_containing=bulk' },
  {
    name: 'list: 250 decisions, gzip refused',
    path: '/v1/decisions?scenarios_containing=bulk',
    headers: [['Accept-Encoding', 'gzip;q=0, identity']],
  },
];

/** The last of the deltas: ends that wait their turn are in those after any start-up. */
const spellings: Case[] = [
  delta(
    'one of two spellings ended',
    { given: twoSpellings('198.18.2.14'), after: endLongest('198.18.2.14/32') },
    {
      survivor: ['new: only Lapidary has Ip 198.18.2.14 ban cscli 4h'],
      'one-address': ['deleted: only LAPI has Range 198.18.2.14/32 ban crowdsec'],
    },
  ),
  delta(
    'the second of two spellings ended, second delta',
    {
      given: async (pair) => {
        await twoSpellings('198.18.2.15')(pair);
        await pair.sync();
        await endLongest('198.18.2.15/32')(pair);
      },
      after: async (pair) => {
        await endLongest('198.18.2.15')(pair);
        await pair.sync();
        await pair.pauseMs(2_300);
        await pair.poll();
      },
    },
    { 'one-address': ['deleted: only Lapidary has Range 198.18.2.15/32 ban crowdsec'] },
  ),
];

export const sequenceCases: Case[] = [...additions, ...ends, ...cursors, ...spellings, ...odd];
