// A cache of immutable values by key, bounded by bytes: what was used longest ago goes first.

export class LruCache<T> {
  readonly #bytesMax: number;
  readonly #entries = new Map<string, { readonly made: Promise<{ readonly value: T }>; bytes: number }>();
  #bytes = 0;

  /** @param bytesMax the newest entry stays even if it is larger by itself. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The bytes of everything that is kept, as its makers stated them. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The value of a key, made once: callers that ask while it is being made wait for the same one. A failure is not
   * kept.
   *
   * @param make gives the value and about how many bytes of memory it holds
   */
  async get(key: string, make: () => Promise<{ readonly value: T; readonly bytes: number }>): Promise<T> {
    const found = this.#entries.get(key);
    if (found) {
      this.#entries.delete(key);
      this.#entries.set(key, found);
      return (await found.made).value;
    }
    const made = make();
    const entry = { made, bytes: 0 };
    this.#entries.set(key, entry);
    try {
      const { value, bytes } = await made;
      if (this.#entries.get(key) === entry) {
        entry.bytes = bytes;
        this.#bytes += bytes;
        this.#evict(key);
      }
      return value;
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
  }

  #evict(newest: string): void {
    for (const [key, entry] of this.#entries) {
      if (this.#bytes <= this.#bytesMax) return;
      if (key === newest || entry.bytes === 0) continue;
      this.#entries.delete(key);
      this.#bytes -= entry.bytes;
    }
  }
}
