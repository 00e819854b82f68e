// Suites that not every machine can run. Elsewhere they are skipped, never failed: by name and with the reason.
import { appendFileSync } from 'node:fs';
import { describe, inject } from 'vitest';

export type AbilityName = keyof Abilities;

export interface Abilities {
  /** Debian's engine and bouncers are here. */
  lab: Ability;
  /** An engine can keep its data in PostgreSQL and in MariaDB. */
  databases: Ability;
  /** The firewall bouncer can run: it needs a network namespace of its own. */
  netns: Ability;
  /** What a host runs to get its key. */
  hostTools: Ability;
  /** What reads the flake and checks its scripts and units. */
  nix: Ability;
  /** Beside that nixpkgs' `lib`, to evaluate the flake's modules. */
  nixpkgs: Ability;
  /** A host with a systemd of its own can be booted. */
  boot: Ability;
  /** This Node has SQLite. */
  sqlite: Ability;
  /** A small disk can be mounted. */
  mounts: Ability;
  /** Python is here, and Schemathesis installed. */
  schemathesis: Ability;
  /** Debian's Prometheus is here. */
  prometheus: Ability;
  /** Debian's HAProxy, nginx and ipset are here. */
  readers: Ability;
  /** Debian's Chromium is here. */
  chromium: Ability;
}

/** `optional`: CI's machine may lack it as well, so that nothing of the suite is counted as skipped. */
export type Ability = { ok: true } | { ok: false; why: string; optional?: true };

declare module 'vitest' {
  interface ProvidedContext {
    abilities: Abilities;
  }
}

/** Where `npm test` reads what was left out (test/run.mjs); of a single suite the console has it. */
const toldIn = process.env['LAPIDARY_LEFT_OUT'];

/** While the body of a suite runs that is left out: so is all that is in it. */
let leavingOut = false;

/** A suite for machines that have all that it needs. */
export function describeWith(name: string, needs: readonly AbilityName[], body: () => void): void {
  const abilities = inject('abilities');
  const lacking = needs.map((need) => abilities[need]).find((ability) => !ability.ok);
  if (leavingOut || !lacking || lacking.ok) return void describe(name, body);
  const { why, optional } = lacking;
  if (toldIn === undefined) console.log(`left out: ${name}: ${why}`);
  else appendFileSync(toldIn, `${JSON.stringify({ name, why })}\n`);
  describe.skip(`${name} (left out: ${why})`, () => {
    leavingOut = true;
    if (!optional) body();
    leavingOut = false;
  });
}
