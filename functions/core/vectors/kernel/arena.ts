// The memory that segments share while they are scanned: slots of any size, what was used longest ago goes first.
import { VectorError } from '../errors.ts';

/** What of a kernel an arena needs: its memory, which never grows, and the part of it that is free for slots. */
export interface ArenaMemory {
  readonly bytes: Uint8Array;
  /** First byte of the arena, a multiple of 64. */
  readonly arenaAt: number;
  readonly arenaBytes: number;
}

/** Slots begin at multiples of this: a cache line, and four of the kernel's registers. */
const alignment = 64;

interface Slot {
  readonly key: string;
  /** As asked for; the slot takes the next multiple of the alignment. */
  readonly bytes: number;
  readonly size: number;
  /** Undefined while it waits for room. */
  at: number | undefined;
  /** Callers that fill it, wait for that, or work in it. It stays where it is until there are none. */
  users: number;
  /** Undefined once its bytes are there. */
  filling: Promise<void> | undefined;
}

interface Waiting {
  readonly slot: Slot;
  readonly wake: () => void;
}

/**
 * Keeps the bytes of many keys in the memory of one kernel.
 *
 * When there is no hole for a new slot, slots that nobody uses are given up, those used longest ago first, until there
 * is one. Where even all of them would not do, the caller waits; waiting callers get room strictly in their order, so
 * that small slots cannot keep a large one out for ever. A `fill` must therefore not ask the same arena for room.
 */
export class Arena {
  readonly #memory: Uint8Array;
  readonly #at: number;
  readonly #end: number;
  /** By key, in the order of last use. Holds what is resident, being filled, or waiting for room. */
  readonly #slots = new Map<string, Slot>();
  readonly #holes: Holes;
  readonly #queue: Waiting[] = [];
  #bytesUsed = 0;

  constructor(kernel: ArenaMemory) {
    this.#memory = kernel.bytes;
    this.#at = kernel.arenaAt;
    this.#end = kernel.arenaAt + kernel.arenaBytes - (kernel.arenaBytes % alignment);
    this.#holes = new Holes(this.#at, this.#end);
  }

  /** Bytes that slots take, those being filled among them, each rounded up to a multiple of 64. */
  get bytesUsed(): number {
    return this.#bytesUsed;
  }

  /** Whether the bytes of a key are there, so that `use` would neither fill nor wait. */
  has(key: string): boolean {
    const slot = this.#slots.get(key);
    return slot !== undefined && slot.filling === undefined;
  }

  /**
   * Makes sure that the bytes of `key` are resident and runs `work` with their address.
   *
   * They are filled once: callers that ask meanwhile wait for the same filling, and get its error if it fails. A
   * failed filling is not kept.
   *
   * @param key names these very bytes for ever, and always with the same length
   * @param fill writes all of `target`, and nothing any more once its promise is settled
   * @param work runs without waiting: the slot may be given up any time after it has returned. `at` is an address in
   *   the kernel's memory, a multiple of 64; `cold` says that this very call had to fill
   * @throws VectorError segment_too_large, segment_mismatch (the key is there with another length)
   */
  async use<T>(
    key: string,
    bytes: number,
    fill: (target: Uint8Array) => Promise<void>,
    work: (at: number, cold: boolean) => T,
  ): Promise<T> {
    const known = this.#slots.get(key);
    if (known && known.bytes !== bytes) {
      throw new VectorError('segment_mismatch', `is there with ${known.bytes} bytes, not ${bytes}`, key);
    }
    if (known) known.users += 1;
    const slot = known ?? this.#open(key, bytes, fill);
    try {
      if (slot.filling) await slot.filling;
      this.#slots.delete(key);
      this.#slots.set(key, slot);
      return work(slot.at!, known === undefined);
    } finally {
      slot.users -= 1;
      this.#serve();
    }
  }

  /** A slot for a key that has none, with its caller as its first user, and being filled. */
  #open(key: string, bytes: number, fill: (target: Uint8Array) => Promise<void>): Slot {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`the length of ${key} must be a whole number of bytes, got ${bytes}`);
    }
    // An empty slot would share its address with its neighbour.
    const size = Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
    if (size > this.#end - this.#at) {
      throw new VectorError(
        'segment_too_large',
        `${bytes} bytes must be in memory at once and this function has room for ${this.#end - this.#at}: ` +
          'give the function more memory',
        key,
      );
    }
    const slot: Slot = { key, bytes, size, at: undefined, users: 1, filling: undefined };
    this.#slots.set(key, slot);
    slot.filling = this.#fill(slot, fill);
    return slot;
  }

  async #fill(slot: Slot, fill: (target: Uint8Array) => Promise<void>): Promise<void> {
    if (this.#queue.length > 0 || !this.#place(slot)) {
      await new Promise<void>((wake) => this.#queue.push({ slot, wake }));
    }
    const at = slot.at!;
    try {
      await fill(this.#memory.subarray(at, at + slot.bytes));
      slot.filling = undefined;
    } catch (error) {
      this.#slots.delete(slot.key);
      this.#release(slot);
      throw error;
    }
  }

  /** Gives room to those who wait, in their order, as far as it goes. */
  #serve(): void {
    while (this.#queue.length > 0 && this.#place(this.#queue[0]!.slot)) this.#queue.shift()!.wake();
  }

  /** Finds or makes a hole for a slot. Gives nothing up when that would not make one. */
  #place(slot: Slot): boolean {
    let at = this.#holes.take(slot.size);
    if (at === undefined && this.#canMakeHole(slot.size)) {
      for (const idle of this.#slots.values()) {
        if (idle.users > 0) continue;
        this.#slots.delete(idle.key);
        this.#release(idle);
        at = this.#holes.take(slot.size);
        if (at !== undefined) break;
      }
    }
    if (at === undefined) return false;
    slot.at = at;
    this.#bytesUsed += slot.size;
    return true;
  }

  /** Whether the slots in use leave a gap of `size` bytes between them. */
  #canMakeHole(size: number): boolean {
    const kept = [...this.#slots.values()]
      .filter((slot) => slot.users > 0 && slot.at !== undefined)
      .sort((a, b) => a.at! - b.at!);
    let from = this.#at;
    for (const slot of kept) {
      if (slot.at! - from >= size) return true;
      from = slot.at! + slot.size;
    }
    return this.#end - from >= size;
  }

  #release(slot: Slot): void {
    this.#holes.give(slot.at!, slot.size);
    this.#bytesUsed -= slot.size;
    slot.at = undefined;
  }
}

interface Hole {
  at: number;
  size: number;
}

/** The free extents of a stretch of memory, by address; no two of them touch. */
class Holes {
  readonly #holes: Hole[];

  constructor(at: number, end: number) {
    this.#holes = end > at ? [{ at, size: end - at }] : [];
  }

  /** Takes `size` bytes from the smallest hole that has them, so that large ones last. */
  take(size: number): number | undefined {
    let best = -1;
    for (const [i, hole] of this.#holes.entries()) {
      if (hole.size >= size && (best < 0 || hole.size < this.#holes[best]!.size)) best = i;
    }
    const hole = this.#holes[best];
    if (!hole) return undefined;
    const { at } = hole;
    hole.at += size;
    hole.size -= size;
    if (hole.size === 0) this.#holes.splice(best, 1);
    return at;
  }

  /** Gives an extent back and joins it with the holes that it touches. */
  give(at: number, size: number): void {
    let low = 0;
    let high = this.#holes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#holes[middle]!.at < at) low = middle + 1;
      else high = middle;
    }
    const before = this.#holes[low - 1];
    const after = this.#holes[low];
    const joinsBefore = before !== undefined && before.at + before.size === at;
    const joinsAfter = after !== undefined && at + size === after.at;
    if (joinsBefore) {
      before.size += size + (joinsAfter ? after.size : 0);
      if (joinsAfter) this.#holes.splice(low, 1);
    } else if (joinsAfter) {
      after.at = at;
      after.size += size;
    } else {
      this.#holes.splice(low, 0, { at, size });
    }
  }
}
