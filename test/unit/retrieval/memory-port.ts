// A search port over a few documents in memory: scans everything, forgets nothing, and counts what it was asked.
import { evaluate, flattenFields } from '../../../functions/core/conditions/index.ts';
import { byScore } from '../../../functions/core/retrieval/fusion.ts';
import { compareByKeys } from '../../../functions/core/retrieval/order.ts';
import type {
  DocumentRef,
  FacetRequest,
  ListRequest,
  ResolvedFeature,
  RetrievedDocument,
  SearchPort,
  SearchRequest,
} from '../../../functions/core/retrieval/ports.ts';

export interface MemoryDocument {
  readonly document_id: string;
  readonly collection_id?: string;
  readonly fields?: Readonly<Record<string, unknown>>;
  /** By feature URI. */
  readonly vectors?: Readonly<Record<string, readonly number[]>>;
}

export interface MemoryFeature {
  readonly dims: number;
  readonly metric?: ResolvedFeature['metric'];
  /** @default text */
  readonly made_of?: ResolvedFeature['made_of'];
  /** What the extractor makes of a text; undefined = no vector. */
  readonly embed?: (text: string) => readonly number[] | undefined;
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += (a[i] as number) * (b[i] as number);
  return sum;
};

function scoreOf(
  metric: ResolvedFeature['metric'],
  query: ArrayLike<number>,
  vector: ArrayLike<number>,
): number {
  if (metric === 'dot') return dot(query, vector);
  if (metric === 'euclid') return -(dot(query, query) - 2 * dot(query, vector) + dot(vector, vector));
  const norms = Math.sqrt(dot(query, query) * dot(vector, vector));
  return norms === 0 ? 0 : dot(query, vector) / norms;
}

/** The calls that a port received, for tests that promise how many there are. */
export interface Calls {
  embed: { feature_uri: string; texts: readonly string[] }[];
  search: SearchRequest[];
  list: ListRequest[];
  facets: FacetRequest[];
  documents: (readonly DocumentRef[])[];
}

export function memoryPort(
  features: Readonly<Record<string, MemoryFeature>>,
  documents: readonly MemoryDocument[],
): SearchPort & { calls: Calls; remove(documentId: string): void } {
  const calls: Calls = { embed: [], search: [], list: [], facets: [], documents: [] };
  const removed = new Set<string>();
  const rows = documents.map((row) => ({
    ...row,
    collection_id: row.collection_id ?? 'col_1',
    document: {
      document_id: row.document_id,
      collection_id: row.collection_id ?? 'col_1',
      ...row.fields,
      metadata: { ...row.fields },
      _internal: { lineage: { object_id: `obj_${row.document_id}` } },
    } as RetrievedDocument,
  }));
  const feature = (uri: string) => {
    const found = features[uri];
    if (!found) throw new Error(`the test has no feature ${uri}`);
    return found;
  };
  return {
    calls,
    remove: (documentId) => removed.add(documentId),
    async resolveFeature(uri, identifiers) {
      const holding = rows.filter((row) => row.vectors?.[uri]).map((row) => row.collection_id);
      const collection_ids = [...new Set(holding)].filter((id) => !identifiers || identifiers.includes(id));
      if (!features[uri] || collection_ids.length === 0) return undefined;
      const { dims, metric = 'cosine', made_of = 'text' } = features[uri];
      return { collection_ids, dims, metric, made_of };
    },
    async loadContent(source, mimeType) {
      if (source === 'broken') return { fault: { type: 'query_content_invalid', message: 'it is broken' } };
      const bytes = Buffer.from(source);
      return { bytes, mime_type: mimeType ?? 'application/octet-stream', digest: source };
    },
    async embed(feature_uri, queries) {
      const texts = queries.map((query) => (typeof query === 'string' ? query : `file ${query.digest}`));
      calls.embed.push({ feature_uri, texts });
      return texts.map((text) => {
        const vector = feature(feature_uri).embed?.(text);
        return vector ? Float32Array.from(vector) : undefined;
      });
    },
    async vectorOf(uri, { document_id, collection_id }) {
      const row = rows.find(
        (candidate) =>
          candidate.document_id === document_id &&
          (collection_id === undefined || candidate.collection_id === collection_id),
      );
      const vector = row?.vectors?.[uri];
      return vector ? Float32Array.from(vector) : undefined;
    },
    async search(request) {
      calls.search.push(request);
      const { feature_uri, filter, include, min_score } = request;
      const eligible = rows.filter(
        (row) =>
          row.vectors?.[feature_uri] &&
          request.collection_ids.includes(row.collection_id) &&
          (!filter || evaluate(filter, row.document)) &&
          (!include || include.some((ref) => ref.document_id === row.document_id)),
      );
      const hits = request.vectors.map((vector, index) =>
        eligible
          .filter((row) => !request.exclude?.[index]?.includes(row.document_id))
          .map(({ document_id, collection_id, vectors }) => ({
            document_id,
            collection_id,
            score: scoreOf(feature(feature_uri).metric ?? 'cosine', vector, vectors![feature_uri]!),
          }))
          .filter(({ score }) => min_score === undefined || score >= min_score)
          .sort(byScore)
          .slice(0, request.k),
      );
      return {
        hits,
        stats: { bytes_scanned: eligible.length, shards: 1, exact: true, rows_selected: eligible.length },
      };
    },
    async list(request) {
      calls.list.push(request);
      const compare = compareByKeys(request.sort);
      const selected = rows
        .filter((row) => !request.filter || evaluate(request.filter, row.document))
        .map((row) => {
          const fields = flattenFields(row.document);
          return { ...row, score: 0, field: (name: string) => fields.get(name) };
        })
        .sort(compare);
      const page = selected.slice(request.offset, request.offset + request.limit);
      return {
        documents: page.map(({ document_id, collection_id }) => ({ document_id, collection_id })),
        total: selected.length,
      };
    },
    async facets(request) {
      calls.facets.push(request);
      const { scopes, include, fields } = request;
      const selected = rows.filter(
        (row) =>
          (!include || include.some((ref) => ref.document_id === row.document_id)) &&
          scopes.some(
            ({ feature_uri, collection_ids, filter }) =>
              (feature_uri === undefined || row.vectors?.[feature_uri]) &&
              (!collection_ids || collection_ids.includes(row.collection_id)) &&
              (!filter || evaluate(filter, row.document)),
          ),
      );
      return {
        facets: fields.map(({ key, limit }) => {
          const held = selected.map((row) => flattenFields(row.document).get(key));
          const values = held.flatMap((value) => (value === undefined ? [] : [...new Set([value].flat())]));
          const counts = Map.groupBy(values, (value) => value as string);
          return {
            key,
            values: [...counts]
              .map(([value, same]) => ({ value, count: same.length }))
              .sort((a, b) => b.count - a.count || (a.value < b.value ? -1 : 1))
              .slice(0, limit),
            missing_count: held.filter((value) => value === undefined).length,
            total_values: counts.size,
          };
        }),
      };
    },
    async documents(refs) {
      calls.documents.push(refs);
      return refs.map(({ document_id }) =>
        removed.has(document_id) ? undefined : rows.find((row) => row.document_id === document_id)?.document,
      );
    },
  };
}
