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

export function FirstEngine() {
  return (
    <>
      <p>
        On its machine make a key that nothing but Lapidary uses, and start Lapidary with it. Without an
        engine, what operators ban here is served.
      </p>
      <Lines
        id="first-engine"
        text={'cscli bouncers add lapidary\nUPSTREAM_URL=http://127.0.0.1:8080 UPSTREAM_API_KEY=… npm start'}
      />
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
            <a href={linkTo(at, '/new-bouncer')}>Make one here</a>, or on the command line:
          </>
        ) : (
          'An operator makes one here, or on the command line:'
        )}
      </p>
      <Lines
        id="first-bouncer"
        text={`curl -sS -H @.lapidary/operator-header ${at.url}/api/v1/bouncers -d '{"name":"web-1"}'`}
      />
    </>
  );
}
