// What an operator bans and unbans, checked and brought to LAPI's spelling. Pure.

import * as z from 'zod';
import { canonicalValue } from '../formats/canonical.ts';
import { formatNetwork, parseNetwork } from '../formats/ip.ts';
import { scopeName } from '../formats/lapi-json.ts';
import { duration, longestMs, page } from '../operations/fields.ts';

const types = ['ban', 'captcha', 'throttle'] as const;
const addressMustBe = 'must be an IP address or a CIDR range';

/** A decision's value and scope in LAPI's spelling, or what the value must be. An address tells its own scope. */
function readTarget(value: string, scope: string | undefined): { value: string; scope: string } | string {
  const name = scope === undefined ? undefined : scopeName(scope);
  const network = parseNetwork(value);
  if (name === undefined || name === 'Ip' || name === 'Range') {
    if (!network) return addressMustBe;
    const isAddress = !value.includes('/');
    if (name === 'Ip' && !isAddress) return 'is a range: the scope Ip takes one address';
    if (name === 'Range' && isAddress) return 'is an address: the scope Range takes a CIDR range';
    const whole = network.prefixBits === network.bytes.length * 8 && !isAddress;
    const text = formatNetwork(network) + (whole ? `/${network.prefixBits}` : '');
    return { value: text, scope: isAddress ? 'Ip' : 'Range' };
  }
  if (name === 'Country') {
    if (!/^[A-Za-z]{2}$/.test(value)) return 'must be a country code of two letters';
    return { value: value.toUpperCase(), scope: name };
  }
  if (name === 'AS') {
    const number = /^(?:AS)?(\d{1,10})$/i.exec(value)?.[1];
    return number === undefined ? 'must be the number of an AS' : { value: number, scope: name };
  }
  if (!printable(256).test(value)) return 'must be 1 to 256 printable characters';
  return { value, scope: name };
}

/** No control characters. Written out: not every reader of /openapi.json knows `\p{Cc}`. */
function printable(atMost: number): RegExp {
  return new RegExp(`^[^\\x00-\\x1f\\x7f-\\x9f]{1,${atMost}}$`, 'u');
}

const scenarioMustBe = 'must be 1 to 200 printable characters';
const text = z.string('must be a text');
const value = text.min(1, 'must be a text').meta({
  description: 'An address, a CIDR range, or what the scope calls for.',
  example: '192.0.2.1',
});
const scope = text.meta({
  description: 'Ip, Range, Country, AS, or a scope of your own. Told from the value when it is an address.',
});

export const newDecision = z
  .strictObject({
    value,
    duration: duration(1000, longestMs),
    type: z.enum(types, `must be one of ${types.join(', ')}`).default('ban'),
    scope: scope.regex(/^[A-Za-z][\w-]{0,31}$/, 'must be a name of 1 to 32 letters or digits').optional(),
    scenario: z
      .string(scenarioMustBe)
      .regex(printable(200), scenarioMustBe)
      .optional()
      .meta({ description: 'Why. `manual …` when it is not given.' }),
  })
  .transform((input, context) => {
    const target = readTarget(input.value, input.scope);
    if (typeof target === 'string') {
      context.addIssue({ code: 'custom', path: ['value'], message: target });
      return z.NEVER;
    }
    const { type, scenario = `manual '${type}' from lapidary` } = input;
    return { ...target, type, scenario, durationMs: input.duration };
  });

/** What is asked for in lists. A text that no decision can have is refused: an empty list would say that nothing is banned. */
export const shortText = (what: string) => {
  const mustBe = 'must be 1 to 256 printable characters';
  return z.string(mustBe).regex(printable(256), mustBe).optional().meta({ description: what });
};

const someAddress = /^(?=.*[.:])[\da-f.:]+(?:\/\d*)?$/i;

/** Refuses a value that is to be an address and is none. */
function checkValue(value: string | undefined, scope: string | undefined): string | null {
  if (value === undefined || parseNetwork(value)) return null;
  if (scope === 'Ip' || scope === 'Range') return addressMustBe;
  return scope === undefined && someAddress.test(value)
    ? `${addressMustBe}; of another kind it needs its scope`
    : null;
}

/** The value that a look-up is about, and its scope. */
export const lookUpFields = {
  value: shortText('An address or a CIDR range: every decision that covers it. Or a country, an AS, …'),
  scope: shortText('Ip, Range, Country, AS, or another one.'),
};

export const decisionFilterFields = {
  ...lookUpFields,
  type: shortText('`ban`, `captcha`, …'),
  origin: shortText('`crowdsec`, `cscli`, `CAPI`, `lists`, `lapidary`, …'),
  scenario: shortText('A part of the scenario, in any case.'),
  engine: shortText('The name of an engine, as it is listed.'),
};

export const decisionFilter = z
  .strictObject({ ...decisionFilterFields, ...page.shape })
  .transform(readLookUp);

/** Brings the scope of a look-up to LAPI's spelling, and checks the value by it. */
export function readLookUp<T extends { value?: string | undefined; scope?: string | undefined }>(
  input: T,
  context: z.RefinementCtx,
): T {
  const scope = input.scope === undefined ? undefined : scopeName(input.scope);
  const wrong = checkValue(input.value, scope);
  if (wrong === null) return { ...input, scope };
  context.addIssue({ code: 'custom', path: ['value'], message: wrong });
  return z.NEVER;
}

const valueMissing = 'must say which value is to be removed';

export const decisionMatch = z
  .strictObject({
    value: z.string(valueMissing).min(1, valueMissing),
    type: z.string().optional(),
    scope: scope.optional(),
  })
  .transform(({ value, type, scope }, context) => {
    // Whatever is listed can be removed, as an engine's agent spelt it. Refused is only what no decision can have.
    const name = scope === undefined ? undefined : scopeName(scope);
    if ((name === 'Ip' || name === 'Range') && !parseNetwork(value)) {
      context.addIssue({ code: 'custom', path: ['value'], message: addressMustBe });
      return z.NEVER;
    }
    return {
      // Without a scope the value may be of any: only an address is brought to its canonical spelling.
      value: canonicalValue(name ?? 'Ip', value),
      ...(type === undefined ? {} : { type }),
      ...(name === undefined ? {} : { scope: name }),
    };
  });
