// One search of one feature of one collection, wherever its vectors are: in this function's memory or in several.

import { hasCopy, searchCopy } from '../../backends/query.ts';
import type { BackendName } from '../../backends/registry.ts';
import type { Condition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { planShards } from '../../fan-out/plan.ts';
import { scatter } from '../../fan-out/scatter.ts';
import { reading } from '../../store/vector-index.ts';
import { type Match, search } from '../../vectors/search.ts';
import { unknownFields } from '../../vectors/select-rows.ts';
import type { RunReads } from './run-reads.ts';

/** What is asked of one collection. */
export interface FeatureQuery {
  readonly queries: readonly Float32Array[];
  readonly k: number;
  readonly filter: Condition | undefined;
  readonly include: readonly string[] | undefined;
  readonly exclude: readonly (readonly string[])[] | undefined;
  readonly minScore: number | undefined;
  /** Milliseconds that an answer may take. */
  readonly timeoutMs: number;
}

export interface FeatureAnswer {
  /** By query, best first, ties by ascending id. */
  readonly matches: readonly (readonly Match[])[];
  readonly version: number;
  readonly rowsSelected: number;
  readonly bytesScanned: number;
  readonly reranked: number;
  readonly cold: boolean;
  /** Functions that scanned, this one or others. */
  readonly shards: number;
  readonly hedged: number;
  /** What gave the candidates: `segments` for a scan. */
  readonly backend: BackendName;
  /** Whether every row that qualifies was compared. */
  readonly exact: boolean;
  /** Fields of the filter that no document of the collection has. */
  readonly unknownFields: readonly string[];
}

/** Begins what a search will need: the index of a feature that this function scans by itself. */
export async function prefetchFeature(
  ctx: NsCtx,
  reads: RunReads,
  collectionId: string,
  uri: string,
): Promise<void> {
  const { head } = await reads.viewWith(collectionId, uri);
  const isHere =
    !(await shardsOf(ctx, reads, collectionId, uri)) ||
    (await hasCopy(ctx, { collectionId, featureUri: uri, head }));
  if (isHere) await reads.snapshot(collectionId, uri);
}

/**
 * The k best documents of a collection.
 *
 * @returns undefined if the collection has no such feature yet
 * @throws AppError index_unavailable, index_corrupt
 */
export async function searchFeature(
  ctx: NsCtx,
  reads: RunReads,
  collectionId: string,
  uri: string,
  query: FeatureQuery,
): Promise<FeatureAnswer | undefined> {
  const { timeoutMs, ...request } = query;
  const { queries, k, filter, include, exclude, minScore } = request;
  const { head } = await reads.viewWith(collectionId, uri);
  const shards = await shardsOf(ctx, reads, collectionId, uri);
  const place = { collectionId, featureUri: uri, head };
  if (await hasCopy(ctx, place)) {
    const snapshot = await reads.snapshot(collectionId, uri);
    const found = snapshot && (await reading(() => searchCopy(ctx, place, snapshot, request)));
    if (found) {
      return {
        ...found,
        version: head.version,
        shards: 1,
        hedged: 0,
        unknownFields: filter ? unknownFields(snapshot, filter) : [],
      };
    }
  }
  if (shards) {
    const found = await scatter(
      ctx,
      {
        collectionId,
        manifestKey: head.manifest_key!,
        featureUri: uri,
        queries,
        k,
        filter,
        include,
        exclude,
        minScore,
      },
      shards,
      ctx.ports.scanners!.functions,
      timeoutMs,
    );
    return { ...found, version: head.version, shards: shards.length, backend: 'segments', exact: true };
  }
  const snapshot = await reads.snapshot(collectionId, uri);
  if (!snapshot) return undefined;
  const found = await reading(() => search(snapshot, { queries, k, filter, include, exclude, minScore }));
  return {
    ...found,
    version: head.version,
    shards: 1,
    hedged: 0,
    backend: 'segments',
    exact: true,
    unknownFields: filter ? unknownFields(snapshot, filter) : [],
  };
}

async function shardsOf(ctx: NsCtx, reads: RunReads, collectionId: string, uri: string) {
  const { scanners } = ctx.ports;
  if (!scanners) return undefined;
  const { manifest } = await reads.viewWith(collectionId, uri);
  const feature = Object.hasOwn(manifest.features, uri) ? manifest.features[uri] : undefined;
  return feature && planShards(feature, scanners.bytesEach, scanners.functions.length);
}
