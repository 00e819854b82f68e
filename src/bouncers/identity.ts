// Who asks: a bouncer, by one version of its key.

import type { FoundKey } from '../store/epoch.sql.ts';
import { causeOf } from '../http/failure.ts';
import { readPolicy, type Policy, type PolicyColumns } from './policy.ts';
import type { KeyVersion } from '../store/schema.ts';

/** Who asks, and with which version of the key. */
export interface BouncerIdentity {
  readonly id: number;
  readonly name: string;
  readonly version: KeyVersion;
  readonly policy: Policy;
  /** The policy as it is kept. */
  readonly columns: PolicyColumns;
}

/** undefined: its row can't be read, which is nobody else's trouble. */
export function identityOf({ name, version, policy }: FoundKey): BouncerIdentity | undefined {
  try {
    return { id: version.bouncerId, name, version, policy: readPolicy(policy), columns: policy };
  } catch (error) {
    console.error(`the policy of bouncer ${name} can not be read: ${causeOf(error).message}`);
    return undefined;
  }
}
