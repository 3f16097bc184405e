// Writes the documents of a collection to a file: ids, filter and vectors of one version of the index, documents read
// beside it, group after group, so that memory does not grow with the collection.
import { createHash } from 'node:crypto';
import { isoTime } from '../../clock.ts';
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, fields as fieldsOfCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { csvWriter } from '../../interchange/csv.ts';
import { jsonLinesWriter } from '../../interchange/json-lines.ts';
import { parquetRowWriter } from '../../interchange/parquet-writer.ts';
import type { ExchangeRow, JsonObject, RowWriter, VectorColumn } from '../../interchange/row.ts';
import { layoutOf } from '../../interchange/row.ts';
import { parseFilters } from '../../page.ts';
import { documentsUri, type IndexView, openIndex, readHead, reading } from '../../store/vector-index.ts';
import type { ColumnValue } from '../../vectors/columns.ts';
import { flattenColumns } from '../../vectors/columns.ts';
import { listRows } from '../../vectors/list-rows.ts';
import { vectorsAt } from '../../vectors/read-vectors.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featuresOf } from '../collections/service.ts';
import type { StoredDocument } from '../documents/service.ts';
import { getDocuments } from '../documents/service.ts';
import type { ExportRequest, ExportResult } from './store.ts';
import { transferKeys } from './store.ts';

/** Documents that are read at once. */
const documentsAtOnce = 256;
/** A group of rows ends at either; a row group of a Parquet file is one such group. */
const groupBytesMax = 8 * 2 ** 20;
const groupRowsMax = 10_000;

/** The field at the root of documents that a name means. */
const rootOf = (name: string) => canonicalField(name).split('.', 1)[0]!;

/** So many ids, spread evenly by a hash: the same ones each time, whatever the order. */
function sampleOf(ids: readonly string[], size: number): string[] {
  if (ids.length <= size) return [...ids];
  const hash = (id: string) => createHash('sha256').update(id).digest('base64');
  const hashed = ids.map((id) => ({ id, at: hash(id) }));
  hashed.sort((a, b) => (a.at < b.at ? -1 : 1));
  return hashed.slice(0, size).map(({ id }) => id);
}

/** Who changed documents while they were read has replaced one twice: ids and vectors are not those of its row. */
class Overtaken extends Error {}

interface Source {
  readonly view: IndexView;
  readonly documents: Snapshot | undefined;
  /** In the order of the rows of the first feature, so that vectors lie side by side. */
  readonly ids: readonly string[];
  readonly vectors: readonly VectorColumn[];
  readonly snapshots: readonly (Snapshot | undefined)[];
}

async function openSource(ctx: NsCtx, collection: StoredCollection, request: ExportRequest): Promise<Source> {
  const filter = parseFilters(
    request.filters === null ? null : JSON.parse(request.filters),
    request.case_sensitive,
  );
  const view = await openIndex(ctx, collection.id);
  const documents = await view.snapshot(documentsUri);
  const features = featuresOf(collection).map(
    ({ feature_uri: uri, dims, metric }): VectorColumn => ({ uri, dims, metric }),
  );
  const snapshots: (Snapshot | undefined)[] = [];
  if (request.include_vectors) for (const { uri } of features) snapshots.push(await view.snapshot(uri));
  const selected = documents
    ? listRows(documents, {
        ...(filter ? { filter } : {}),
        idOrder: 'asc',
        limit: Number.MAX_SAFE_INTEGER,
      })
    : [];
  const ids = request.sample_size === null ? selected : sampleOf(selected, request.sample_size);
  const first = snapshots[0] ?? documents;
  if (first) {
    const rows = new Map(ids.map((id) => [id, first.rowOf(id) ?? Number.MAX_SAFE_INTEGER]));
    ids.sort((a, b) => rows.get(a)! - rows.get(b)! || (a < b ? -1 : 1));
  }
  if (documents) warnUnknown(ctx, documents, filter, request.select_fields ?? []);
  return { view, documents, ids, vectors: request.include_vectors ? features : [], snapshots };
}

function warnUnknown(
  ctx: NsCtx,
  documents: Snapshot,
  filter: Condition | undefined,
  selected: readonly string[],
): void {
  const known = documents.fields();
  const isKnown = (field: string) =>
    known.has(field) || [...known].some((name) => name.startsWith(`${field}.`));
  const warn = (text: string) => {
    if (!ctx.warnings.includes(text)) ctx.warnings.push(text);
  };
  for (const field of filter ? fieldsOfCondition(filter) : [])
    if (!isKnown(field)) warn(`No document has the field "${field}" of the filter.`);
  for (const field of selected)
    if (!isKnown(canonicalField(field))) warn(`No document has the field "${field}" of select_fields.`);
}

/** What a file says of a document beside its fields; an import takes it over. */
function internalOf(document: StoredDocument, vectors: readonly VectorColumn[]): JsonObject {
  const { lineage, enrichments, blobs, long_texts, created_at, updated_at, source_version } = document;
  return JSON.parse(
    JSON.stringify({
      lineage,
      enrichments,
      blobs,
      ...(long_texts ? { long_texts } : {}),
      object_version: source_version,
      created_at,
      updated_at,
      // A file says for which distance its vectors were made.
      ...(vectors.length > 0 ? { metrics: Object.fromEntries(vectors.map((v) => [v.uri, v.metric])) } : {}),
    }),
  ) as JsonObject;
}

function sameColumn(a: ColumnValue | undefined, b: ColumnValue | undefined): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Whether the fields are still those that the index has of the document. */
function isOfVersion(documents: Snapshot, document: StoredDocument): boolean {
  const row = documents.rowOf(document.document_id);
  if (row === undefined) return false;
  const indexed = documents.columnsAt(row);
  const now = flattenColumns(document.fields);
  for (const [name, value] of now) if (!sameColumn(indexed.get(name), value)) return false;
  for (const name of indexed.keys())
    if (!now.has(name) && !name.startsWith('_internal') && name !== 'document_id' && name !== 'collection_id')
      return false;
  return true;
}

interface Counters {
  rows: number;
  changed: number;
}

async function* groupsOf(
  ctx: NsCtx,
  collection: StoredCollection,
  source: Source,
  request: ExportRequest,
  count: Counters,
): AsyncGenerator<ExchangeRow[]> {
  const { view, documents, ids, vectors, snapshots } = source;
  const heads = new Map([[collection.id, view.head]]);
  const selected = request.select_fields === null ? undefined : new Set(request.select_fields.map(rootOf));
  let group: ExchangeRow[] = [];
  let bytes = 0;
  for (let at = 0; at < ids.length; at += documentsAtOnce) {
    const some = ids.slice(at, at + documentsAtOnce);
    const refs = some.map((document_id) => ({ collection_id: collection.id, document_id }));
    const [found, ...byFeature] = await Promise.all([
      getDocuments(ctx, refs, heads),
      ...snapshots.map(async (snapshot) =>
        snapshot ? reading(() => vectorsAt(snapshot, some)) : some.map(() => undefined),
      ),
    ]);
    const moved = (await readHead(ctx, collection.id)).version !== view.head.version;
    const missing = refs.filter((_, i) => found[i] === undefined);
    if (missing.length > 0) {
      // Deleted since; unless two batches replaced it, then what was visible is not kept.
      const now = await getDocuments(ctx, missing);
      if (now.some((document) => document !== undefined)) throw new Overtaken();
      count.changed += missing.length;
    }
    for (const [i, document] of found.entries()) {
      if (!document) continue;
      if (moved && !isOfVersion(documents!, document)) count.changed++;
      const fields = selected
        ? Object.fromEntries(Object.entries(document.fields).filter(([name]) => selected.has(name)))
        : document.fields;
      const own = new Map<string, Float32Array>();
      for (const [f, { uri }] of vectors.entries()) {
        const vector = byFeature[f]![i];
        if (vector) own.set(uri, vector);
      }
      const internal = internalOf(
        document,
        vectors.filter(({ uri }) => own.has(uri)),
      );
      group.push({ id: document.document_id, fields, vectors: own, internal });
      bytes += JSON.stringify(fields).length + JSON.stringify(internal).length;
      for (const vector of own.values()) bytes += vector.byteLength;
    }
    if (bytes >= groupBytesMax || group.length >= groupRowsMax) {
      count.rows += group.length;
      yield group;
      group = [];
      bytes = 0;
    }
  }
  count.rows += group.length;
  if (group.length > 0) yield group;
}

function writerFor(
  collection: StoredCollection,
  source: Source,
  request: ExportRequest,
  first: readonly ExchangeRow[],
  exportedAt: string,
): RowWriter {
  if (request.format === 'json') return jsonLinesWriter();
  const selected = request.select_fields?.map(rootOf);
  const names = new Set([...(source.documents?.fields() ?? [])].map((name) => name.split('.', 1)[0]!));
  for (const own of ['document_id', 'collection_id', '_internal']) names.delete(own);
  const layout = layoutOf(
    first,
    selected ? selected.filter((name) => names.has(name)) : names,
    source.vectors,
  );
  if (request.format === 'csv') return csvWriter(layout);
  return parquetRowWriter(layout, {
    collection_id: collection.id,
    index_version: source.view.head.version,
    exported_at: exportedAt,
  });
}

async function writeOnce(
  ctx: NsCtx,
  collection: StoredCollection,
  exportId: string,
  request: ExportRequest,
  note: (done: number, total: number) => Promise<void>,
): Promise<ExportResult> {
  const source = await openSource(ctx, collection, request);
  const count: Counters = { rows: 0, changed: 0 };
  const exportedAt = isoTime(ctx.ports.clock.now());
  const groups = groupsOf(ctx, collection, source, request, count);
  const { value: first = [] } = (await groups.next()) as { value?: ExchangeRow[] };
  const writer = writerFor(collection, source, request, first, exportedAt);
  async function* bytes(): AsyncGenerator<Uint8Array> {
    yield writer.begin();
    yield writer.write(first);
    await note(count.rows, source.ids.length);
    for await (const group of groups) {
      yield writer.write(group);
      await note(count.rows, source.ids.length);
    }
    yield writer.end();
  }
  const key = transferKeys.export(ctx, exportId, `${collection.name}.${writer.extension}`);
  const stored = await ctx.ports.blobs.putStream(key, bytes(), { contentType: writer.contentType });
  return {
    key,
    document_count: count.rows,
    file_size_bytes: stored.bytes,
    index_version: source.view.head.version,
    documents_changed: count.changed,
  };
}

/**
 * Writes the file of an export.
 *
 * Which documents, and their vectors, are those of one version of the index. Documents have no versions: one that is
 * patched or deleted while the file is written has its newer fields in it, or is left out, and is counted. Then the
 * file is written again, `passes` times at most, to get one that nobody disturbed.
 *
 * @param note called after each group with the documents done and in all
 * @throws AppError request_invalid (filter), index_unavailable, index_corrupt, index_contended (batches replace the
 *   documents faster than they can be read)
 */
export async function writeExport(
  ctx: NsCtx,
  collection: StoredCollection,
  exportId: string,
  request: ExportRequest,
  options: {
    readonly passes: number;
    readonly note?: (done: number, total: number) => Promise<void>;
  },
): Promise<ExportResult> {
  const note = options.note ?? (async () => {});
  for (let pass = 1; ; pass++) {
    try {
      const result = await writeOnce(ctx, collection, exportId, request, note);
      if (result.documents_changed === 0 || pass >= options.passes) return result;
    } catch (error) {
      if (!(error instanceof Overtaken)) throw error;
      if (pass >= options.passes) {
        throw new AppError('index_contended', {
          detail:
            'Batches replace the documents of the collection faster than they can be exported; try again later.',
          retryAfterSeconds: 60,
          cause: error,
        });
      }
    }
  }
}
