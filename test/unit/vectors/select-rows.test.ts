// A filter asks the columns of a segment once, whatever happens to the index afterwards.
import { expect, test, vi } from 'vitest';
import { parse } from '../../../functions/core/conditions/parse.ts';
import type { ColumnPatch } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { listRows } from '../../../functions/core/vectors/list-rows.ts';
import { appendSegments, documentsUri, emptyManifest } from '../../../functions/core/vectors/manifest.ts';
import { openSegment } from '../../../functions/core/vectors/open-segment.ts';
import { addRowsOf, rowsWithIds } from '../../../functions/core/vectors/select-rows.ts';
import { openSnapshot } from '../../../functions/core/vectors/snapshot.ts';

const shared = { dims: 0, metric: null } as const;

/** Snapshots of a first commit of three documents, and of the commits after it that patch one document each. */
function versions(...patches: readonly (readonly [id: string, columns: ColumnPatch])[]) {
  const data = encodeSegment({
    ...shared,
    kind: 'data',
    rows: ['a', 'b', 'c'].map((id, n) => ({ id, columns: new Map([['n', n]]) })),
  });
  const segment = openSegment(data.bytes, 'seg/0');
  const segments = new Map([['seg/0', segment]]);
  let manifest = appendSegments(emptyManifest(), [
    { uri: documentsUri, ...shared, segment: { ...data.description, key: 'seg/0' } },
  ]);
  const snapshots = [openSnapshot(manifest.features[documentsUri]!, segments)];
  for (const [i, [id, columns]] of patches.entries()) {
    const key = `seg/${i + 1}`;
    const patch = encodeSegment({ ...shared, kind: 'columns', rows: [{ id, columns }] });
    segments.set(key, openSegment(patch.bytes, key));
    manifest = appendSegments(manifest, [{ every: true, segment: { ...patch.description, key } }]);
    snapshots.push(openSnapshot(manifest.features[documentsUri]!, segments));
  }
  return { snapshots, select: vi.spyOn(segment.column('n')!, 'select') };
}

const list = (snapshot: ReturnType<typeof versions>['snapshots'][number], tree: unknown) =>
  listRows(snapshot, { filter: parse(tree), limit: 10, idOrder: 'asc' }).join('');

test('a later version, with patches of the field or of others, looks at the patched rows only', () => {
  const { snapshots, select } = versions(
    ['b', new Map([['other', 'x']])],
    ['a', new Map([['n', 7]])],
    ['c', new Map([['n', undefined]])],
  );
  const positive = { field: 'n', operator: 'gte', value: 1 };
  expect(snapshots.map((snapshot) => list(snapshot, positive))).toEqual(['bc', 'bc', 'abc', 'ab']);
  expect(select).toHaveBeenCalledTimes(1);
});

test('a negated filter gets its patched rows from the same bitmap as the filter that it negates', () => {
  const { snapshots, select } = versions(['a', new Map([['n', 1]])], ['b', new Map([['n', 2]])]);
  const last = snapshots.at(-1)!;
  expect(list(last, { field: 'n', operator: 'eq', value: 1 })).toBe('a');
  expect(list(last, { field: 'n', operator: 'ne', value: 1 })).toBe('bc');
  expect(select).toHaveBeenCalledTimes(1);
});

test('rows are found by id, and the rows of one snapshot in another', () => {
  const { snapshots } = versions(['a', new Map([['n', 5]])]);
  const [first, last] = [snapshots[0]!, snapshots[1]!];
  const bits = rowsWithIds(last, ['c', 'nobody', 'c']);
  expect(bits.map((part) => [...part])).toEqual([[0b100]]);
  addRowsOf(last, bits, first, rowsWithIds(first, ['a']));
  expect(bits.map((part) => [...part])).toEqual([[0b101]]);
});
