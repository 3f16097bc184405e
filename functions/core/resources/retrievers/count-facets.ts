// Facets of a run: the values of fields over every document that its searches let through, in all collections together.
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, conditionKey, fields as fieldsOf } from '../../conditions/index.ts';
import type { Degradation, FacetReply, FacetRequest, FacetScope } from '../../retrieval/index.ts';
import { guarded } from '../../store/guarded.ts';
import { documentsUri } from '../../store/vector-index.ts';
import type { Bits } from '../../vectors/bits.ts';
import { andInto } from '../../vectors/bits.ts';
import { facetOf, mergeTallies, tallyValues } from '../../vectors/facets.ts';
import { addRowsOf, rowsWithIds, selectRows, unknownNames, unknownToAll } from '../../vectors/select-rows.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';

/** What is counted over. */
export interface FacetSource {
  /** Collections of a scope that names none. */
  readonly collectionIds: readonly string[];
  /** Snapshots of those collections that have one; what cannot be read only where that is allowed. */
  readonly snapshots: (
    collectionIds: readonly string[],
    uri: string,
    allowPartial: boolean,
  ) => Promise<{ readonly read: readonly [string, Snapshot][]; readonly degraded: readonly Degradation[] }>;
}

/** Rows of one collection. */
interface Selected {
  readonly collectionId: string;
  readonly snapshot: Snapshot;
  readonly bits: readonly Bits[];
  /** What selected them. */
  readonly filters: readonly Condition[];
}

/**
 * Counts exactly, over the whole selection; see `FacetRequest`.
 *
 * @throws AppError index_unavailable, index_corrupt
 */
export async function countFacets(request: FacetRequest, source: FacetSource): Promise<FacetReply> {
  const { fields, include } = request;
  const names = fields.map(({ key }) => canonicalField(key));
  const { parts, degraded } = await select(request.scopes, source, request.allow_partial);
  const unknown: (readonly string[])[] = [];
  const tallies = parts.map(({ collectionId, snapshot, bits, filters }) =>
    guarded(() => {
      unknown.push(unknownNames(snapshot, [...filters.flatMap((filter) => fieldsOf(filter)), ...names]));
      const ids = include
        ?.filter((ref) => ref.collection_id === collectionId)
        .map(({ document_id }) => document_id);
      const only = ids && rowsWithIds(snapshot, ids);
      const rows = only ? only.map((part, i) => andInto(part, bits[i]!)) : bits;
      return names.map((name) => tallyValues(snapshot, name, rows));
    }),
  );
  return {
    facets: fields.map((field, i) => facetOf(field, mergeTallies(tallies.map((own) => own[i]!)))),
    unknown_fields: unknownToAll(unknown),
    ...(degraded.length > 0 ? { degraded } : {}),
  };
}

/** By collection, the rows that any of the scopes selects, in one snapshot that has them all. */
async function select(
  scopes: readonly FacetScope[],
  { collectionIds, snapshots }: FacetSource,
  allowPartial: boolean,
): Promise<{ readonly parts: readonly Selected[]; readonly degraded: readonly Degradation[] }> {
  const distinct = new Map(
    scopes.map((scope) => {
      const { feature_uri: uri = documentsUri, collection_ids: ids = collectionIds, filter } = scope;
      return [JSON.stringify([uri, ids, filter ? conditionKey(filter) : null]), { uri, ids, filter }];
    }),
  );
  const read = await Promise.all(
    [...distinct.values()].map(async ({ uri, ids, filter }) => ({
      filter,
      ...(await snapshots(ids, uri, allowPartial)),
    })),
  );
  const degraded = read.flatMap((scope) => scope.degraded);
  const [only] = read;
  if (only && read.length === 1) {
    const { filter } = only;
    const parts = only.read.map(([collectionId, snapshot]): Selected => {
      const bits = guarded(() => selectRows(snapshot, filter));
      return { collectionId, snapshot, bits, filters: filter ? [filter] : [] };
    });
    return { parts, degraded };
  }
  // Rows of different features have different numbers; what they share are the ids of the documents.
  const ids = [...new Set(read.flatMap((scope) => scope.read.map(([id]) => id)))];
  const documents = await snapshots(ids, documentsUri, allowPartial);
  const parts = documents.read.map(([collectionId, snapshot]): Selected => {
    const bits = rowsWithIds(snapshot, []);
    const filters: Condition[] = [];
    for (const { filter, read: found } of read) {
      const own = found.find(([id]) => id === collectionId)?.[1];
      if (!own) continue;
      if (filter) filters.push(filter);
      guarded(() => addRowsOf(snapshot, bits, own, selectRows(own, filter)));
    }
    return { collectionId, snapshot, bits, filters };
  });
  return { parts, degraded: [...degraded, ...documents.degraded] };
}
