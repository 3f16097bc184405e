// What a plan is about: the rows of its collections, each at one version of its index, and their vectors. Vectors of
// several features are put behind each other.
import type { Condition } from '../../conditions/index.ts';
import { parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { documentsUri, openIndex, reading } from '../../store/vector-index.ts';
import { rowsOf } from '../../vectors/bits.ts';
import { hashId } from '../../vectors/id-hash.ts';
import { vectorTable } from '../../vectors/list-rows.ts';
import { vectorsAt } from '../../vectors/read-vectors.ts';
import { seqsPerVersion } from '../../vectors/segment-format.ts';
import { selectRows } from '../../vectors/select-rows.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { ClusterPlan, RunRange } from './store.ts';

export type Metric = 'cosine' | 'dot' | 'euclid';

/** How the vectors of a plan's features become one. */
export interface Space {
  readonly dims: number;
  readonly metric: Metric;
  /** Numbers of each feature, in the order of the plan. */
  readonly blocks: readonly number[];
  /** What each block is multiplied by: the root of its weight, so that weights add up in similarities. */
  readonly scales: readonly number[];
  /** Whether each block is made a unit vector first. */
  readonly unit: boolean;
}

/** The open collection of a plan, at one version. */
export interface PlanCollection {
  readonly collection: StoredCollection;
  readonly version: number;
  /** Of the plan, as the collection has them now. */
  readonly feature_uris: readonly string[];
  /** The rows of each feature, in the order of the plan; empty if one has none. */
  readonly features: readonly Snapshot[];
  readonly documents: Snapshot | undefined;
}

/** A plan with its collections open. A collection that is gone, or has no vectors of a feature yet, is left out. */
export interface OpenPlan {
  readonly space: Space;
  readonly filter: Condition | undefined;
  readonly collections: readonly PlanCollection[];
}

/** The condition of a plan; undefined: every document. */
export function filterOf(plan: ClusterPlan): Condition | undefined {
  const parsed = plan.filters === null ? undefined : parseCondition(JSON.parse(plan.filters));
  if (parsed && !parsed.ok) throw new Error('a stored filter does not parse any more');
  return parsed?.condition;
}

/**
 * Opens the collections of a plan.
 *
 * @param ranges versions of an earlier look at the same plan; the current ones if left out
 * @throws AppError cluster_invalid (the collections have vectors of different length by now), index_version_gone
 */
export async function openPlan(
  ctx: NsCtx,
  plan: ClusterPlan,
  ranges?: readonly RunRange[],
): Promise<OpenPlan> {
  let space: Space | undefined;
  const collections: PlanCollection[] = [];
  for (const id of plan.collection_ids) {
    const collection = await findCollection(ctx, id);
    if (!collection) continue;
    const features = plan.feature_uris.map((uri) => featureOf(collection, uri));
    if (features.some((feature) => feature === undefined)) continue;
    const own = spaceOf(plan, features as { dims: number; metric: Metric }[]);
    if (space && JSON.stringify(own) !== JSON.stringify(space)) {
      throw new AppError('cluster_invalid', {
        detail: `The vectors of the collections do not fit together: ${collection.name} has other lengths or another metric than the one before. Upgrade all of them to the same feature.`,
      });
    }
    space ??= own;
    const version = ranges?.find((range) => range.collection_id === id)?.version;
    // Made after the first look: it takes no part.
    if (ranges && version === undefined) continue;
    const view = await openIndex(ctx, id, { version });
    const snapshots: Snapshot[] = [];
    for (const feature of features) {
      const snapshot = await view.snapshot(feature!.feature_uri);
      if (snapshot) snapshots.push(snapshot);
    }
    collections.push({
      collection,
      version: view.head.version,
      feature_uris: features.map((feature) => feature!.feature_uri),
      features: snapshots.length === features.length ? snapshots : [],
      documents: await view.snapshot(documentsUri),
    });
  }
  return {
    space: space ?? { dims: 0, metric: 'cosine', blocks: [], scales: [], unit: false },
    filter: filterOf(plan),
    collections,
  };
}

function spaceOf(
  plan: ClusterPlan,
  features: readonly { readonly dims: number; readonly metric: Metric }[],
): Space {
  const blocks = features.map((feature) => feature.dims);
  const dims = blocks.reduce((sum, block) => sum + block, 0);
  if (features.length <= 1)
    return { dims, metric: features[0]?.metric ?? 'cosine', blocks, scales: [1], unit: false };
  return {
    dims,
    metric: plan.normalize_features ? 'cosine' : 'euclid',
    blocks,
    scales: plan.feature_uris.map((uri) => Math.sqrt(plan.feature_weights[uri] ?? 1)),
    unit: plan.normalize_features,
  };
}

/** Writes one feature's vector into its place of a joined one. */
function placeBlock(space: Space, block: number, from: Float32Array, to: Float32Array, at: number): void {
  if (space.blocks.length === 1) {
    to.set(from, at);
    return;
  }
  let scale = space.scales[block]!;
  if (space.unit) {
    let square = 0;
    for (const value of from) square += value * value;
    // A vector without a direction stays where it is: the similarity of that feature is then 0.
    if (square > 0) scale /= Math.sqrt(square);
  }
  let offset = at;
  for (let i = 0; i < block; i++) offset += space.blocks[i]!;
  for (const [i, value] of from.entries()) to[offset + i] = value * scale;
}

/** Ids and joined vectors of all rows that a plan is about, ids ascending. */
export async function allRows(
  { space, filter }: OpenPlan,
  { features }: PlanCollection,
): Promise<{ readonly ids: readonly string[]; readonly vectors: Float32Array }> {
  const [first, ...others] = features;
  if (!first) return { ids: [], vectors: new Float32Array(0) };
  const table = await reading(() => vectorTable(first, filter));
  if (others.length === 0) return table;
  // Only documents that have a vector of every feature can be compared.
  const kept = table.ids.flatMap((id, i) =>
    others.every((other) => other.rowOf(id) !== undefined) ? [i] : [],
  );
  const ids = kept.map((i) => table.ids[i]!);
  const vectors = new Float32Array(ids.length * space.dims);
  for (const [row, i] of kept.entries())
    placeBlock(
      space,
      0,
      table.vectors.subarray(i * first.dims, (i + 1) * first.dims),
      vectors,
      row * space.dims,
    );
  await placeOthers(space, others, ids, vectors);
  return { ids, vectors };
}

const idsAtOnce = 2_000;

async function placeOthers(
  space: Space,
  others: readonly Snapshot[],
  ids: readonly string[],
  vectors: Float32Array,
): Promise<void> {
  for (const [n, other] of others.entries()) {
    for (let from = 0; from < ids.length; from += idsAtOnce) {
      const part = await reading(() => vectorsAt(other, ids.slice(from, from + idsAtOnce)));
      for (const [i, vector] of part.entries())
        placeBlock(space, n + 1, vector!, vectors, (from + i) * space.dims);
    }
  }
}

/** Ids of the rows that a plan is about and `wanted` lets through, in the order of the index. */
export function chosenIds(
  { filter }: OpenPlan,
  { features }: PlanCollection,
  wanted: (id: string) => boolean,
): string[] {
  const [first, ...others] = features;
  if (!first) return [];
  const ids: string[] = [];
  for (const [i, bits] of selectRows(first, filter).entries()) {
    const { segment } = first.parts[i]!;
    for (const local of rowsOf(bits)) {
      const id = segment.id(local);
      if (others.every((other) => other.rowOf(id) !== undefined) && wanted(id)) ids.push(id);
    }
  }
  return ids;
}

/** Joined vectors of some documents, which have a vector of every feature. */
export async function vectorsOfRows(
  { space }: OpenPlan,
  { features }: PlanCollection,
  ids: readonly string[],
): Promise<Float32Array> {
  const vectors = new Float32Array(ids.length * space.dims);
  for (const [n, snapshot] of features.entries()) {
    const found = await reading(() => vectorsAt(snapshot, ids));
    for (const [i, vector] of found.entries()) placeBlock(space, n, vector!, vectors, i * space.dims);
  }
  return vectors;
}

/** Whether a vector of a document is gone, or newer than a version of the index. */
export function isNewer(features: readonly Snapshot[], documentId: string, version: number): boolean {
  return features.some((snapshot) => {
    const row = snapshot.rowOf(documentId);
    if (row === undefined) return true;
    const part = snapshot.partOf(row);
    return part.baseSeq + part.segment.seq(row - part.firstRow) >= (version + 1) * seqsPerVersion;
  });
}

/**
 * The chosen places of `ids` in ascending order: those whose ids hash lowest, so that a sample is the same each time.
 */
export function sample(ids: readonly string[], max: number): number[] {
  const all = ids.map((_, i) => i);
  if (ids.length <= max) return all;
  const hashes = ids.map(idHash);
  return all
    .sort((a, b) => hashes[a]! - hashes[b]! || (ids[a]! < ids[b]! ? -1 : 1))
    .slice(0, max)
    .sort((a, b) => a - b);
}

/** A number of 32 bits that looks random and is always the same for an id. */
export function idHash(id: string): number {
  const bytes = new TextEncoder().encode(id);
  return hashId(bytes, 0, bytes.length)[0]!;
}
