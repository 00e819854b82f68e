// The versions of a bouncer's key: which are good until when, and how one is made or revoked.

import { may, type At } from './at.ts';
import type { BouncerBody } from './bouncers.tsx';
import { ExpiryField, Post, TextField, type Sent } from './forms.tsx';
import { Table, Tag, Time, type Tone } from './parts.tsx';

const versionStates: Readonly<Record<BouncerBody['key_versions'][number]['state'], [Tone, string, string]>> =
  {
    next: ['warn', 'next', 'not used yet'],
    current: ['ok', 'current', 'in use'],
    previous: ['off', 'previous', 'good until its grace ends'],
  };

export function Versions({ at, bouncer }: { at: At; bouncer: BouncerBody }) {
  const versions = bouncer.key_versions;
  if (versions.length === 0) {
    return <p>It has none: {bouncer.name} is refused until its key is rotated.</p>;
  }
  const columns = [
    { title: 'Version' },
    { title: 'State' },
    { title: 'First used', n: true },
    { title: 'Last used', n: true },
    { title: 'Ends', n: true },
    { title: 'Digest' },
    ...(may(at, 'operator') ? [{ title: 'Revoke' }] : []),
  ];
  return (
    <Table label="Versions of its key" columns={columns}>
      {versions.map((version) => {
        const [tone, word, why] = versionStates[version.state];
        const isOver = version.valid_until !== null && Date.parse(version.valid_until) <= at.nowMs;
        return (
          <tr>
            <th scope="row">{version.number}</th>
            <td>
              {isOver ? <Tag tone="bad">ended</Tag> : <Tag tone={tone}>{word}</Tag>}{' '}
              <span class="soft">{isOver ? '' : why}</span>
            </td>
            <td class="n">
              <Time at={at} iso={version.first_used} />
            </td>
            <td class="n">
              <Time at={at} iso={version.last_used} />
            </td>
            <td class="n">
              <Time at={at} iso={version.valid_until} />
            </td>
            <td class="mono">{version.digest_prefix}…</td>
            {may(at, 'operator') ? (
              <td>
                <details>
                  <summary>Revoke…</summary>
                  <Post
                    at={at}
                    to={`/bouncers/${bouncer.name}/versions/${version.number}/revoke`}
                    needs="operator"
                    what="Revoking it"
                  >
                    <p>
                      {versions.length === 1
                        ? `It is the only one: ${bouncer.name} is refused within 5 s, until its key is rotated.`
                        : 'It is refused within 5 s; the other version stays.'}
                    </p>
                    <button class="danger">Revoke version {version.number}</button>
                  </Post>
                </details>
              </td>
            ) : null}
          </tr>
        );
      })}
    </Table>
  );
}

export function Rotate({ at, bouncer, sent }: { at: At; bouncer: BouncerBody; sent: Sent | undefined }) {
  if (!may(at, 'operator')) return null;
  return (
    <details class="panel pad" open={sent?.values.has('grace') ?? false}>
      <summary>Rotate its key…</summary>
      <Post at={at} to={`/bouncers/${bouncer.name}/rotate`} needs="operator" what="Rotating it">
        <p>
          {bouncer.host === undefined
            ? 'It gets a new version of its key, which is shown once. The old one is good until the new one is first used, and then for the grace.'
            : `The host ${bouncer.host} is asked for a new key. The old one is good until the new one is first used, and then for the grace.`}
        </p>
        <div class="fields">
          <TextField
            name="grace"
            label="Grace"
            value="15m"
            sent={sent}
            hint="0s: the old key is revoked now."
          />
          <TextField
            name="max_overlap"
            label="Both are good for at most"
            value="7d"
            sent={sent}
            hint="Then a new key that is not used yet expires."
          />
          <ExpiryField label="The new key expires in" sent={sent} />
        </div>
        <button class="primary">Rotate</button>
      </Post>
    </details>
  );
}
