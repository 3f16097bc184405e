// Sums of float64 numbers without rounding on the way, so that they depend neither on segments nor on their order.

/**
 * The exact sum of finite numbers, rounded once at the end.
 *
 * Keeps the sum as numbers that do not overlap in their bits, smallest first.
 *
 * @see J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic (1997), grow-expansion
 */
export class ExactSum {
  #parts: number[] = [];
  #overflowed = false;

  add(value: number): void {
    const parts = this.#parts;
    let carry = value;
    let kept = 0;
    for (let i = 0; i < parts.length; i += 1) {
      const part = parts[i]!;
      const [large, small] = Math.abs(carry) < Math.abs(part) ? [part, carry] : [carry, part];
      const sum = large + small;
      const lost = small - (sum - large);
      if (lost !== 0) {
        parts[kept] = lost;
        kept += 1;
      }
      carry = sum;
    }
    parts.length = kept;
    parts.push(carry);
    if (!Number.isFinite(carry)) this.#overflowed = true;
  }

  /** Undefined where a float64 cannot hold it, or could not on the way. */
  value(): number | undefined {
    if (this.#overflowed) return undefined;
    const parts = this.#parts;
    let at = parts.length - 1;
    if (at < 0) return 0;
    let sum = parts[at]!;
    let lost = 0;
    while (at > 0 && lost === 0) {
      at -= 1;
      const before = sum;
      sum = before + parts[at]!;
      lost = parts[at]! - (sum - before);
    }
    // Halfway between two numbers: what lies further below decides, not the rule of even digits.
    if (at > 0 && lost !== 0 && Math.sign(lost) === Math.sign(parts[at - 1]!)) {
      const doubled = 2 * lost;
      const further = sum + doubled;
      if (further - sum === doubled) sum = further;
    }
    return sum;
  }
}
