// Work on an open snapshot: a segment's columns are opened when they are first used, so damage can show late.
import { readFault } from './open-index.ts';

/** Runs `work`; what is wrong with a stored object is told as by a read. @throws AppError index_unavailable, index_corrupt */
export function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw readFault(error);
  }
}
