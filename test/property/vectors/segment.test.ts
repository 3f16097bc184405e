// A segment gives back what was put in, and never anything else: damage is noticed and the object is named.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ColumnPatch, ColumnValue } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { VectorError } from '../../../functions/core/vectors/errors.ts';
import { openSegment } from '../../../functions/core/vectors/open-segment.ts';
import { metrics } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

const memory = makeVectorMemory(2 ** 20);

import { scalar } from './model.ts';

const name = 'ns_a/col_b/seg/one.vseg';

const columnName = fc.oneof(
  fc.constantFrom('a', 'a:dict', 'a%3Adict', 'a:list', 'a.b', '%', 'vec', 'sparse', 'ключ', '\ud800'),
  fc.string({ minLength: 1, maxLength: 12, unit: 'binary' }),
);
const columnValue: fc.Arbitrary<ColumnValue> = fc.oneof(
  scalar,
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0),
  fc.string({ unit: 'binary' }),
  fc.array(fc.oneof(scalar, fc.string()), { maxLength: 4 }),
);
const columns = fc.array(fc.tuple(columnName, columnValue), { maxLength: 6 }).map((pairs) => new Map(pairs));
const anyId = fc
  .oneof(fc.string({ minLength: 1, maxLength: 30, unit: 'grapheme' }), fc.constantFrom('doc_a', 'doc_b'))
  .filter((id) => id.isWellFormed() && Buffer.byteLength(id) <= 256);

const shape = fc.tuple(fc.integer({ min: 0, max: 20 }), fc.constantFrom(...metrics));
const segmentInput = shape.chain(([dims, metric]) =>
  fc.record({
    kind: fc.constant('data' as const),
    dims: fc.constant(dims),
    metric: fc.constant(dims === 0 ? null : metric),
    rows: fc.array(
      fc.record({
        id: anyId,
        vector: fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), {
          minLength: dims,
          maxLength: dims,
        }),
        columns,
      }),
      { maxLength: 12 },
    ),
    tombs: fc.array(fc.record({ id: anyId }), { maxLength: 4 }),
  }),
);

/** -0 is stored as it is among numbers and as 0 in a dictionary; conditions see no difference. */
function plain(value: ColumnValue | undefined): ColumnValue | undefined {
  if (typeof value === 'number') return value + 0;
  return typeof value === 'object' && value !== null ? value.map((v) => plain(v) as typeof v) : value;
}

test('rows, ids, vectors, columns and deletions come back as they were written', async () => {
  await fc.assert(
    fc.asyncProperty(segmentInput, fc.integer({ min: 0, max: 7 }), async (input, shift) => {
      const { bytes, description } = encodeSegment(input);
      // A view at an odd offset of a larger buffer, as a stream reader may hold it.
      const shifted = Buffer.alloc(bytes.length + 8).fill(255);
      shifted.set(bytes, shift);
      const segment = openSegment(shifted.subarray(shift, shift + bytes.length), name, description);
      expect(segment.rows).toBe(input.rows.length);
      expect(segment.tombs).toEqual(input.tombs.map(({ id }, seq) => ({ id, seq })));
      const names = new Set(input.rows.flatMap((row) => [...row.columns.keys()]));
      expect(new Set(segment.columnNames())).toEqual(names);
      for (const [i, row] of input.rows.entries()) {
        expect(segment.id(i)).toBe(row.id);
        expect(segment.seq(i)).toBe(input.tombs.length + i);
        if (input.dims > 0) {
          expect(await segment.vectors!.vector(memory, i)).toEqual(Float32Array.from(row.vector));
        }
        for (const each of names)
          expect(plain(segment.column(each)!.at(i))).toEqual(plain(row.columns.get(each)));
      }
      // Opening must not write to the bytes, which a cache may share.
      expect(Buffer.compare(shifted.subarray(shift, shift + bytes.length), bytes)).toBe(0);
    }),
    { numRuns: 300 },
  );
});

test('a patch keeps apart what it sets, what it takes away and what it leaves', () => {
  const patch = fc
    .array(fc.tuple(columnName, fc.oneof(columnValue, fc.constant(undefined))), { maxLength: 6 })
    .map((pairs): ColumnPatch => new Map(pairs));
  fc.assert(
    fc.property(fc.array(patch, { minLength: 1, maxLength: 8 }), fc.boolean(), (patches, manyColumns) => {
      // More columns than have sections of their own push the rarer ones into the sparse section.
      const many: ColumnPatch = new Map(Array.from({ length: 300 }, (_, i) => [`many_${i}`, i]));
      const rows = [...patches, ...(manyColumns ? [many, many] : [])].map((each, i) => ({
        id: `doc_${i}`,
        columns: each,
      }));
      const { bytes } = encodeSegment({ kind: 'columns', dims: 0, metric: null, rows });
      const segment = openSegment(bytes, name);
      for (const each of segment.columnNames()) {
        const column = segment.column(each)!;
        rows.forEach((row, i) => {
          expect(plain(column.at(i))).toEqual(plain(row.columns.get(each)));
          const cleared = ((column.cleared?.[i >>> 5] ?? 0) >>> (i & 31)) & 1;
          expect(cleared === 1).toBe(row.columns.has(each) && row.columns.get(each) === undefined);
        });
      }
    }),
    { numRuns: 100 },
  );
});

test('the same rows give the same bytes', () => {
  fc.assert(
    fc.property(segmentInput, (input) => {
      expect(Buffer.compare(encodeSegment(input).bytes, encodeSegment(input).bytes)).toBe(0);
    }),
    { numRuns: 30 },
  );
});

const sample = encodeSegment({
  kind: 'data',
  dims: 3,
  metric: 'cosine',
  rows: Array.from({ length: 5 }, (_, i) => ({
    id: `doc_${i}`,
    vector: [i, 1, -1],
    columns: new Map<string, ColumnValue>([
      ['title', `Title ${i}`],
      ['n', i],
      ['tags', ['a', i]],
    ]),
  })),
  tombs: [{ id: 'doc_gone' }],
});

/** Opens every part, so that nothing stays unread. */
function openAll(bytes: Uint8Array): void {
  const segment = openSegment(bytes, name);
  for (const each of segment.columnNames()) segment.column(each)!.at(0);
}

function faultOf(bytes: Uint8Array): VectorError {
  try {
    openAll(bytes);
  } catch (error) {
    if (error instanceof VectorError) return error;
    throw error;
  }
  throw new Error('the damage was not noticed');
}

test('a change of any single byte is noticed, and the error names the object', () => {
  const positions = fc.oneof(fc.nat({ max: sample.bytes.length - 1 }), fc.nat({ max: 200 }));
  fc.assert(
    fc.property(positions, fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = sample.bytes.slice();
      damaged[at]! ^= change;
      const error = faultOf(damaged);
      expect(['segment_foreign', 'segment_truncated', 'segment_corrupt']).toContain(error.code);
      expect(error.objectName).toBe(name);
      expect(error.message).toContain(name);
    }),
    { numRuns: 1_000 },
  );
});

test('a segment cut off anywhere is noticed, and so is one that is too long', () => {
  fc.assert(
    fc.property(fc.oneof(fc.nat({ max: sample.bytes.length - 1 }), fc.nat({ max: 40 })), (length) => {
      const error = faultOf(sample.bytes.slice(0, length));
      expect(error.code).toBe(length === 0 ? 'segment_foreign' : 'segment_truncated');
      expect(error.objectName).toBe(name);
    }),
    { numRuns: 300 },
  );
  const longer = new Uint8Array(sample.bytes.length + 64);
  longer.set(sample.bytes);
  expect(faultOf(longer).code).toBe('segment_corrupt');
});

test('anything else than a segment is foreign', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5_000 }), (bytes) => {
      // What begins as a segment does, be it for one byte, is one that was cut off; nothing at all is no segment.
      const begun =
        bytes.length > 0 &&
        [...'VSEG0001'].every((letter, at) => at >= bytes.length || bytes[at] === letter.charCodeAt(0));
      const code = begun ? 'segment_truncated' : 'segment_foreign';
      expect(faultOf(bytes)).toMatchObject({ code, objectName: name });
    }),
    {
      examples: [
        [new Uint8Array(0)],
        [Uint8Array.from([86])],
        [Uint8Array.from([86, 83])],
        [Uint8Array.from([87])],
      ],
    },
  );
  expect(faultOf(new TextEncoder().encode('{"version": 1}')).code).toBe('segment_foreign');
});
