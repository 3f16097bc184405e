// The engine's way out for stored data: features of collections, vectors of queries, the index, documents. Everything
// that one run reads is read once, as early as somebody knows that it will be needed.
import { canonicalField, fields as fieldsOf } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { AppError, invalid, isAppError } from '../../errors.ts';
import { byScore } from '../../retrieval/fusion.ts';
import type {
  Degradation,
  DocumentOptions,
  DocumentRef,
  EnrichedDocument,
  EnrichRequest,
  FacetReply,
  FacetRequest,
  ListReply,
  ListRequest,
  QueryContent,
  ResolvedFeature,
  RetrievedDocument,
  ScoredId,
  SearchPort,
  SearchReply,
  SearchRequest,
} from '../../retrieval/index.ts';
import { compareByKeys } from '../../retrieval/index.ts';
import { guarded } from '../../store/guarded.ts';
import { documentsUri, reading } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import { count, unknownNames, unknownToAll } from '../../vectors/select-rows.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import { vectorOf } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { canonicalJson, featureOf, featuresOf, madeOf } from '../collections/service.ts';
import { getDocuments, presentWithBlobs } from '../documents/service.ts';
import { countFacets } from './count-facets.ts';
import type { TextFailure } from './embed.ts';
import { embedFault, embedQueries } from './embed.ts';
import { enrich } from './enrichment.ts';
import { loadContent } from './query-content.ts';
import type { RunReads } from './run-reads.ts';
import { type FeatureAnswer, prefetchFeature, searchFeature } from './search-feature.ts';

export interface SearchPortOptions {
  /** Collections that may be read. */
  readonly collections: readonly StoredCollection[];
  readonly reads: RunReads;
  /**
   * Gets the failures of single texts, which then count as texts without a vector. Without it the first one is thrown:
   * right for a run that has one query.
   */
  readonly onTextFailure?: (failure: TextFailure, pluginId: string) => void;
}

/** A search whose collections no one query fits. */
function ambiguous(message: string, fix: string): AppError {
  return invalid('retriever_input_invalid', [
    { type: 'query_ambiguous', location: ['body', 'inputs'], message, fix },
  ]);
}

/** A search port over the collections of a namespace. One port is one run: it remembers what it resolved. */
export class IndexSearchPort implements SearchPort {
  readonly #ctx: NsCtx;
  readonly #collections: readonly StoredCollection[];
  readonly #reads: RunReads;
  readonly #onTextFailure: SearchPortOptions['onTextFailure'];
  /** By feature URI: the collections that a search has asked for, whose extractors embed its texts. */
  readonly #holding = new Map<string, Map<string, StoredCollection>>();
  /**
   * What a query is in features of other versions, where an upgrade has reached only some of the collections: by the
   * vector that the engine has of the query, then by feature URI.
   */
  readonly #variants = new WeakMap<Float32Array, Map<string, Float32Array>>();

  constructor(ctx: NsCtx, options: SearchPortOptions) {
    this.#ctx = ctx;
    this.#collections = options.collections;
    this.#reads = options.reads;
    this.#onTextFailure = options.onTextFailure;
  }

  async resolveFeature(uri: string, identifiers?: readonly string[]): Promise<ResolvedFeature | undefined> {
    const candidates = identifiers ? this.#named(identifiers) : this.#collections;
    const holding = candidates.filter((collection) => featureOf(collection, uri));
    const [first] = holding;
    const feature = first && featureOf(first, uri);
    if (!feature) return undefined;
    const other = holding.find((one) => featureOf(one, uri)!.metric !== feature.metric);
    if (other) {
      const unlike = featureOf(other, uri)!;
      throw ambiguous(
        `"${first.name}" compares ${feature.feature_uri} by ${feature.metric} and "${other.name}" ${unlike.feature_uri} by ${unlike.metric}, so their scores cannot be compared`,
        'upgrade the other collection too, or name one of them in collection_identifiers of the search',
      );
    }
    const known = this.#holding.get(uri) ?? new Map<string, StoredCollection>();
    this.#holding.set(uri, known);
    for (const collection of holding) {
      known.set(collection.id, collection);
      // Begun here, so that the index loads while the query is being embedded.
      void prefetchFeature(this.#ctx, this.#reads, collection.id, this.#keptAs(collection.id, uri)).catch(
        () => undefined,
      );
    }
    void this.#reads.plugin(feature.plugin_id);
    const kinds = new Set(holding.map((collection) => madeOf(collection, featureOf(collection, uri)!)));
    return {
      collection_ids: holding.map(({ id }) => id),
      dims: feature.dims,
      metric: feature.metric,
      made_of: kinds.size === 1 ? [...kinds][0]! : 'both',
    };
  }

  /** The name under which a collection keeps a feature; an upgrade may have changed it. */
  #keptAs(collectionId: string, uri: string): string {
    const collection = this.#collections.find(({ id }) => id === collectionId);
    return (collection && featureOf(collection, uri)?.feature_uri) ?? uri;
  }

  /** The vectors of a request as they are in the feature that a collection keeps. @throws AppError retriever_input_invalid */
  #queriesFor(collectionId: string, uri: string, { vectors, feature_uri }: SearchRequest): Float32Array[] {
    const collection = this.#collections.find(({ id }) => id === collectionId);
    const dims = collection && featureOf(collection, uri)?.dims;
    return vectors.map((given) => {
      const vector = this.#variants.get(given)?.get(uri) ?? given;
      if (dims === undefined || vector.length === dims) return vector;
      throw ambiguous(
        `the query vector has ${vector.length} numbers, and "${collection!.name}" keeps ${feature_uri} as ${uri}, which has ${dims}`,
        'search this collection by itself: name it in collection_identifiers of a search of its own',
      );
    });
  }

  loadContent(source: string, mimeType: string | undefined, deadlineMs: number) {
    return loadContent(this.#ctx, source, mimeType, deadlineMs);
  }

  #named(identifiers: readonly string[]): StoredCollection[] {
    return identifiers.map((identifier) => {
      const found = this.#collections.find(({ id, name }) => id === identifier || name === identifier);
      if (found) return found;
      throw new AppError('collection_not_found', {
        detail: `This search names the collection "${identifier.slice(0, 100)}", which is not among those of the retriever.`,
      });
    });
  }

  async embed(
    uri: string,
    queries: readonly (string | QueryContent)[],
    deadlineMs: number,
  ): Promise<(Float32Array | undefined)[]> {
    const holding = [...(this.#holding.get(uri)?.values() ?? [])];
    const byFeature = Map.groupBy(holding, (collection) => featureOf(collection, uri)!.feature_uri);
    const [first, ...others] = await Promise.all(
      [...byFeature].map(async ([kept, group]) => ({
        kept,
        vectors: await this.#embedBy(kept, group, queries, deadlineMs),
      })),
    );
    if (!first) throw new Error(`queries were to be embedded for ${uri}, which was not resolved`);
    return first.vectors.map((vector, i) => {
      const own = others.map(({ kept, vectors }) => [kept, vectors[i]] as const);
      // A query that one of the versions makes no vector of is a query without a vector.
      if (!vector || own.some(([, variant]) => !variant)) return undefined;
      if (own.length > 0) this.#variants.set(vector, new Map(own as [string, Float32Array][]));
      return vector;
    });
  }

  /** @param holding collections with this very feature */
  async #embedBy(
    uri: string,
    holding: readonly StoredCollection[],
    queries: readonly (string | QueryContent)[],
    deadlineMs: number,
  ): Promise<(Float32Array | undefined)[]> {
    const features = holding.map((collection) => featureOf(collection, uri)!);
    const first = features[0]!;
    const differs = features.findIndex(
      (feature) => canonicalJson(feature.parameters) !== canonicalJson(first.parameters),
    );
    if (differs > 0) {
      throw ambiguous(
        `"${holding[0]!.name}" and "${holding[differs]!.name}" make ${uri} with different parameters, so no vector of a query fits both`,
        'name one of them in collection_identifiers of the search',
      );
    }
    const plugin = await this.#reads.plugin(first.plugin_id);
    const target = {
      plugin,
      feature_name: first.feature_name,
      dims: first.dims,
      parameters: first.parameters,
    };
    const embedded = await embedQueries(this.#ctx, target, queries, deadlineMs);
    return embedded.map((entry) => {
      if ('vector' in entry) return entry.vector;
      if (!this.#onTextFailure) throw embedFault(plugin.id, entry.failure);
      this.#onTextFailure(entry.failure, plugin.id);
      return undefined;
    });
  }

  async vectorOf(
    uri: string,
    document: { readonly document_id: string; readonly collection_id?: string },
  ): Promise<Float32Array | undefined> {
    const candidates = this.#collections.filter(
      (collection) =>
        featureOf(collection, uri) &&
        (document.collection_id === undefined ||
          collection.id === document.collection_id ||
          collection.name === document.collection_id),
    );
    const snapshots = await Promise.all(
      candidates.map((collection) => this.#reads.snapshot(collection.id, this.#keptAs(collection.id, uri))),
    );
    for (const snapshot of snapshots) {
      const vector = snapshot && (await reading(() => vectorOf(snapshot, document.document_id)));
      if (vector) return vector;
    }
    return undefined;
  }

  async search(request: SearchRequest): Promise<SearchReply> {
    const { filter, include, k } = request;
    const timeoutMs = Math.max(1, request.deadline_ms - this.#ctx.ports.clock.now());
    const { answers, degraded } = await this.#perCollection(
      request.collection_ids,
      request.allow_partial,
      async (collectionId) => {
        const ids = include
          ?.filter((ref) => ref.collection_id === collectionId)
          .map((ref) => ref.document_id);
        if (ids?.length === 0) return undefined;
        const uri = this.#keptAs(collectionId, request.feature_uri);
        return searchFeature(this.#ctx, this.#reads, collectionId, uri, {
          queries: this.#queriesFor(collectionId, uri, request),
          k,
          filter,
          include: ids,
          exclude: request.exclude,
          minScore: request.min_score,
          timeoutMs,
        });
      },
    );
    const lists: ScoredId[][] = request.vectors.map(() => []);
    for (const [collectionId, { matches }] of answers) {
      for (const [query, found] of matches.entries()) {
        for (const { id, score } of found)
          lists[query]!.push({ document_id: id, collection_id: collectionId, score });
      }
    }
    const sum = (pick: (answer: FeatureAnswer) => number) =>
      answers.reduce((total, [, answer]) => total + pick(answer), 0);
    return {
      hits: answers.length === 1 ? lists : lists.map((list) => list.sort(byScore).slice(0, k)),
      stats: {
        bytes_scanned: sum((answer) => answer.bytesScanned),
        shards: sum((answer) => answer.shards),
        exact: degraded.length === 0 && answers.every(([, answer]) => answer.exact),
        backends: [...new Set(answers.map(([, answer]) => answer.backend))].sort(),
        cold: answers.some(([, answer]) => answer.cold),
        reranked: sum((answer) => answer.reranked),
        hedged: sum((answer) => answer.hedged),
        versions: Object.fromEntries(answers.map(([id, { version }]) => [id, version])),
        rows_selected: sum((answer) => answer.rowsSelected),
      },
      unknown_fields: filter ? unknownToAll(answers.map(([, answer]) => answer.unknownFields)) : [],
      ...(degraded.length > 0 ? { degraded } : {}),
    };
  }

  async list(request: ListRequest): Promise<ListReply> {
    const { filter, offset, limit } = request;
    const ids = this.#collections.map(({ id }) => id);
    const { read, degraded } = await this.#snapshots(ids, documentsUri, request.allow_partial);
    // Without a search every score is the same, so a key on it decides nothing.
    const sort = request.sort.filter(({ field }) => field !== 'score');
    const names = sort.map(({ field }) => canonicalField(field));
    let total = 0;
    const unknown: (readonly string[])[] = [];
    const rows = read.flatMap(([collectionId, snapshot]) => {
      total += guarded(() => count(snapshot, filter));
      const asked = filter ? [...fieldsOf(filter), ...names] : names;
      if (asked.length > 0) unknown.push(unknownNames(snapshot, asked));
      const found = guarded(() =>
        listRows(snapshot, { filter, sort, idOrder: 'asc', limit: offset + limit }),
      );
      return found.map((id) => {
        const row = snapshot.rowOf(id)!;
        return {
          document_id: id,
          collection_id: collectionId,
          score: 0,
          field: (name: string) => snapshot.valueAt(row, name),
        };
      });
    });
    if (read.length > 1) rows.sort(compareByKeys(sort));
    return {
      documents: rows
        .slice(offset, offset + limit)
        .map(({ document_id, collection_id }) => ({ document_id, collection_id })),
      total,
      unknown_fields: unknownToAll(unknown),
      ...(degraded.length > 0 ? { degraded } : {}),
    };
  }

  enrich(request: EnrichRequest): Promise<readonly EnrichedDocument[]> {
    return enrich(this.#ctx, request);
  }

  facets(request: FacetRequest): Promise<FacetReply> {
    return countFacets(request, {
      collectionIds: this.#collections.map(({ id }) => id),
      snapshots: (ids, uri, allowPartial) => this.#snapshots(ids, uri, allowPartial),
    });
  }

  async documents(
    refs: readonly DocumentRef[],
    options: DocumentOptions,
  ): Promise<(RetrievedDocument | undefined)[]> {
    const ids = [...new Set(refs.map((ref) => ref.collection_id))];
    const heads = new Map(
      (await Promise.all(ids.map((id) => this.#reads.view(id)))).map(({ head }) => [
        head.collection_id,
        head,
      ]),
    );
    const found = await getDocuments(this.#ctx, refs, heads);
    // A batch may have replaced a document since the heads were read; then its row says more than they can tell.
    const lacking = refs.filter((_, i) => !found[i]);
    const again = await getDocuments(this.#ctx, lacking);
    let next = 0;
    return Promise.all(
      refs.map(async (ref, i) => {
        const document = found[i] ?? again[next++];
        if (!document) return undefined;
        const vectors = options.return_vectors ? await this.#vectorsOf(ref) : undefined;
        return presentWithBlobs(this.#ctx, document, { presigned: options.return_presigned_urls, vectors });
      }),
    );
  }

  async #vectorsOf({ collection_id, document_id }: DocumentRef): Promise<Record<string, number[]>> {
    const collection = this.#collections.find(({ id }) => id === collection_id)!;
    const vectors: Record<string, number[]> = {};
    for (const { feature_uri } of featuresOf(collection)) {
      const snapshot = await this.#reads.snapshot(collection_id, feature_uri);
      const vector = snapshot && (await reading(() => vectorOf(snapshot, document_id)));
      if (vector) vectors[feature_uri] = [...vector];
    }
    return vectors;
  }

  /** The snapshots of those collections that have one, in the order of the ids; what cannot be read only if allowed. */
  async #snapshots(
    collectionIds: readonly string[],
    uri: string,
    allowPartial: boolean,
  ): Promise<{ read: [string, Snapshot][]; degraded: Degradation[] }> {
    const { answers, degraded } = await this.#perCollection(collectionIds, allowPartial, (id) =>
      this.#reads.snapshot(id, this.#keptAs(id, uri)),
    );
    return { read: answers, degraded };
  }

  /** What each collection answers, in the order of the ids, without those that have nothing; failures only if allowed. */
  async #perCollection<T>(
    collectionIds: readonly string[],
    allowPartial: boolean,
    ask: (collectionId: string) => Promise<T | undefined>,
  ): Promise<{ answers: [string, T][]; degraded: Degradation[] }> {
    const answers: ([string, T] | undefined)[] = [];
    const degraded: Degradation[] = [];
    await Promise.all(
      collectionIds.map(async (id, i) => {
        try {
          const answer = await ask(id);
          if (answer !== undefined) answers[i] = [id, answer];
        } catch (error) {
          if (!allowPartial || !isAppError(error, 'index_unavailable', 'index_corrupt')) throw error;
          degraded.push({ resource: id, reason: error.code });
        }
      }),
    );
    return { answers: answers.filter((entry) => entry !== undefined), degraded };
  }
}
