// The stream's parameters: start-ups under a filter or in a spelling, and deltas when there is nothing new.
import { type Case, refusedStream, streamPath } from './case.ts';
import type { Pair } from './pair.ts';

/** A start-up is answered with the whole state. */
function startup(name: string, query: string, shows?: Case['shows']): Case {
  return { name: `startup: ${name}`, path: `${streamPath}?startup=true${query}`, ...(shows && { shows }) };
}

/** What is no start-up is a delta, and this client has had everything. */
function quiet(name: string, query: string, shows?: Case['shows']): Case {
  const before = (pair: Pair) => pair.startup();
  return { name: `delta: ${name}`, path: `${streamPath}${query}`, before, ...(shows && { shows }) };
}

/** LAPI ignores the parameter, and answers. */
const refusedWait: Case['shows'] = {
  wait: [
    'status 200 against 400',
    'body a stream answer against message "wait: not a whole number of seconds from 0 to 55"',
  ],
};

export const streamCases: Case[] = [
  startup('the default scopes', ''),
  startup('with the parameters of Go bouncers', '&community_pull=false&additional_pull=false'),
  startup('community_pull=true', '&community_pull=true'),
  startup('unknown parameters', '&foo=bar&origin=CAPI&scenario=x'),
  startup('of a repeated parameter the first counts', '&startup=false'),
  { name: 'startup: escaped letters', path: `${streamPath}?st%61rtup=tru%65` },
  quiet('startup=TRUE', '?startup=TRUE'),
  quiet('startup=1', '?startup=1'),
  quiet('bare startup', '?startup'),
  quiet('startup=false before startup=true', '?startup=false&startup=true'),
  quiet('no query at all', ''),
  quiet('a pair with a semicolon is dropped', '?startup=true;scopes=ip'),
  startup('another pair with a semicolon', '&scopes=ip;type=captcha'),
  startup('a bad escape in a value', '&value=%zz'),
  startup('a bad escape in a name', '&%zz=1&type=captcha'),
  startup('an escape that is no UTF-8', '&value=%ff'),
  startup('empty pairs', '&&&type=captcha&'),
  startup('scopes in any case', '&scopes=IP,rAnGe,COUNTRY,as'),
  startup('empty scopes', '&scopes='),
  startup('scopes are not trimmed', '&scopes=ip,+range'),
  startup('an unknown scope', '&scopes=nothing'),
  startup('Country', '&scopes=country'),
  startup('AS', '&scopes=As'),
  startup('a scope of one’s own', '&scopes=username'),
  startup('a scope of one’s own in another case', '&scopes=Username'),
  startup('scopes with an escaped comma', '&scopes=country%2Cusername'),
  startup('repeated scopes', '&scopes=country&scopes=ip'),
  startup('scope alone', '&scope=country&value=FR', {
    'scope-alias': ['new: only Lapidary has Country FR captcha cscli 4h'],
  }),
  startup('scope alone, and a value outside of it', '&scope=country&value=192.0.2.1', (engine) =>
    engine.since('1.6.1') ? {} : { 'scope-alias': ['new: only LAPI has Ip 192.0.2.1 ban cscli 4h'] },
  ),
  startup('scope of cs-windows-firewall-bouncer', '&scope=ip,range'),
  startup('scope and scopes', '&scopes=ip,country&scope=country&value=192.0.2.1', (engine) =>
    engine.since('1.6.1') ? {} : { 'scope-alias': ['new: only LAPI has Ip 192.0.2.1 ban cscli 4h'] },
  ),
  startup('origins', '&origins=CAPI,lists'),
  startup('an origin that a longer decision shadows', '&origins=crowdsec', {
    'filters-first': ['new: only Lapidary has Ip 192.0.2.5 ban crowdsec 4h'],
  }),
  startup('origins are case-sensitive', '&origins=capi'),
  startup('empty origins', '&origins='),
  startup('scenarios_containing', '&scenarios_containing=probing,firehol'),
  startup('scenarios_containing in another case', '&scenarios_containing=PROBING'),
  startup('scenarios_containing with a percent sign', '&scenarios_containing=%25'),
  startup('scenarios_containing with an underscore', '&scenarios_containing=_'),
  startup('scenarios_containing with an accent in another case', '&scenarios_containing=%C3%A9mile', {
    'letter-case': ['new: only Lapidary has Ip 203.0.113.3 ban crowdsec 4h'],
  }),
  startup('empty scenarios_containing', '&scenarios_containing='),
  startup('scenarios_not_containing', '&scenarios_not_containing=SSH,lab'),
  startup('empty scenarios_not_containing', '&scenarios_not_containing='),
  startup('both scenario filters', '&scenarios_containing=crowdsec&scenarios_not_containing=ssh'),
  startup('value', '&value=192.0.2.3'),
  startup('value outside of the default scopes', '&value=FR'),
  startup('value is a text', '&value=192.0.2.003'),
  startup('type', '&type=captcha'),
  startup('type is case-sensitive', '&type=Captcha'),
  startup('type is no list', '&type=ban,captcha'),
  startup('dedup=false', '&dedup=false'),
  startup('dedup=0', '&dedup=0&value=192.0.2.3'),
  startup('dedup=False', '&dedup=False&value=192.0.2.3'),
  startup('simulated=true', '&simulated=true', {
    'no-simulated': ['new: only LAPI has Ip 203.0.113.7 ban crowdsec 4h'],
  }),
  startup('simulated=false', '&simulated=false'),
  startup('empty simulated', '&simulated=', {
    'no-simulated': ['new: only LAPI has Ip 203.0.113.7 ban crowdsec 4h'],
  }),
  startup('ip', '&ip=192.0.2.130'),
  startup('range inside out', '&range=203.0.113.0/24&contains=false'),
  startup('an invalid ip', '&ip=zz', refusedStream('ip')),
  startup('an invalid range', '&range=192.0.2.0/33', refusedStream('range')),
  startup('an invalid contains', '&ip=192.0.2.1&contains=zz', refusedStream('contains')),
  quiet('an invalid ip', '?ip=zz', refusedStream('ip')),
  startup('wait', '&wait=55'),
  quiet('wait', '?wait=1'),
  quiet('wait=0', '?wait=0'),
  startup('a wait that is none', '&wait=soon', refusedWait),
  quiet('a wait that is too long', '?wait=56', refusedWait),
  startup('limit', '&limit=1&value=192.0.2.4', (engine) =>
    engine.since('1.7.8') ? {} : { 'stream-pages': ['new: only Lapidary has Ip 192.0.2.4 captcha cscli 4h'] },
  ),
  startup('offset', '&limit=5&offset=1&value=192.0.2.1', {
    'stream-pages': ['new: only Lapidary has Ip 192.0.2.1 ban cscli 4h'],
  }),
  startup('id_gt', '&id_gt=100000&value=192.0.2.1', (engine) =>
    engine.since('1.7.8') ? {} : { 'stream-pages': ['new: only Lapidary has Ip 192.0.2.1 ban cscli 4h'] },
  ),
];
