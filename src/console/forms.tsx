// Forms: what each sends besides its fields, and its fields. A page's form changes nothing by itself: it is read in routes.ts,
// and an operation of the API checks and does what it asks for (call.ts).

import type { Child } from 'hono/jsx';
import type { Role } from '../config/roles.ts';
import { linkTo, may, type At } from './at.ts';
import type { Refused } from './call.ts';

/** `request`: the same form, sent twice, does no more than once. */
export function FormFields({ at }: { at: At }) {
  return (
    <>
      <input type="hidden" name="form-token" value={at.formToken} />
      <input type="hidden" name="request" value={crypto.randomUUID()} />
    </>
  );
}

/** A form that posts to a path of the console. Whose role does not do reads which one it takes. */
export function Post(props: { at: At; to: string; needs: Role; what: string; children?: Child }) {
  const { at, to, needs, what, children } = props;
  if (!may(at, needs)) {
    return (
      <p class="soft">
        {what} takes the role {needs}; yours is {at.role}.
      </p>
    );
  }
  return (
    <form method="post" action={linkTo(at, to)}>
      <FormFields at={at} />
      {children}
    </form>
  );
}

/** What was sent, and why it was refused. */
export interface Sent {
  readonly values: URLSearchParams;
  readonly refused: Refused;
}

interface FieldOf {
  readonly name: string;
  readonly label: string;
  readonly hint?: unknown;
  /** The field of the API that this one becomes, where its name is another. */
  readonly field?: string;
  /** What was sent, where this form was refused. */
  readonly sent?: Sent | undefined;
}

/** A labelled input. `control` makes it of the attributes that it has in any case. */
export function Field(
  props: FieldOf & { control: (attributes: Record<string, string>, value: string | undefined) => Child },
) {
  const { name, label, hint, field = name, sent, control } = props;
  const refused = sent?.refused;
  const isWrong = refused?.field === field || refused?.field?.startsWith(`${field}.`) === true;
  const attributes = {
    id: `field-${name}`,
    name,
    ...(hint === undefined && !isWrong ? {} : { 'aria-describedby': `hint-${name}` }),
    ...(isWrong ? { 'aria-invalid': 'true' } : {}),
  };
  return (
    <div class="field">
      <label for={attributes.id}>{label}</label>
      {control(attributes, sent?.values.get(name) ?? undefined)}
      {hint === undefined && !isWrong ? null : (
        <small id={`hint-${name}`}>
          {isWrong ? <span class="wrong">{refused.detail.replace(/^\S+: /, '')}. </span> : null}
          {hint}
        </small>
      )}
    </div>
  );
}

export function TextField(
  props: FieldOf & { value?: string; required?: boolean; placeholder?: string; type?: string },
) {
  const { value = '', required = false, placeholder, type = 'text' } = props;
  return (
    <Field
      {...props}
      control={(attributes, sent) => (
        <input
          type={type}
          value={sent ?? value}
          required={required}
          placeholder={placeholder}
          autocomplete="off"
          spellcheck={false}
          {...attributes}
        />
      )}
    />
  );
}

/** When a key that is made expires: `expires_in` of the API. */
export function ExpiryField({ label, sent }: Pick<FieldOf, 'label' | 'sent'>) {
  return (
    <TextField
      name="expires_in"
      label={label}
      sent={sent}
      placeholder="never"
      hint="A duration like 90d or 12h; empty: never."
    />
  );
}

export function AreaField(props: FieldOf & { value?: string }) {
  return (
    <Field
      {...props}
      control={(attributes, sent) => (
        <textarea spellcheck={false} {...attributes}>
          {sent ?? props.value ?? ''}
        </textarea>
      )}
    />
  );
}

export function SelectField(
  props: FieldOf & { options: readonly (readonly [string, string])[]; value?: string },
) {
  return (
    <Field
      {...props}
      control={(attributes, sent) => (
        <select {...attributes}>
          {props.options.map(([value, text]) => (
            <option value={value} selected={value === (sent ?? props.value)}>
              {text}
            </option>
          ))}
        </select>
      )}
    />
  );
}

/** Why what was sent was not done. */
export function RefusedBanner({ sent }: { sent?: Sent | undefined }) {
  if (!sent) return null;
  return (
    <div class="banner bad" role="alert">
      <p>
        <b>Nothing was changed.</b> {sent.refused.detail}.
      </p>
    </div>
  );
}
