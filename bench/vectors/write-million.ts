// Fills the index of a collection with random unit vectors, past the plugin but by the product's own segments and
// commit; and finds meanwhile, by a plain loop in double precision, what searches must find.
import type { NsCtx } from '../../functions/core/context.ts';
import type { DocumentBody } from '../../functions/core/resources/documents/store.ts';
import { writeRows } from '../../functions/core/resources/documents/write-rows.ts';
import { commitIndex, putSegment } from '../../functions/core/store/commit-index.ts';
import { openSequence, readHead } from '../../functions/core/store/index-head.ts';
import { segmentRowsMax } from '../../functions/core/vectors/compact.ts';
import type { SegmentRow } from '../../functions/core/vectors/encode-segment.ts';
import { type Addition, documentsUri } from '../../functions/core/vectors/manifest.ts';
import { segmentBytesTarget } from '../../functions/core/vectors/segment-format.ts';
import { paddedDims } from '../../functions/core/vectors/vector.ts';
import { normalNumbers } from '../random.ts';

/** Values of the one column, `group`: a filter by it keeps a tenth of the rows. */
export const groups = 10;

export interface MillionSpec {
  readonly collectionId: string;
  readonly bucketId: string;
  readonly pluginId: string;
  readonly featureUri: string;
  readonly rows: number;
  readonly dims: number;
  readonly seed: number;
  /** How many queries to make. */
  readonly queries: number;
  readonly k: number;
}

export interface Hit {
  readonly id: string;
  readonly score: number;
}

/** A query with what it must find, best first. */
export interface Asked {
  readonly vector: Float32Array;
  readonly all: readonly Hit[];
  /** A value of the column `group`. */
  readonly group: string;
  readonly ofGroup: readonly Hit[];
}

export interface Written {
  readonly asked: readonly Asked[];
  readonly segments: number;
  /** Of the segments with vectors. */
  readonly bytes: number;
  /** Documents that have a row in the table: those that must be found. */
  readonly documentRows: number;
}

const groupOf = (row: number) => `group_${row % groups}`;
const idOf = (row: number) => `doc_${String(row).padStart(20, '0')}`;
/** Nearer scores than this could come in either order, since the product keeps inverse lengths in float32. */
const gapMin = 1e-6;

/** The best of what it was offered, best first; one more than wanted, so that a near tie at the end shows. */
class Best {
  readonly #size: number;
  readonly #hits: { readonly row: number; readonly score: number }[] = [];

  constructor(k: number) {
    this.#size = k + 1;
  }

  offer(row: number, score: number): void {
    const hits = this.#hits;
    if (hits.length === this.#size && score <= hits.at(-1)!.score) return;
    const at = hits.findIndex((hit) => hit.score < score);
    hits.splice(at < 0 ? hits.length : at, 0, { row, score });
    if (hits.length > this.#size) hits.pop();
  }

  /** @throws Error if two scores are too near to say which row comes first */
  take(): Hit[] {
    for (const [i, hit] of this.#hits.entries()) {
      if (i > 0 && this.#hits[i - 1]!.score - hit.score < gapMin)
        throw new Error('two neighbours of a query are equally near for these figures; take another --seed');
    }
    return this.#hits.slice(0, this.#size - 1).map(({ row, score }) => ({ id: idOf(row), score }));
  }

  rows(): number[] {
    return this.#hits.slice(0, this.#size - 1).map(({ row }) => row);
  }
}

function unitVectors(dims: number, seed: number): (into: Float32Array) => void {
  const normal = normalNumbers(seed);
  return (into) => {
    let squared = 0;
    for (let i = 0; i < dims; i += 1) {
      into[i] = normal();
      squared += into[i]! * into[i]!;
    }
    const factor = 1 / Math.sqrt(squared);
    for (let i = 0; i < dims; i += 1) into[i]! *= factor;
  };
}

const lengthOf = (vector: Float32Array) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));

/** Compares rows with all queries, one after the other. */
class Reference {
  readonly queries: readonly Float32Array[];
  readonly best: readonly { readonly all: Best; readonly ofGroup: Best }[];
  readonly #dims: number;
  readonly #wide: readonly Float64Array[];

  constructor({ dims, seed, queries, k }: MillionSpec) {
    const make = unitVectors(dims, seed + 1);
    this.#dims = dims;
    this.queries = Array.from({ length: queries }, () => {
      const vector = new Float32Array(dims);
      make(vector);
      return vector;
    });
    this.#wide = this.queries.map((query) => Float64Array.from(query, (x) => x / lengthOf(query)));
    this.best = this.queries.map(() => ({ all: new Best(k), ofGroup: new Best(k) }));
  }

  compare(row: number, vector: Float32Array): void {
    let squared = 0;
    for (let i = 0; i < this.#dims; i += 1) squared += vector[i]! * vector[i]!;
    const factor = 1 / Math.sqrt(squared);
    for (const [q, query] of this.#wide.entries()) {
      let sum = 0;
      for (let i = 0; i < this.#dims; i += 1) sum += query[i]! * vector[i]!;
      const score = sum * factor;
      const { all, ofGroup } = this.best[q]!;
      all.offer(row, score);
      if (row % groups === q % groups) ofGroup.offer(row, score);
    }
  }
}

/**
 * Writes segments as large as compactions make them, one in memory at a time, and commits them as one batch does.
 *
 * An answer of the API shows those hits only that have a document row. Rows are written for the true neighbours alone:
 * a million more would be never read. A search that finds anything else shows fewer hits than it must.
 *
 * @param say gets a line for each segment
 */
export async function writeMillion(
  ctx: NsCtx,
  spec: MillionSpec,
  say: (line: string) => void,
): Promise<Written> {
  const { collectionId, featureUri, rows, dims } = spec;
  const batch = { batch_id: `btch_${'0'.repeat(20)}`, attempt: 1 };
  const opened = openSequence(ctx, await readHead(ctx, collectionId), batch);
  if (opened.write) await ctx.ports.table.write([opened.write]);

  const make = unitVectors(dims, spec.seed);
  const reference = new Reference(spec);
  const columns = Array.from({ length: groups }, (_, group) => new Map([['group', groupOf(group)]]));
  const additions: Addition[] = [];
  // Codes take a quarter of what the vectors take.
  const perSegment = Math.floor(segmentBytesTarget / (paddedDims(dims) * 5));
  let documents: SegmentRow[] = [];
  const putDocuments = async () => {
    const segment = await putSegment(ctx, collectionId, {
      kind: 'data',
      dims: 0,
      metric: null,
      rows: documents,
    });
    additions.push({ uri: documentsUri, dims: 0, metric: null, segment });
    documents = [];
  };
  let segments = 0;
  let bytes = 0;
  for (let first = 0; first < rows; first += perSegment) {
    const begin = performance.now();
    const count = Math.min(perSegment, rows - first);
    const vectors = new Float32Array(count * dims);
    const found = Array.from({ length: count }, (_, i): SegmentRow => {
      const vector = vectors.subarray(i * dims, (i + 1) * dims);
      make(vector);
      reference.compare(first + i, vector);
      return { id: idOf(first + i), vector, columns: columns[(first + i) % groups] };
    });
    const made = performance.now();
    const segment = await putSegment(ctx, collectionId, {
      kind: 'data',
      dims,
      metric: 'cosine',
      rows: found,
    });
    additions.push({ uri: featureUri, dims, metric: 'cosine', segment });
    segments += 1;
    bytes += segment.bytes;
    const [ours, theirs] = [made - begin, performance.now() - made].map((ms) => (ms / 1000).toFixed(1));
    say(`${first + count} rows: made and compared in ${ours} s, encoded and stored in ${theirs} s`);
    for (const { id, columns: own } of found) {
      documents.push({ id, columns: own });
      if (documents.length === segmentRowsMax) await putDocuments();
    }
  }
  if (documents.length > 0) await putDocuments();

  const asked = reference.queries.map((vector, q): Asked => {
    const { all, ofGroup } = reference.best[q]!;
    return { vector, all: all.take(), group: groupOf(q), ofGroup: ofGroup.take() };
  });
  const neighbours = new Set(
    reference.best.flatMap(({ all, ofGroup }) => [...all.rows(), ...ofGroup.rows()]),
  );
  const result = {
    collection_id: collectionId,
    content_hash: 'bench',
    documents: [...neighbours].map((row) => {
      const object_id = `obj_${String(row).padStart(20, '0')}`;
      const body = JSON.stringify(bodyOf(spec, row, object_id, batch.batch_id));
      return { document_id: idOf(row), object_id, object_version: 1, body };
    }),
  };
  await writeRows(ctx, result, opened.seq, await readHead(ctx, collectionId), true);
  await commitIndex(
    ctx,
    [{ collection_id: collectionId, additions, document_delta: rows, sequence: batch }],
    { token: `${batch.batch_id}.${batch.attempt}` },
  );
  return { asked, segments, bytes, documentRows: neighbours.size };
}

function bodyOf(spec: MillionSpec, row: number, object_id: string, batch_id: string): DocumentBody {
  const { bucketId, featureUri, pluginId } = spec;
  return {
    fields: { group: groupOf(row) },
    lineage: {
      bucket_id: bucketId,
      object_id,
      object_version: 1,
      batch_id,
      feature_extractor_id: pluginId,
      feature_extractor_ids: [pluginId],
      ordinal: 0,
    },
    enrichments: [],
    blobs: [],
    features: [featureUri],
    created_at: '2026-01-01T00:00:00.000Z',
    updated_at: '2026-01-01T00:00:00.000Z',
  };
}
