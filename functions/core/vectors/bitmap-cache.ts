// Keeps the bitmaps of filters within a bound of bytes: what was used longest ago goes first.
import type { Bits } from './bits.ts';

/** Beside the bitmaps themselves: the entry, its key's object, the array. */
const entryBytes = 200;

/**
 * Bitmaps by an immutable owner (a segment, a snapshot) and the key of a condition.
 *
 * It does not hold the owners: an owner that is dropped leaves entries that nobody asks for, and they go in their turn.
 */
export class BitmapCache<Owner extends object, T extends Bits | readonly Bits[]> {
  readonly #bytesMax: number;
  readonly #entries = new Map<string, { readonly value: T; readonly bytes: number }>();
  readonly #numbers = new WeakMap<Owner, number>();
  #owners = 0;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes of everything that is kept, keys included. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The value of a key, made at the first call and again after it had to go. One larger than the bound is not kept. */
  get(owner: Owner, key: string, make: () => T): T {
    const name = `${this.#numberOf(owner)} ${key}`;
    const known = this.#entries.get(name);
    if (known !== undefined) {
      // Last used goes to the end of the map, first used is dropped first.
      this.#entries.delete(name);
      this.#entries.set(name, known);
      return known.value;
    }
    const value = make();
    const arrays: readonly Bits[] = value instanceof Uint32Array ? [value] : (value as readonly Bits[]);
    const bytes = arrays.reduce((sum, bits) => sum + bits.byteLength, entryBytes + 2 * name.length);
    if (bytes > this.#bytesMax) return value;
    this.#entries.set(name, { value, bytes });
    this.#bytes += bytes;
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= this.#bytesMax) break;
      this.#entries.delete(oldest);
      this.#bytes -= entry.bytes;
    }
    return value;
  }

  #numberOf(owner: Owner): number {
    const known = this.#numbers.get(owner);
    if (known !== undefined) return known;
    this.#owners += 1;
    this.#numbers.set(owner, this.#owners);
    return this.#owners;
  }
}
