// A run that lets new documents join the groups of the last full run: its result is that of the run before, with them.
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import type { Centroids } from './assign.ts';
import { assignRows } from './assign.ts';
import { baseOf } from './new-run.ts';
import type { OpenPlan, PlanCollection } from './plan-input.ts';
import { chosenIds, isNewer, openPlan, vectorsOfRows } from './plan-input.ts';
import type { ResultDocument, ResultGroup, ResultGroups } from './results.ts';
import { eachDocument, noise, readGroups, writeDocuments, writeGroups } from './results.ts';
import { sizeMetrics } from './size-metrics.ts';
import type { ClusterState, StoredCluster, StoredRun } from './store.ts';
import { findRun } from './store.ts';

/** Multiplications that one step can do well within its time. */
const workMax = 1e11;
const rowsAtOnce = 2_000;

/** What a run that assigns found. */
export interface AssignedRun {
  readonly base: StoredRun;
  readonly groups: ResultGroups;
  /** The documents that this run looked at, by collection in the order of the plan. */
  readonly fresh: readonly ResultDocument[];
  /** Whether the documents carry what the run before said, so that only the fresh ones are left to be told. */
  readonly continues: boolean;
  readonly metrics: ReturnType<typeof sizeMetrics>;
  readonly assigned: number;
  readonly num_points: number;
  readonly message: string;
}

interface Before {
  readonly version: number | undefined;
  readonly ids: ReadonlySet<string>;
}

/** What the result before holds: documents by collection, and where the groups are on the map. */
async function readBefore(ctx: NsCtx, run: StoredRun) {
  const ids = new Map<string, Set<string>>();
  const sums = new Map<string, { x: number; y: number; z: number; count: number; flat: boolean }>();
  for await (const documents of eachDocument(ctx, run.run_id)) {
    for (const { collection_id, document_id, cluster_id, x, y, z, assigned } of documents) {
      const own = ids.get(collection_id) ?? new Set<string>();
      ids.set(collection_id, own.add(document_id));
      if (cluster_id === noise || assigned || x === undefined || y === undefined) continue;
      const sum = sums.get(cluster_id) ?? { x: 0, y: 0, z: 0, count: 0, flat: z === undefined };
      sums.set(cluster_id, { ...sum, x: sum.x + x, y: sum.y + y, z: sum.z + (z ?? 0), count: sum.count + 1 });
    }
  }
  const rounded = (value: number) => Math.round(value * 1e5) / 1e5;
  const centres = new Map(
    [...sums].map(([id, { x, y, z, count, flat }]) => [
      id,
      { x: rounded(x / count), y: rounded(y / count), ...(flat ? {} : { z: rounded(z / count) }) },
    ]),
  );
  const versions = new Map((run.input?.ranges ?? []).map((range) => [range.collection_id, range.version]));
  return {
    of: (collectionId: string): Before => ({
      version: versions.get(collectionId),
      ids: ids.get(collectionId) ?? new Set(),
    }),
    centres,
  };
}

function centroidsOf(open: OpenPlan, groups: readonly ResultGroup[]): Centroids {
  const { dims, metric } = open.space;
  const vectors = new Float64Array(groups.length * dims);
  for (const [i, group] of groups.entries()) {
    if (group.centroid_vector.length !== dims) {
      throw new AppError('cluster_base_missing', {
        detail: `The vectors have ${dims} numbers by now, those of the last full run had ${group.centroid_vector.length}. Run mode "full".`,
      });
    }
    vectors.set(group.centroid_vector, i * dims);
  }
  return { metric, dims, vectors, reach: groups.map((group) => group.reach ?? 0) };
}

/**
 * Assigns the documents that no run has looked at, or whose vectors are newer, and writes the result.
 *
 * @throws AppError cluster_base_missing, cluster_too_many_documents, index_version_gone, index_unavailable
 */
export async function runAssign(
  ctx: NsCtx,
  run: StoredRun,
  cluster: StoredCluster,
  state: ClusterState,
): Promise<AssignedRun> {
  const usable = await baseOf(ctx, cluster);
  if ('why' in usable) throw new AppError('cluster_base_missing', { detail: usable.why });
  const { base } = usable;
  const before = await newestOver(ctx, state, base);
  const { groups, ...kept } = await readGroups(ctx, before.run_id);
  // The vectors are joined as those of the base run were, whatever the definition says by now.
  const { normalize_features, feature_weights } = base.plan;
  const plan = { ...run.plan, normalize_features, feature_weights };
  const open = await openPlan(ctx, plan, run.input!.ranges);
  const known = await readBefore(ctx, before);
  const found = new Map<string, ResultDocument[]>();
  const centroids = centroidsOf(open, groups);
  for (const collection of open.collections) {
    const own = known.of(collection.collection.id);
    found.set(
      collection.collection.id,
      await assignNew(run, open, collection, own, centroids, groups, known.centres),
    );
  }
  const fresh = [...found.values()].flat();
  const sizes = new Map<string, { members: number; assigned: number }>();
  let total = 0;
  const count = ({ cluster_id, assigned }: ResultDocument) => {
    total += 1;
    const size = sizes.get(cluster_id) ?? { members: 0, assigned: 0 };
    size.members += 1;
    if (assigned) size.assigned += 1;
    sizes.set(cluster_id, size);
  };
  await writeDocuments(ctx, run.run_id, together(ctx, before, open, found, count));
  const loose = sizes.get(noise)?.members ?? 0;
  const result: ResultGroups = {
    ...kept,
    groups: groups.map((group) => ({
      ...group,
      num_members: sizes.get(group.cluster_id)?.members ?? 0,
      num_assigned: sizes.get(group.cluster_id)?.assigned ?? 0,
    })),
    noise_members: loose,
  };
  await writeGroups(ctx, run.run_id, result);
  const assigned = fresh.filter((document) => document.assigned).length;
  return {
    base,
    groups: result,
    fresh,
    continues: state.told_run_id === before.run_id,
    metrics: sizeMetrics(
      result.groups.map((group) => group.num_members),
      loose,
    ),
    assigned,
    num_points: total,
    message: messageOf(base, fresh.length, assigned, run.assignment_threshold!),
  };
}

/** The newest result that holds the base run's groups: the last run that assigned to them, else the base run. */
async function newestOver(ctx: NsCtx, state: ClusterState, base: StoredRun): Promise<StoredRun> {
  const id = state.completed_run_id;
  const newest = id && id !== base.run_id ? await findRun(ctx, base.cluster_id, id) : undefined;
  return newest?.mode === 'assign' && newest.base_run_id === base.run_id && newest.has_result ? newest : base;
}

async function assignNew(
  run: StoredRun,
  open: OpenPlan,
  collection: PlanCollection,
  before: Before,
  centroids: Centroids,
  groups: readonly ResultGroup[],
  centres: ReadonlyMap<string, { readonly x: number; readonly y: number; readonly z?: number }>,
): Promise<ResultDocument[]> {
  const ids = chosenIds(
    open,
    collection,
    (id) =>
      !before.ids.has(id) ||
      (before.version !== undefined && isNewer(collection.features, id, before.version)),
  );
  if (ids.length * groups.length * open.space.dims > workMax) {
    throw new AppError('cluster_too_many_documents', {
      detail: `${ids.length} new documents are too many to be compared with ${groups.length} groups one by one. Run mode "full".`,
    });
  }
  const documents: ResultDocument[] = [];
  for (let from = 0; from < ids.length; from += rowsAtOnce) {
    const some = ids.slice(from, from + rowsAtOnce);
    const vectors = await vectorsOfRows(open, collection, some);
    for (const [i, { group, score }] of assignRows(vectors, centroids, run.assignment_threshold!).entries()) {
      const place = { document_id: some[i]!, collection_id: collection.collection.id };
      const id = group < 0 ? noise : groups[group]!.cluster_id;
      documents.push(
        group < 0
          ? { ...place, cluster_id: noise, probability: 0 }
          : {
              ...place,
              cluster_id: id,
              probability: Math.round(Math.max(0, score) * 1e4) / 1e4,
              ...centres.get(id),
              assigned: true,
            },
      );
    }
  }
  return documents;
}

/** The documents of the result before that are still there and not looked at again, then the fresh ones. */
async function* together(
  ctx: NsCtx,
  before: StoredRun,
  open: OpenPlan,
  found: ReadonlyMap<string, readonly ResultDocument[]>,
  count: (document: ResultDocument) => void,
): AsyncGenerator<ResultDocument> {
  const again = new Map(
    [...found].map(([id, documents]) => [id, new Set(documents.map((d) => d.document_id))]),
  );
  const collections = new Map(open.collections.map((one) => [one.collection.id, one]));
  for await (const documents of eachDocument(ctx, before.run_id)) {
    for (const document of documents) {
      const { collection_id, document_id } = document;
      const collection = collections.get(collection_id);
      const lives = collection?.features.every((snapshot) => snapshot.rowOf(document_id) !== undefined);
      if (!collection || collection.features.length === 0 || !lives) continue;
      if (again.get(collection_id)?.has(document_id)) continue;
      count(document);
      yield document;
    }
  }
  for (const documents of found.values()) {
    for (const document of documents) {
      count(document);
      yield document;
    }
  }
}

function messageOf(base: StoredRun, fresh: number, assigned: number, threshold: number): string {
  if (fresh === 0) return `There are no new documents since the run ${base.run_id}.`;
  const documents = fresh === 1 ? '1 new document' : `${fresh} new documents`;
  const loose = fresh - assigned;
  return [
    `${assigned} of ${documents} joined the groups of the run ${base.run_id}.`,
    ...(loose === 0
      ? []
      : [
          `${loose} ${loose === 1 ? 'is' : 'are'} less near than ${threshold} to any and ${loose === 1 ? 'belongs' : 'belong'} to none.`,
        ]),
  ].join(' ');
}
