// A 64-bit hash of ids, so that versions of one row find each other without comparing texts.

/**
 * Hashes UTF-8 bytes to two 32-bit halves. Not cryptographic: ids with equal hashes are compared byte by byte.
 *
 * @param bytes the id's bytes are `bytes[start..end)`
 * @returns `[low, high]`, unsigned
 */
export function hashId(bytes: Uint8Array, start: number, end: number): [low: number, high: number] {
  // Two multiply-xor chains over the bytes with different odd multipliers, then a finaliser that crosses them.
  let low = 0x9e3779b9 ^ (end - start);
  let high = 0x243f6a88 ^ (end - start);
  for (let i = start; i < end; i += 1) {
    low = Math.imul(low ^ bytes[i]!, 0x85ebca6b);
    low ^= low >>> 15;
    high = Math.imul(high ^ bytes[i]!, 0xc2b2ae35);
    high ^= high >>> 13;
  }
  low = Math.imul(low ^ (high >>> 16), 0x27d4eb2f);
  high = Math.imul(high ^ (low >>> 15), 0x165667b1);
  low ^= high >>> 14;
  return [low >>> 0, high >>> 0];
}
