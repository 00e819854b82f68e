// What the engine's database refuses, and takes when it is asked again.
import { until } from './wait.ts';

/**
 * Runs `write`, and again while it fails with "database is locked" (SQLite) or "Deadlock found" (MariaDB); every other failure is the caller's.
 *
 * A transaction that began by reading does not wait for its turn: SQLite refuses it at once when another connection
 * has written since (SQLITE_BUSY_SNAPSHOT), and a pull writes, too. The engine's link between an alert and its
 * decisions is such a transaction. So a refused alert may leave its decision behind, and the next attempt bans the
 * value a second time.
 */
export async function untilUnlocked<T>(write: () => Promise<T>): Promise<T> {
  const outcome = await until('the engine’s database takes a write', async () => {
    try {
      return { value: await write() };
    } catch (error) {
      if (/database is locked|Deadlock found/.test(String(error))) throw error;
      return { error };
    }
  });
  if ('error' in outcome) throw outcome.error;
  return outcome.value;
}
