// Dead-row lists: what is written is read, and damage is told apart from another file.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countBits, noBits, setBit } from '../../../functions/core/vectors/bits.ts';
import { encodeDeadRows, openDeadRows } from '../../../functions/core/vectors/dead-rows.ts';

const bitsOf = (rows: number, dead: readonly number[]) => {
  const bits = noBits(rows);
  for (const row of dead) setBit(bits, row);
  return bits;
};

describe('a dead-row list', () => {
  test('holds exactly the rows that were given', () => {
    const lists = fc
      .integer({ min: 1, max: 300 })
      .chain((rows) =>
        fc.tuple(fc.constant(rows), fc.uniqueArray(fc.nat({ max: rows - 1 }), { minLength: 1 })),
      );
    fc.assert(
      fc.property(lists, ([rows, dead]) => {
        const bits = bitsOf(rows, dead);
        const { bytes, description } = encodeDeadRows(bits, rows);
        expect(description).toMatchObject({ bytes: bytes.byteLength, rows: dead.length });
        expect(openDeadRows(bytes, { ...description, key: 'k' }, rows)).toEqual(bits);
      }),
    );
  });

  test('is refused, by its name, when any byte of it is another, when it is cut, or when it belongs to another segment', () => {
    const { bytes, description } = encodeDeadRows(bitsOf(70, [1, 69]), 70);
    const ref = { ...description, key: 'dead/x' };
    const corrupt = expect.objectContaining({ code: 'dead_rows_corrupt', objectName: 'dead/x' });
    const foreign = expect.objectContaining({ code: 'dead_rows_foreign', objectName: 'dead/x' });
    for (let i = 0; i < bytes.length; i++) {
      const damaged = Uint8Array.from(bytes);
      damaged[i]! ^= 4;
      expect(() => openDeadRows(damaged, ref, 70)).toThrow(i < 8 ? foreign : corrupt);
    }
    expect(() => openDeadRows(bytes.subarray(0, 20), ref, 70)).toThrow(corrupt);
    expect(() => openDeadRows(bytes.subarray(0, 3), ref, 70)).toThrow(foreign);
    expect(() => openDeadRows(bytes, ref, 64)).toThrow(corrupt);
    expect(() => openDeadRows(bytes, ref, 71)).toThrow(corrupt);
    expect(countBits(openDeadRows(bytes, ref, 70))).toBe(2);
  });
});
