// Random histories of one collection: commits of documents, patches and deletions, and what the documents are after them.
import fc from 'fast-check';
import { diffColumns, flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment, type SegmentInput } from '../../../functions/core/vectors/encode-segment.ts';
import { appendSegments, documentsUri, emptyManifest } from '../../../functions/core/vectors/manifest.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { openSnapshot, type Snapshot } from '../../../functions/core/vectors/snapshot.ts';
import { type Document, document } from './model.ts';

const idOf = (i: number) => `doc_${String(i).padStart(3, '0')}`;

/** One commit. A patch of a document that is not there changes nothing. */
export type Step =
  | { readonly kind: 'upsert' | 'patch'; readonly rows: readonly (readonly [number, Document])[] }
  | { readonly kind: 'delete'; readonly ids: readonly number[] };

const number = fc.nat({ max: 19 });
const rows = fc.array(fc.tuple(number, document), { minLength: 1, maxLength: 12 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('upsert' as const), rows }),
  fc.record({ kind: fc.constant('patch' as const), rows }),
  fc.record({ kind: fc.constant('delete' as const), ids: fc.array(number, { minLength: 1, maxLength: 4 }) }),
);

/** Commits the steps one by one, and keeps beside them what each document is. */
export function play(steps: readonly Step[]): { snapshots: Snapshot[]; now: Map<string, Document> } {
  const now = new Map<string, Document>();
  const segments = new Map<string, Segment>();
  const snapshots: Snapshot[] = [];
  let manifest = emptyManifest();
  steps.forEach((each, i) => {
    const key = `seg/${i}`;
    const shared = { dims: 0, metric: null } as const;
    let input: SegmentInput;
    if (each.kind === 'delete') {
      const ids = [...new Set(each.ids)].map(idOf);
      for (const id of ids) now.delete(id);
      input = { ...shared, kind: 'delta', rows: [], tombs: ids.map((id) => ({ id })) };
    } else if (each.kind === 'upsert') {
      for (const [n, next] of each.rows) now.set(idOf(n), next);
      input = {
        ...shared,
        kind: 'data',
        rows: each.rows.map(([n, next]) => ({ id: idOf(n), columns: flattenColumns(next) })),
      };
    } else {
      const changed = each.rows.flatMap(([n, next]) => {
        const before = now.get(idOf(n));
        if (before === undefined) return [];
        now.set(idOf(n), next);
        return [{ id: idOf(n), columns: diffColumns(flattenColumns(before), flattenColumns(next)) }];
      });
      if (changed.length === 0) return;
      input = { ...shared, kind: 'columns', rows: changed };
    }
    const { bytes, description } = encodeSegment(input);
    segments.set(key, openSegment(bytes, key));
    const segment = { ...description, key };
    manifest = appendSegments(
      manifest,
      each.kind === 'upsert' || i === 0
        ? [{ uri: documentsUri, ...shared, segment }]
        : [{ every: true, segment }],
    );
    const feature = manifest.features[documentsUri];
    if (feature) snapshots.push(openSnapshot(feature, segments));
  });
  return { snapshots, now };
}

const first = fc.record({ kind: fc.constant('upsert' as const), rows });
/** A first commit of documents, then some of any kind. */
export const history: fc.Arbitrary<Step[]> = fc
  .tuple(first, fc.array(step, { maxLength: 5 }))
  .map(([begin, rest]) => [begin, ...rest]);
