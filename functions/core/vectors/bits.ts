// Bitmaps over the rows of a segment: 32 rows a word, row 0 in the lowest bit, bits past the last row always zero.

export type Bits = Uint32Array<ArrayBufferLike>;

export function wordsFor(rows: number): number {
  return (rows + 31) >>> 5;
}

export function noBits(rows: number): Bits {
  return new Uint32Array(wordsFor(rows));
}

export function allBits(rows: number): Bits {
  const bits = new Uint32Array(wordsFor(rows)).fill(0xffffffff);
  return clearTail(bits, rows);
}

export function hasBit(bits: Bits, row: number): boolean {
  return ((bits[row >>> 5]! >>> (row & 31)) & 1) === 1;
}

export function setBit(bits: Bits, row: number): void {
  bits[row >>> 5]! |= 1 << (row & 31);
}

export function clearBit(bits: Bits, row: number): void {
  bits[row >>> 5]! &= ~(1 << (row & 31));
}

/** Changes `bits` in place: only what `other` has too. */
export function andInto(bits: Bits, other: Bits): Bits {
  for (let i = 0; i < bits.length; i += 1) bits[i]! &= other[i]!;
  return bits;
}

/** Changes `bits` in place: also what `other` has. */
export function orInto(bits: Bits, other: Bits): Bits {
  for (let i = 0; i < bits.length; i += 1) bits[i]! |= other[i]!;
  return bits;
}

/** Changes `bits` in place: only what `other` does not have. */
export function andNotInto(bits: Bits, other: Bits): Bits {
  for (let i = 0; i < bits.length; i += 1) bits[i]! &= ~other[i]!;
  return bits;
}

/** Changes `bits` in place: each of the `rows` bits turned over. */
export function notInto(bits: Bits, rows: number): Bits {
  for (let i = 0; i < bits.length; i += 1) bits[i] = ~bits[i]!;
  return clearTail(bits, rows);
}

export function countBits(bits: Bits): number {
  let total = 0;
  for (let i = 0; i < bits.length; i += 1) {
    // Sums of ever wider fields inside the word.
    let word = bits[i]!;
    word -= (word >>> 1) & 0x55555555;
    word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
    total += (((word + (word >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
  }
  return total;
}

/** Whether any row is in both. */
export function intersects(a: Bits, b: Bits): boolean {
  for (let i = 0; i < a.length; i += 1) if ((a[i]! & b[i]!) !== 0) return true;
  return false;
}

/** The rows whose bit is set, ascending. */
export function rowsOf(bits: Bits): Uint32Array<ArrayBuffer> {
  const rows = new Uint32Array(countBits(bits));
  let n = 0;
  for (let i = 0; i < bits.length; i += 1) {
    let word = bits[i]!;
    while (word !== 0) {
      const lowest = word & -word;
      rows[n] = (i << 5) + 31 - Math.clz32(lowest);
      n += 1;
      word ^= lowest;
    }
  }
  return rows;
}

function clearTail(bits: Bits, rows: number): Bits {
  if ((rows & 31) !== 0) bits[bits.length - 1]! &= 0xffffffff >>> (32 - (rows & 31));
  return bits;
}
