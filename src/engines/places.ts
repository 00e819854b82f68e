// Places for requests of one object that wait for an engine to begin its answer. Cloudflare lets six wait at once
// (Workers, limits: simultaneous open connections; local workerd any number) and keeps a seventh back without a word: an
// engine that was never asked would look silent. Here it waits before its time begins.

/** D1 is asked beside them. */
const mostWaiting = 5;
/** Of engines that gave no answer last: however many those are, the others go on asking. */
const mostOfSilent = 3;

/** Waits for a place; it is held until the answer that is then handed in begins, or fails. */
export type Enter = () => Promise<<T>(answer: Promise<T>) => Promise<T>>;

/** Gives each engine its own way in. */
export function createPlaces(): () => Enter {
  let taken = 0;
  let takenBySilent = 0;
  const queue: { readonly silent: boolean; readonly enter: () => void }[] = [];

  const admit = (): void => {
    if (taken >= mostWaiting) return;
    const at = queue.findIndex(({ silent }) => !silent || takenBySilent < mostOfSilent);
    const [next] = at < 0 ? [] : queue.splice(at, 1);
    if (!next) return;
    taken++;
    if (next.silent) takenBySilent++;
    next.enter();
  };

  return () => {
    let silent = false;
    return async () => {
      const came = { silent };
      await new Promise<void>((enter) => {
        queue.push({ ...came, enter });
        admit();
      });
      return async (answer) => {
        try {
          const begun = await answer;
          silent = false;
          return begun;
        } catch (error) {
          silent = true;
          throw error;
        } finally {
          taken--;
          if (came.silent) takenBySilent--;
          admit();
        }
      };
    };
  };
}
