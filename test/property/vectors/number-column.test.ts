// A column of numbers selects the rows that the comparison accepts one by one, by whichever way it does so.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { hasBit } from '../../../functions/core/vectors/bits.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { appendSegments, documentsUri, emptyManifest } from '../../../functions/core/vectors/manifest.ts';
import { openSegment } from '../../../functions/core/vectors/open-segment.ts';
import { selectRows } from '../../../functions/core/vectors/select-rows.ts';
import { openSnapshot } from '../../../functions/core/vectors/snapshot.ts';

// Close to each other and to whole numbers, far apart, and where a difference of two is rounded.
const number = fc.oneof(
  fc.integer({ min: -40, max: 40 }),
  fc.constantFrom(0.5, -0.5, 1e-300, -1e-300, 2 ** 53, 2 ** 53 - 1, 1e17, -1e17, 65_535, 65_536, 1e308),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
);
const column = fc.array(fc.option(number, { nil: undefined }), { minLength: 1, maxLength: 100 });

test('membership and bounds over a column are what JavaScript says of each number', () => {
  fc.assert(
    fc.property(column, fc.array(number, { maxLength: 8 }), number, (values, members, bound) => {
      const { bytes, description } = encodeSegment({
        kind: 'data',
        dims: 0,
        metric: null,
        rows: values.map((value, i) => ({
          id: `doc_${i}`,
          columns: value === undefined ? new Map() : new Map([['x', value]]),
        })),
      });
      const { features } = appendSegments(emptyManifest(), [
        { uri: documentsUri, dims: 0, metric: null, segment: { ...description, key: 'seg/0' } },
      ]);
      const segments = new Map([['seg/0', openSegment(bytes, 'seg/0')]]);
      const snapshot = openSnapshot(features[documentsUri]!, segments);
      const selects = (operator: string, value: unknown, holds: (x: number) => boolean) => {
        const [bits] = selectRows(snapshot, parse({ field: 'x', operator, value }));
        const found = values.map((_, row) => hasBit(bits!, row));
        expect(found).toEqual(values.map((x) => x !== undefined && holds(x)));
      };
      selects('in', members, (x) => members.some((member) => member === x));
      selects('eq', bound, (x) => x === bound);
      selects('gt', bound, (x) => x > bound);
      selects('gte', bound, (x) => x >= bound);
      selects('lt', bound, (x) => x < bound);
      selects('lte', bound, (x) => x <= bound);
    }),
    // The difference of -1e-300 and -1 is rounded to a whole number.
    { numRuns: 500, examples: [[[-1e-300, 1e-300, -1], [-1, 0], 0]] },
  );
});
