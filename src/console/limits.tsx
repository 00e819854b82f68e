// What a bouncer's keys may do, as a form: what it shows, and what becomes of it.

import type { At } from './at.ts';
import type { BouncerBody } from './bouncers.tsx';
import { listIn } from './call.ts';
import { AreaField, Post, SelectField, TextField, type Sent } from './forms.tsx';
import { rateTiers } from '../http/rate-limit.ts';

const lists = ['scopes', 'origins', 'scenarios_containing', 'scenarios_not_containing'] as const;

const fields = {
  scopes: ['Scopes', 'Like Ip, Range, Country.'],
  origins: ['Origins', 'Like crowdsec, cscli, CAPI.'],
  scenarios_containing: ['Scenarios with', 'One of these texts is in the scenario.'],
  scenarios_not_containing: ['Scenarios without', 'None of these texts is in the scenario.'],
} as const;

/** `engines`: the names of those that are configured. */
export function LimitsForm(props: {
  at: At;
  bouncer: BouncerBody;
  engines: readonly string[];
  sent: Sent | undefined;
}) {
  const { at, bouncer, engines, sent } = props;
  const { view, allowed_addresses: allowed, rate_limit: rate, silent_after: silentAfter } = bouncer;
  const chosen = sent ? sent.values.getAll('engines') : (view?.engines ?? []);
  const choices = [...new Set([...engines, ...chosen])];
  const tiers = rateTiers.map((tier) => [String(tier), `${tier} requests a minute`] as const);
  return (
    <Post at={at} to={`/bouncers/${bouncer.name}/limits`} needs="operator" what="Changing them">
      <input type="hidden" name="revision" value={String(bouncer.revision)} />
      {choices.length > 1 || chosen.length > 0 ? (
        <fieldset>
          <legend>Only decisions of these engines</legend>
          {choices.map((name) => (
            <label>
              <input type="checkbox" name="engines" value={name} checked={chosen.includes(name)} />
              {name}
            </label>
          ))}
          <small>None: of all. Those of operators of Lapidary always count.</small>
        </fieldset>
      ) : null}
      <div class="fields">
        {lists.map((name) => (
          <TextField
            name={name}
            field={`view.${name}`}
            label={fields[name][0]}
            value={shownList(view?.[name])}
            sent={sent}
            placeholder="all"
            hint={`${fields[name][1]} Commas between them.`}
          />
        ))}
        <TextField
          name="max_decisions"
          field="view.max_decisions"
          label="Decisions at most"
          value={view?.max_decisions === undefined ? '' : String(view.max_decisions)}
          sent={sent}
          placeholder="no limit"
          hint="For devices with small tables: local bans first, then the longest."
        />
        <SelectField
          name="per_minute"
          field="rate_limit"
          label="Rate"
          value={rate === null ? '' : String(rate.per_minute)}
          options={[['', 'no limit'], ...tiers]}
          sent={sent}
          hint="All its clients together."
        />
        <TextField
          name="silent_after"
          label="Silent after"
          value={silentAfter ?? ''}
          sent={sent}
          placeholder="as its polls say"
          hint="Webhooks hear of it then: 1m to 30d."
        />
      </div>
      <AreaField
        name="allowed_addresses"
        label="Where its keys may be used"
        value={allowed?.join('\n') ?? ''}
        sent={sent}
        hint="Addresses and CIDR ranges, one in a line. Empty: anywhere."
      />
      <p>
        <button class="primary">Save</button>
      </p>
    </Post>
  );
}

function shownList(list: readonly string[] | undefined): string {
  return list?.join(', ') ?? '';
}

/**
 * The body of `PATCH /bouncers/{name}`. What is no number is sent as it is, for the API to refuse. `before`: as the form
 * showed it. A text that is as it was stays the list that it was: an entry may have a comma.
 */
export function limitsIn(form: URLSearchParams, { view: before }: Pick<BouncerBody, 'view'>) {
  const listOf = (name: (typeof lists)[number]): readonly string[] | null => {
    const text = form.get(name) ?? '';
    return text === shownList(before?.[name]) ? (before?.[name] ?? null) : listIn(text, /,/);
  };
  const engines = form.getAll('engines');
  const cap = form.get('max_decisions')?.trim() ?? '';
  const rate = form.get('per_minute') ?? '';
  const silentAfter = form.get('silent_after')?.trim() ?? '';
  const view = {
    engines: engines.length === 0 ? null : engines,
    ...Object.fromEntries(lists.map((name) => [name, listOf(name)])),
    max_decisions: cap === '' ? null : numberIn(cap),
  };
  return {
    view: Object.values(view).every((value) => value === null) ? null : view,
    allowed_addresses: listIn(form.get('allowed_addresses'), /[\s,]+/),
    rate_limit: rate === '' ? null : { per_minute: numberIn(rate) },
    silent_after: silentAfter === '' ? null : silentAfter,
  };
}

function numberIn(text: string): number | string {
  return /^\d{1,9}$/.test(text) ? Number(text) : text;
}
