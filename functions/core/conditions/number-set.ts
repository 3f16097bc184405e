// The numbers that pass a comparison, as closed intervals: one meaning for documents and for columns of numbers.

/** A set of numbers: closed intervals, ascending, apart from each other. NaN is in none. */
export class NumberSet {
  static readonly none = new NumberSet([]);
  readonly lows: Float64Array;
  readonly highs: Float64Array;

  private constructor(intervals: readonly (readonly [low: number, high: number])[]) {
    this.lows = Float64Array.from(intervals, ([low]) => low);
    this.highs = Float64Array.from(intervals, ([, high]) => high);
  }

  /** Exactly these numbers. */
  static of(numbers: readonly number[]): NumberSet {
    const ascending = [...new Set(numbers)].sort((a, b) => a - b);
    return ascending.length === 0 ? NumberSet.none : new NumberSet(ascending.map((x) => [x, x]));
  }

  /** The numbers on one side of a finite bound. */
  static beside(operator: 'gt' | 'gte' | 'lt' | 'lte', bound: number): NumberSet {
    switch (operator) {
      case 'gt':
        return new NumberSet([[nextAbove(bound), Number.POSITIVE_INFINITY]]);
      case 'gte':
        return new NumberSet([[bound, Number.POSITIVE_INFINITY]]);
      case 'lt':
        return new NumberSet([[Number.NEGATIVE_INFINITY, -nextAbove(-bound)]]);
      case 'lte':
        return new NumberSet([[Number.NEGATIVE_INFINITY, bound]]);
    }
  }

  has(value: number): boolean {
    const { lows, highs } = this;
    let low = 0;
    let high = lows.length;
    // The last interval that begins at or below the value.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (lows[middle]! <= value) low = middle + 1;
      else high = middle;
    }
    return low > 0 && value <= highs[low - 1]!;
  }
}

/** The least float64 above a finite one: x > bound is x >= nextAbove(bound). */
function nextAbove(bound: number): number {
  if (bound === 0) return Number.MIN_VALUE;
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, bound);
  view.setBigInt64(0, view.getBigInt64(0) + (bound > 0 ? 1n : -1n));
  return view.getFloat64(0);
}
