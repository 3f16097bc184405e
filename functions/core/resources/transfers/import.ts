// Reads a file of documents into a collection: all rows are checked, then written under one sequence as those of a batch
// are, and become visible by one commit.

import { vectorIndexOf } from '../../backends/of-namespace.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError } from '../../errors.ts';
import { jsonLinesSource } from '../../interchange/json-lines.ts';
import { parquetSource } from '../../interchange/parquet-source.ts';
import type { ByteSource, Position, RowSource } from '../../interchange/row.ts';
import { beginning, FileFault } from '../../interchange/row.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import { documentsUri, putSegment, readHead } from '../../store/vector-index.ts';
import { flattenColumns } from '../../vectors/columns.ts';
import type { SegmentRow } from '../../vectors/encode-segment.ts';
import { featuresOf } from '../collections/service.ts';
import type { ChunkSegment } from '../documents/service.ts';
import { createdColumn, writeRows } from '../documents/service.ts';
import type { CheckedRow, RowRules } from './check-rows.ts';
import { checkRow } from './check-rows.ts';
import type { ImportFormat, ImportState } from './store.ts';
import { transferKeys } from './store.ts';

/** Rows and bytes of one set of segments. */
const sliceRowsMax = 10_000;
const sliceBytesMax = 32 * 2 ** 20;
/** Faults that are told; all are counted. */
const faultsTold = 20;

/** A file in the blob bucket that nobody can change any more. */
export function bytesOf(ctx: NsCtx, key: string, bytes: number): ByteSource {
  return {
    bytes,
    async read(offset, length) {
      const found = (await ctx.ports.blobs.get(key, { offset, length })) as Uint8Array<ArrayBuffer>;
      if (found.length !== length)
        throw new FileFault(`The file ends before its byte ${offset + length}, and should have ${bytes}.`);
      return found;
    },
  };
}

/** What a file takes to be read. */
export interface OpenFile {
  readonly source: RowSource;
  /** Bytes that must be held to read its largest piece. */
  readonly pieceBytes: number;
}

/** @throws FileFault */
export async function openFile(bytes: ByteSource, format: ImportFormat, rules: RowRules): Promise<OpenFile> {
  if (format === 'json') return { source: jsonLinesSource(bytes), pieceBytes: 8 * 2 ** 20 };
  const source = await parquetSource(bytes, (column) => rules.feature(column) !== undefined);
  return { source, pieceBytes: source.rowGroupBytes };
}

/** What a look at every row of a file gave. */
export interface Inspection {
  readonly rows: number;
  /** The row that counts of each id: the last one. */
  readonly lastRow: ReadonlyMap<string, number>;
  readonly faultCount: number;
  /** The first of them. */
  readonly faults: readonly FieldFault[];
}

/**
 * Checks every row, storing nothing.
 *
 * @param rowsMax ends early, with `undefined`, when there are more rows
 * @throws FileFault
 */
export async function inspectFile(
  source: RowSource,
  rules: RowRules,
  rowsMax = Number.POSITIVE_INFINITY,
): Promise<Inspection | undefined> {
  const lastRow = new Map<string, number>();
  const faults: FieldFault[] = [];
  let rows = 0;
  let faultCount = 0;
  for await (const found of source.read(beginning)) {
    rows += found.length;
    if (rows > rowsMax) return undefined;
    for (const one of found) {
      const outcome = checkRow(one, rules);
      if (outcome.ok) {
        lastRow.set(outcome.row.id, one.row);
        continue;
      }
      faultCount += outcome.faults.length;
      faults.push(...outcome.faults.slice(0, faultsTold - faults.length));
    }
  }
  return { rows, lastRow, faultCount, faults };
}

/** Puts the segments and rows of some documents; nothing of it is visible before the commit. */
async function writeSlice(
  ctx: NsCtx,
  rules: RowRules,
  slice: readonly CheckedRow[],
  seq: number,
  head: IndexHead,
): Promise<{ segments: ChunkSegment[]; delta: number; withoutVectors: number }> {
  const { collection, importId } = rules;
  const fresh = head.committed_seq === 0 && head.document_count === 0;
  const storage = (await vectorIndexOf(ctx)).storage === 'bfloat16' ? 'bf16' : 'f32';
  const columns = slice.map(({ id, body }) => {
    const flat = flattenColumns(body.fields);
    flat.set(createdColumn, body.created_at);
    // Every document shows these two, so a filter may name them.
    flat.set('document_id', id);
    flat.set('collection_id', collection.id);
    return flat;
  });
  const features = featuresOf(collection);
  const put = async (
    uri: string,
    dims: number,
    metric: ChunkSegment['metric'],
    rows: SegmentRow[],
    tombs: { id: string }[],
  ): Promise<ChunkSegment[]> => {
    if (rows.length === 0 && tombs.length === 0) return [];
    const segment = await putSegment(ctx, collection.id, {
      kind: 'data',
      dims,
      metric,
      rows,
      tombs,
      storage,
    });
    return [{ uri, dims, metric, segment }];
  };
  const segments = await Promise.all([
    ...features.map(({ feature_uri: uri, dims, metric }) => {
      const rows: SegmentRow[] = [];
      // A document that had a vector and has none now must not be found by the old one.
      const tombs: { id: string }[] = [];
      for (const [i, { id, vectors }] of slice.entries()) {
        const vector = vectors.get(uri);
        if (vector) rows.push({ id, vector, columns: columns[i]! });
        else if (!fresh) tombs.push({ id });
      }
      return put(uri, dims, metric, rows, tombs);
    }),
    put(
      documentsUri,
      0,
      null,
      slice.map(({ id }, i) => ({ id, columns: columns[i]! })),
      [],
    ),
  ]);
  crash('import.slice.after_segments');
  const delta = await writeRows(
    ctx,
    {
      collection_id: collection.id,
      // No plugin vouches for an imported document: the next batch over its object makes it anew.
      content_hash: `import:${importId}`,
      documents: slice.map(({ id, body, text, object_version }) => ({
        document_id: id,
        object_id: body.lineage.object_id,
        object_version,
        body: text,
      })),
    },
    seq,
    head,
    fresh,
  );
  const withoutVectors = slice.filter(({ vectors }) => vectors.size < features.length).length;
  return { segments: segments.flat(), delta, withoutVectors };
}

/** What the commit of an import needs. */
export interface WrittenFile {
  readonly segments: readonly ChunkSegment[];
  readonly documents: number;
  readonly document_delta: number;
  readonly without_vectors: number;
}

/**
 * Writes the documents of an inspected file, slice after slice, noting after each how far it is; so a worker that takes
 * over goes on behind the last slice. Repeating a slice changes nothing.
 *
 * @param options.untilMs on the context's clock: no new slice is begun after it
 * @returns undefined when the time was over before the end: call again
 */
export async function writeFile(
  ctx: NsCtx,
  rules: RowRules,
  source: RowSource,
  inspection: Inspection,
  seq: number,
  options: {
    readonly attempt: number;
    readonly untilMs: number;
    readonly note: (done: number) => Promise<void>;
  },
): Promise<WrittenFile | undefined> {
  const { blobs, clock } = ctx.ports;
  const stateKey = transferKeys.state(ctx, rules.importId, options.attempt);
  let state = await getJson<ImportState>(blobs, stateKey).catch((error: unknown): ImportState => {
    if (!(error instanceof BlobMissing)) throw error;
    return { next: beginning, segments: [], documents: 0, document_delta: 0, without_vectors: 0 };
  });
  let slice: CheckedRow[] = [];
  let bytes = 0;
  const flush = async (next: Position): Promise<void> => {
    if (slice.length > 0) {
      const head = await readHead(ctx, rules.collection.id);
      const { segments, delta, withoutVectors } = await writeSlice(ctx, rules, slice, seq, head);
      state = {
        next,
        segments: [...state.segments, ...segments],
        documents: state.documents + slice.length,
        document_delta: state.document_delta + delta,
        without_vectors: state.without_vectors + withoutVectors,
      };
      crash('import.slice.after_rows');
      await blobs.put(stateKey, JSON.stringify(state), { contentType: 'application/json' });
      await options.note(state.documents);
    }
    slice = [];
    bytes = 0;
  };
  let next = state.next;
  for await (const found of source.read(state.next)) {
    for (const one of found) {
      const outcome = checkRow(one, rules);
      // The file was inspected and cannot have changed.
      if (!outcome.ok) throw new AppError('internal_error', { internal: `row ${one.row} was sound before` });
      next = one.after;
      if (inspection.lastRow.get(outcome.row.id) !== one.row) continue;
      slice.push(outcome.row);
      bytes += outcome.row.text.length;
      for (const vector of outcome.row.vectors.values()) bytes += vector.byteLength;
      if (slice.length < sliceRowsMax && bytes < sliceBytesMax) continue;
      await flush(next);
      if (clock.now() > options.untilMs) return undefined;
    }
  }
  await flush(next);
  return {
    segments: state.segments as readonly ChunkSegment[],
    documents: state.documents,
    document_delta: state.document_delta,
    without_vectors: state.without_vectors,
  };
}
