// What seals the engine's key: opened by whoever has the secret or the one before it, and by nobody else.
import { describe, expect, test } from 'vitest';
import { open, seal } from '../../src/crypto/seal.ts';
import type { BootstrapSecrets } from '../../src/config/settings.ts';

const old = { current: 'the-secret-of-last-year-0123456789', previous: null };
const now = { current: 'the-secret-of-this-year-0123456789', previous: null };
const changing: BootstrapSecrets = { current: now.current, previous: old.current };
const key = 'the-key-of-the-engine';

describe('a sealed key', () => {
  test('is opened by the secret that sealed it, and is never the same text twice', async () => {
    const [one, other] = [await seal(now, 'engine-1', key), await seal(now, 'engine-1', key)];
    expect(await open(now, 'engine-1', one)).toEqual({ key, resealed: null });
    expect(await open(now, 'engine-1', other)).toEqual({ key, resealed: null });
    expect(one).not.toBe(other);
    expect(one).not.toContain(key);
  });

  test('stays shut for another secret, and for another host', async () => {
    const sealed = await seal(now, 'engine-1', key);
    expect(await open(old, 'engine-1', sealed)).toBeNull();
    expect(await open(now, 'engine-2', sealed)).toBeNull();
  });

  test('of the secret before is opened, and comes back sealed under the secret of now', async () => {
    const opened = await open(changing, 'engine-1', await seal(old, 'engine-1', key));
    expect(opened?.key).toBe(key);
    expect(await open(now, 'engine-1', opened?.resealed as string)).toEqual({ key, resealed: null });
    expect(await open(old, 'engine-1', opened?.resealed as string)).toBeNull();
  });

  test('stays shut when any character of it was changed', async () => {
    const sealed = await seal(changing, 'engine-1', key);
    for (let at = 0; at < sealed.length; at++) {
      for (const other of ['e', 'f', 'A', 'Q', 'g', 'w', '=']) {
        if (other === sealed[at]) continue;
        const changed = [...sealed].with(at, other).join('');
        expect(await open(changing, 'engine-1', changed), `${other} at ${at}`).toBeNull();
      }
    }
    for (const cut of ['', 'v1', sealed.slice(0, -4), `${sealed}AAAA`, `${sealed}.`]) {
      expect(await open(changing, 'engine-1', cut)).toBeNull();
    }
  });
});
