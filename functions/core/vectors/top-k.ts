// The k best rows of a scan: a heap in arrays that are allocated once, the worst kept row on top.

/** Keeps the k rows with the highest scores; of equal scores those with the lowest ids. */
export class TopK {
  /** Rows with a lower score cannot get in any more: test this before `offer`. */
  floor: number;
  readonly #scores: Float64Array;
  readonly #rows: Float64Array;
  readonly #idOf: (row: number) => string;
  #size = 0;

  /**
   * @param k at least 1
   * @param minScore lower scores are never kept
   * @param idOf asked only when two scores are equal
   */
  constructor(k: number, minScore: number, idOf: (row: number) => string) {
    this.floor = minScore;
    this.#scores = new Float64Array(k);
    this.#rows = new Float64Array(k);
    this.#idOf = idOf;
  }

  offer(score: number, row: number): void {
    if (score < this.floor) return;
    const scores = this.#scores;
    const rows = this.#rows;
    if (this.#size < scores.length) {
      let at = this.#size;
      this.#size += 1;
      while (at > 0) {
        const parent = (at - 1) >>> 1;
        if (!this.#isWorse(score, row, scores[parent]!, rows[parent]!)) break;
        scores[at] = scores[parent]!;
        rows[at] = rows[parent]!;
        at = parent;
      }
      scores[at] = score;
      rows[at] = row;
    } else {
      if (this.#isWorse(score, row, scores[0]!, rows[0]!)) return;
      this.#sink(score, row, this.#size);
    }
    if (this.#size === scores.length && scores[0]! > this.floor) this.floor = scores[0]!;
  }

  /** The kept rows, best first. Empties the heap. */
  take(): { readonly row: number; readonly score: number }[] {
    const taken: { row: number; score: number }[] = [];
    while (this.#size > 0) {
      taken.push({ row: this.#rows[0]!, score: this.#scores[0]! });
      this.#size -= 1;
      if (this.#size > 0) this.#sink(this.#scores[this.#size]!, this.#rows[this.#size]!, this.#size);
    }
    return taken.reverse();
  }

  /** Puts a row in the place of the top and lets it sink. */
  #sink(score: number, row: number, size: number): void {
    const scores = this.#scores;
    const rows = this.#rows;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && this.#isWorse(scores[right]!, rows[right]!, scores[child]!, rows[child]!))
        child = right;
      if (!this.#isWorse(scores[child]!, rows[child]!, score, row)) break;
      scores[at] = scores[child]!;
      rows[at] = rows[child]!;
      at = child;
    }
    scores[at] = score;
    rows[at] = row;
  }

  #isWorse(score: number, row: number, otherScore: number, otherRow: number): boolean {
    if (score !== otherScore) return score < otherScore;
    return this.#idOf(row) > this.#idOf(otherRow);
  }
}
