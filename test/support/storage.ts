// Storage of Durable Objects that takes no write, whichever object has it: a full disk, or a daily limit that is used up.
import { runInDurableObject } from 'cloudflare:test';
import { vi } from 'vitest';
import { feed } from './bouncer.ts';

const writes = /^\s*(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER)\b/i;
const refusal = 'Exceeded allowed rows written in Durable Objects free tier.';

/** From here on every write fails, those in a constructor as well; returns how that ends. */
export async function refuseWrites(): Promise<() => void> {
  let isFull = true;
  await runInDurableObject(feed(), (_, { storage }) => {
    const sql = Object.getPrototypeOf(storage.sql) as SqlStorage;
    const { exec } = sql;
    vi.spyOn(sql, 'exec').mockImplementation(function (this: SqlStorage, query, ...bindings) {
      if (isFull && writes.test(query)) throw new Error(refusal);
      return exec.call(this, query, ...bindings) as never;
    });
    const own = Object.getPrototypeOf(storage) as DurableObjectStorage;
    const { setAlarm } = own;
    vi.spyOn(own, 'setAlarm').mockImplementation(async function (this: DurableObjectStorage, ...args) {
      if (isFull) throw new Error(refusal);
      await setAlarm.apply(this, args);
    });
  });
  return () => {
    isFull = false;
  };
}
