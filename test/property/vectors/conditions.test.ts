// A condition means the same over a document, over columns, and over columns that were patched.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { evaluate } from '../../../functions/core/conditions/evaluate.ts';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { diffColumns, flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { listRows } from '../../../functions/core/vectors/list-rows.ts';
import { appendSegments, documentsUri, emptyManifest } from '../../../functions/core/vectors/manifest.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { count } from '../../../functions/core/vectors/select-rows.ts';
import { columnsOf, openSnapshot } from '../../../functions/core/vectors/snapshot.ts';
import { conditionTree, type Document, document, naiveEvaluate } from './model.ts';

const idOf = (i: number) => `doc_${String(i).padStart(3, '0')}`;

test('evaluate agrees with a second, naive reading of the rules for every document', () => {
  fc.assert(
    fc.property(conditionTree, fc.array(document, { maxLength: 5 }), (tree, documents) => {
      const condition = parse(tree);
      for (const each of documents) expect(evaluate(condition, each)).toBe(naiveEvaluate(tree, each));
    }),
    { numRuns: 1_500 },
  );
});

test('a filter over columns selects exactly the documents that evaluate accepts', () => {
  fc.assert(
    fc.property(
      fc.array(document, { maxLength: 40 }),
      fc.array(conditionTree, { minLength: 1, maxLength: 6 }),
      (documents, trees) => {
        const { bytes, description } = encodeSegment({
          kind: 'data',
          dims: 0,
          metric: null,
          rows: documents.map((each, i) => ({ id: idOf(i), columns: flattenColumns(each) })),
        });
        const segment = { ...description, key: 'seg/a' };
        const manifest = appendSegments(emptyManifest(), [
          { uri: documentsUri, dims: 0, metric: null, segment },
        ]);
        const open = openSegment(bytes, 'seg/a', description);
        const snapshot = openSnapshot(manifest.features[documentsUri]!, new Map([['seg/a', open]]));
        for (const tree of trees) {
          const condition = parse(tree);
          const expected = documents.flatMap((each, i) => (evaluate(condition, each) ? [idOf(i)] : []));
          expect(listRows(snapshot, { filter: condition, limit: 1_000, idOrder: 'asc' })).toEqual(expected);
          expect(count(snapshot, condition)).toBe(expected.length);
        }
      },
    ),
    { numRuns: 250 },
  );
});

test('after patches a filter selects exactly the documents as they are now', () => {
  const change = fc.tuple(fc.nat({ max: 9 }), document);
  fc.assert(
    fc.property(
      fc.array(document, { minLength: 1, maxLength: 10 }),
      fc.array(fc.array(change, { minLength: 1, maxLength: 6 }), { maxLength: 3 }),
      fc.array(conditionTree, { minLength: 1, maxLength: 4 }),
      (documents, commits, trees) => {
        const now: Document[] = [...documents];
        const segments = new Map<string, Segment>();
        const first = encodeSegment({
          kind: 'data',
          dims: 0,
          metric: null,
          rows: documents.map((each, i) => ({ id: idOf(i), columns: flattenColumns(each) })),
        });
        segments.set('seg/0', openSegment(first.bytes, 'seg/0'));
        let manifest = appendSegments(emptyManifest(), [
          { uri: documentsUri, dims: 0, metric: null, segment: { ...first.description, key: 'seg/0' } },
        ]);
        commits.forEach((changes, i) => {
          const key = `seg/${i + 1}`;
          const rows = changes.map(([n, next]) => {
            const row = n % now.length;
            const columns = diffColumns(flattenColumns(now[row]), flattenColumns(next));
            now[row] = next;
            return { id: idOf(row), columns };
          });
          const patch = encodeSegment({ kind: 'columns', dims: 0, metric: null, rows });
          segments.set(key, openSegment(patch.bytes, key));
          manifest = appendSegments(manifest, [{ every: true, segment: { ...patch.description, key } }]);
        });
        const snapshot = openSnapshot(manifest.features[documentsUri]!, segments);
        now.forEach((each, i) => {
          expect(columnsOf(snapshot, idOf(i))).toEqual(flattenColumns(each));
        });
        expect(snapshot.fields()).toEqual(new Set(now.flatMap((each) => [...flattenColumns(each).keys()])));
        for (const tree of trees) {
          const condition = parse(tree);
          const expected = now.flatMap((each, i) => (evaluate(condition, each) ? [idOf(i)] : []));
          expect(listRows(snapshot, { filter: condition, limit: 1_000, idOrder: 'asc' })).toEqual(expected);
        }
      },
    ),
    { numRuns: 200 },
  );
});
