// What the retrieval engine needs from outside: vectors of queries, the index, documents. Services implement it.
import type { Filter } from './filter.ts';
import type { ScoredId } from './fusion.ts';

/** Names one document. */
export interface DocumentRef {
  readonly document_id: string;
  readonly collection_id: string;
}

/**
 * A document as a hit shows it: fields at the root and under `metadata`, provenance and lineage under `_internal`.
 */
export type RetrievedDocument = DocumentRef & Readonly<Record<string, unknown>>;

/** A feature that at least one collection of the retriever holds. */
export interface ResolvedFeature {
  /** Ids of the collections that hold vectors of the feature, within those that the retriever may read. */
  readonly collection_ids: readonly string[];
  /** Length of its vectors, 1-4096. */
  readonly dims: number;
  readonly metric: 'cosine' | 'dot' | 'euclid';
  /** What its documents are made of: text properties, binary ones (images, sound, PDF), or some of each. */
  readonly made_of: 'text' | 'binary' | 'both';
}

/** A query that is a file: an image, a sound, a PDF. */
export interface QueryContent {
  readonly bytes: Uint8Array;
  readonly mime_type: string;
  /** SHA-256 of the bytes, hexadecimal. */
  readonly digest: string;
  /** Where the bytes came from, if the query named a URL. */
  readonly url?: string;
}

/** Why a query's content could not be had. */
export interface ContentFault {
  readonly type: string;
  readonly message: string;
  readonly fix?: string;
}

/** One scan of one feature for many queries. */
export interface SearchRequest {
  readonly feature_uri: string;
  readonly collection_ids: readonly string[];
  /** One per query, each `dims` long and finite; not normalised. */
  readonly vectors: readonly Float32Array[];
  /** Hits wanted per query, 1-5000. */
  readonly k: number;
  /** Only documents that pass count, **before** the top k are taken. */
  readonly filter?: Filter;
  /** Only these documents count; at most 5000. */
  readonly include?: readonly DocumentRef[];
  /** By query, in the order of `vectors`: document ids that must not be hits. */
  readonly exclude?: readonly (readonly string[])[];
  /** Hits with a lower score are left out. */
  readonly min_score?: number;
  /** Leave out what cannot be read and say so in `degraded`, instead of throwing `index_unavailable`. */
  readonly allow_partial: boolean;
  /** Milliseconds on the run's clock after which the answer is of no use. */
  readonly deadline_ms: number;
}

/** What could not be read. */
export interface Degradation {
  readonly resource: string;
  readonly reason: string;
}

export interface SearchReply {
  /** By query, best first: cosine similarity, dot product or negative squared distance; ties by ascending id. */
  readonly hits: readonly (readonly ScoredId[])[];
  readonly stats: {
    readonly bytes_scanned: number;
    readonly shards: number;
    /** Whether every row that the filter passes was compared. */
    readonly exact: boolean;
    /** What gave the candidates of the collections: `segments` for a scan, else a vector backend. */
    readonly backends?: readonly string[];
    /** Whether vectors had to be fetched into memory first. */
    readonly cold?: boolean;
    /** Rows that the scan could not rule out and that were scored in double precision. */
    readonly reranked?: number;
    /** Calls to other functions that were repeated because an answer was late. */
    readonly hedged?: number;
    /** By collection id: the version of its index that answered. */
    readonly versions?: Readonly<Record<string, number>>;
    /** How many documents the filter let through, where the index knows. */
    readonly rows_selected?: number;
  };
  /** Fields of the filter that no document has: told to the caller, since it is mostly a typo. */
  readonly unknown_fields?: readonly string[];
  readonly degraded?: readonly Degradation[];
}

/** One key of an order. Values of one field compare as `compareFieldValues` says. */
export interface SortKey {
  readonly field: string;
  readonly direction: 'asc' | 'desc';
  /** Where documents without the field go, whatever the direction. */
  readonly missing: 'first' | 'last';
}

/** Documents of the retriever's collections, without a search. */
export interface ListRequest {
  readonly filter?: Filter;
  /** Ties, and an empty list of keys, by ascending document id. */
  readonly sort: readonly SortKey[];
  /** 0-10,000. */
  readonly offset: number;
  /** 1-5000. */
  readonly limit: number;
  readonly allow_partial: boolean;
  readonly deadline_ms: number;
}

export interface ListReply {
  readonly documents: readonly DocumentRef[];
  /** How many documents pass in all; null where that is too dear to know. */
  readonly total: number | null;
  readonly unknown_fields?: readonly string[];
  readonly degraded?: readonly Degradation[];
}

/** A field whose values are to be counted. */
export interface FacetField {
  /** `metadata.x`, `payload.x` and `x` are the same. */
  readonly key: string;
  /** Most frequent values wanted, 1-1000. */
  readonly limit: number;
}

/** Documents by what selected them. */
export interface FacetScope {
  /** Only documents that have a vector of this feature. @default every document */
  readonly feature_uri?: string;
  /** @default every collection of the port */
  readonly collection_ids?: readonly string[];
  readonly filter?: Filter;
}

/** Counts the values of fields over documents, all of them. */
export interface FacetRequest {
  /** A document counts, once, if any of these selects it. */
  readonly scopes: readonly FacetScope[];
  /** Only these documents count; at most 5000. */
  readonly include?: readonly DocumentRef[];
  readonly fields: readonly FacetField[];
  readonly allow_partial: boolean;
  readonly deadline_ms: number;
}

export interface Facet {
  /** As it was asked for. */
  readonly key: string;
  /**
   * Most frequent first; of equal counts numbers, texts, booleans, null, each ascending. A list counts once for each of
   * its distinct elements.
   */
  readonly values: readonly { readonly value: string | number | boolean | null; readonly count: number }[];
  /** Documents without the field. */
  readonly missing_count: number;
  /** Distinct values in all. */
  readonly total_values: number;
}

export interface FacetReply {
  /** In the order of `fields`. */
  readonly facets: readonly Facet[];
  readonly unknown_fields?: readonly string[];
  readonly degraded?: readonly Degradation[];
}

/** Documents to be classified by a taxonomy. */
export interface EnrichRequest {
  /** Id or name. */
  readonly taxonomy_id: string;
  readonly documents: readonly RetrievedDocument[];
  /** Targets wanted; all of them if left out. */
  readonly fields?: readonly string[];
  /** Assignments to list for each document, 1-50. */
  readonly top_k: number;
  /** Assignments with a lower score do not count. */
  readonly min_score?: number;
  readonly deadline_ms: number;
}

/** What a document takes over. */
export interface EnrichedDocument {
  readonly fields: Readonly<Record<string, unknown>>;
  /** What it was assigned to, from the top level down. */
  readonly assignments: readonly Readonly<Record<string, unknown>>[];
}

export interface DocumentOptions {
  readonly return_vectors: boolean;
  readonly return_presigned_urls: boolean;
}

/**
 * The engine's only way out. An implementation is bound to one tenant, namespace and set of collections, and answers
 * a whole run from one version of the index.
 */
export interface SearchPort {
  /**
   * @param collectionIdentifiers ids or names that narrow the search further, where the stage has them
   * @returns undefined if none of the collections holds the feature
   * @throws AppError collection_not_found for an identifier that is not among the retriever's collections
   */
  resolveFeature(
    featureUri: string,
    collectionIdentifiers?: readonly string[],
  ): Promise<ResolvedFeature | undefined>;
  /**
   * The bytes of a query: fetched, if it is a URL, or decoded from a `data:` URI or base64.
   *
   * @param source not blank
   * @param mimeType as the query states it
   */
  loadContent(
    source: string,
    mimeType: string | undefined,
    deadlineMs: number,
  ): Promise<QueryContent | { readonly fault: ContentFault }>;
  /**
   * Turns queries into vectors of the feature by its extractor.
   *
   * @param queries distinct; texts are not blank and have at most 32 kB
   * @returns one per query, in order; undefined where the extractor makes no vector of it
   */
  embed(
    featureUri: string,
    queries: readonly (string | QueryContent)[],
    deadlineMs: number,
  ): Promise<(Float32Array | undefined)[]>;
  /** The stored vector of a document, undefined if there is no such document or it has none. */
  vectorOf(
    featureUri: string,
    document: { readonly document_id: string; readonly collection_id?: string },
  ): Promise<Float32Array | undefined>;
  /** @throws AppError index_unavailable rather than answering with fewer hits */
  search(request: SearchRequest): Promise<SearchReply>;
  list(request: ListRequest): Promise<ListReply>;
  /** @throws AppError index_unavailable rather than counting fewer documents */
  facets(request: FacetRequest): Promise<FacetReply>;
  /**
   * Classifies documents; ports without taxonomies lack it.
   *
   * @returns one per document, in order
   * @throws AppError retriever_input_invalid for a taxonomy or field that is not there
   */
  enrich?(request: EnrichRequest): Promise<readonly EnrichedDocument[]>;
  /** @returns one per reference, in order; undefined for a document deleted in the meantime */
  documents(
    refs: readonly DocumentRef[],
    options: DocumentOptions,
  ): Promise<(RetrievedDocument | undefined)[]>;
}
