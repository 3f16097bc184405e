// Which scan function holds which segment: rendezvous hashing, so that a change of either moves as little as can be.
import { hashId } from '../vectors/id-hash.ts';

const encoder = new TextEncoder();

/**
 * The function with the highest hash of (segment, function). Each function finds the segments in its memory that it
 * scanned for earlier queries; with one function more, only the segments that it wins move.
 *
 * @param functions how many there are, at least 1
 * @returns 0 to functions - 1
 * @see Thaler and Ravishankar, Using name-based mappings to increase hit rates (1998)
 */
export function functionFor(segmentKey: string, functions: number): number {
  let best = 0;
  let bestHigh = -1;
  let bestLow = -1;
  for (let i = 0; i < functions; i += 1) {
    const bytes = encoder.encode(`${segmentKey}#${i}`);
    const [low, high] = hashId(bytes, 0, bytes.length);
    if (high > bestHigh || (high === bestHigh && low > bestLow)) {
      best = i;
      bestHigh = high;
      bestLow = low;
    }
  }
  return best;
}
