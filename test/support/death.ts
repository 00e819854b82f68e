// The feed's object dies: what it had in memory alone is lost.
import { evictDurableObject } from 'cloudflare:test';
import { feed } from './bouncer.ts';

/** The next question wakes it. */
export async function letObjectDie(): Promise<void> {
  // Only one that is awake can die.
  await feed().status();
  await evictDurableObject(feed());
}
