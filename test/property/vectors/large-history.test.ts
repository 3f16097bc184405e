// Segments of hundreds of real vectors answer to the last bit like a scan in double precision, after any history.
import fc from 'fast-check';
import { test } from 'vitest';
import { checkLargeHistory, largeHistory } from './large-history.ts';

/** `npm run fuzz:vectors` runs many more. */
const histories = 1_000;

test('ids and scores are those of a scan in double precision, for all clouds of vectors, filters and limits', async () => {
  await fc.assert(fc.asyncProperty(largeHistory, checkLargeHistory), { numRuns: histories });
}, 300_000);
