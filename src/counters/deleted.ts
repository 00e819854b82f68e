// Bouncers that were deleted of late. Isolates send what they have counted, and reports, some seconds later: it is not to begin
// a counter of a bouncer that is gone. The object has one memory of them.

/** Ids are of use for seconds, and never used for another bouncer but after a restore. */
const mostIds = 5_000;

export function createDeleted() {
  const ids = new Set<number>();
  return {
    has: (bouncerId: number): boolean => ids.has(bouncerId),
    add(bouncerId: number): void {
      ids.add(bouncerId);
      for (const oldest of ids) {
        if (ids.size <= mostIds) break;
        ids.delete(oldest);
      }
    },
    /** D1 was restored: ids after this one are for new bouncers. */
    forgetAfter(bouncerId: number): void {
      for (const id of ids) if (id > bouncerId) ids.delete(id);
    },
  };
}
