// What to do first: shown until there is a bouncer.

import { linkTo, may, type At } from './at.ts';
import { Lines } from './parts.tsx';

/** `engines`: how many are configured. */
export function FirstSteps({ at, engines }: { at: At; engines: number }) {
  return (
    <>
      {engines > 0 ? null : (
        <>
          <h2>Connect an engine</h2>
          <FirstEngine />
        </>
      )}
      <h2>Connect a bouncer</h2>
      <FirstBouncer at={at} />
      <h2>How it stands</h2>
    </>
  );
}

/** Both lines as they are: the key is in no list of processes, and the second line is that of each later start, too. */
export const engineLines = `(umask 077; cscli bouncers add lapidary -o raw > .lapidary/engine-key)
UPSTREAM_URL=http://127.0.0.1:8080 UPSTREAM_API_KEY="$(cat .lapidary/engine-key)" npm start`;

export function FirstEngine() {
  return (
    <>
      <p>
        Stop Lapidary. In its folder, on the engine’s machine and as root, the first line makes a key that
        nothing but Lapidary uses, and the second starts Lapidary with it, now and at each later start. Until
        then, what operators ban here is served.
      </p>
      <Lines id="first-engine" text={engineLines} />
    </>
  );
}

export function FirstBouncer({ at }: { at: At }) {
  return (
    <>
      <p>
        A bouncer asks Lapidary for decisions as it asked its engine, with a key of its own.{' '}
        {may(at, 'operator') ? (
          <>
            <a href={linkTo(at, '/new-bouncer')}>Make one here</a>, or on the command line, in the folder of
            Lapidary:
          </>
        ) : (
          'An operator makes one here, or on the command line, in the folder of Lapidary:'
        )}
      </p>
      <Lines
        id="first-bouncer"
        text={`curl -sS -H @.lapidary/operator-header ${at.url}/api/v1/bouncers -d '{"name":"web-1"}'`}
      />
    </>
  );
}
