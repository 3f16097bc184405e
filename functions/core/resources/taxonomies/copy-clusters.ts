// Makes nodes out of cluster runs: labels, keywords and centroids are copied, so the taxonomy lives on when runs and
// documents go. Several definitions, coarsest first, become the levels of one hierarchy.
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { readResult, viewCluster } from '../clusters/service.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { CentroidNode } from './centroids.ts';
import { centroidsMax, writeNodes } from './centroids.ts';
import type { Wrong } from './check.ts';
import { TargetCheck } from './check.ts';
import type { Facts } from './definition.ts';
import type { Group } from './overlap.ts';
import { parentsByOverlap } from './overlap.ts';
import type { CentroidSource, DefinedConfig, InputMapping, TaxonomyConfig } from './store.ts';

/** What of a run becomes nodes. */
interface Level {
  readonly cluster_id: string;
  readonly run_id: string;
  readonly feature_uri: string;
  readonly collections: readonly StoredCollection[];
  readonly nodes: readonly (Omit<CentroidNode, 'parent_node_id' | 'level' | 'node_id'> & {
    readonly members: readonly string[];
  })[];
}

const defaultTarget = 'auto_topic';
const overlapDefault = 0.7;

/**
 * @param own the configuration before: without `cluster_ids` its nodes stay
 * @param facts `cluster_ids` may name a run as `<cluster>@<run id>`
 * @throws AppError cluster_not_found, cluster_run_not_found
 */
export async function copyClusters(
  ctx: NsCtx,
  facts: Facts,
  own: TaxonomyConfig | undefined,
  threshold: number | null,
  wrong: Wrong,
): Promise<DefinedConfig | undefined> {
  for (const fact of [facts.vote, facts.top_k, facts.min_share, facts.retriever, facts.collection]) {
    if (fact.value !== undefined)
      wrong(
        'not_supported',
        fact.at,
        'documents are compared with centroids here; there are no references',
        'leave it out',
      );
  }
  const names = facts.cluster_ids.value;
  const copied = names
    ? await copyLevels(ctx, names, facts, wrong)
    : { source: own!.centroids!, collectionId: own!.source_collection.collection_id, read: [], warnings: [] };
  if (!copied) return undefined;
  const { source, collectionId, read, warnings } = copied;
  if (threshold !== null && source.metric !== 'cosine') {
    wrong(
      'retriever_unsuitable',
      facts.threshold.at,
      `${source.feature_uri} is compared by ${source.metric}, and a threshold is a cosine`,
      'leave the threshold out',
    );
  }
  const base = facts.path_target.value ?? defaultTarget;
  const fallback =
    own?.centroids && !facts.path_target.value && own.centroids.levels === source.levels
      ? own.centroids.level_fields
      : source.levels === 1
        ? [base]
        : Array.from({ length: source.levels }, (_, i) => `${base}_${i + 1}`);
  const level_fields = (facts.level_fields.value ?? fallback).map((field) => canonicalField(field));
  const enrichment_fields = facts.enrichment_fields.value ?? own?.enrichment_fields ?? [];
  if (level_fields.length + enrichment_fields.length === 0)
    wrong('missing', facts.level_fields.at, 'required, a target for the label', 'leave level_fields out');
  const targets = new TargetCheck(wrong);
  const place = facts.level_fields.value ? facts.level_fields.at : facts.path_target.at;
  for (const field of level_fields) targets.target(field, place, 0, 0);
  targets.targets(enrichment_fields, facts.enrichment_fields.at, 0, 0);
  const known = ['label', 'keywords', 'summary', 'cluster_id', 'node_id', 'num_members', 'level'];
  for (const [i, { field_path }] of enrichment_fields.entries()) {
    if (!known.includes(canonicalField(field_path)))
      wrong(
        'field_unknown',
        [...facts.enrichment_fields.at, i],
        `a cluster has no field "${field_path}"`,
        `one of: ${known.join(', ')}`,
      );
  }
  const input_mappings = facts.input_mappings.value ?? own?.input_mappings ?? read;
  for (const [i, { input_key }] of input_mappings.entries()) {
    if (input_key !== 'text')
      wrong('input_unknown', [...facts.input_mappings.at, i], 'the only input of centroids is "text"');
  }
  return {
    config: {
      retriever_id: null,
      input_mappings,
      source_collection: { collection_id: collectionId },
      enrichment_fields,
      threshold,
      centroids: { ...source, level_fields },
    },
    taxonomy_type: source.levels > 1 ? 'hierarchical' : 'flat',
    parents: [{ kind: 'COLLECTION', id: collectionId }],
    warnings,
  };
}

async function copyLevels(
  ctx: NsCtx,
  names: readonly string[],
  facts: Facts,
  wrong: Wrong,
): Promise<
  | {
      readonly source: CentroidSource;
      readonly collectionId: string;
      /** The text that the vectors are made of, as an input. */
      readonly read: readonly InputMapping[];
      readonly warnings: readonly string[];
    }
  | undefined
> {
  const at = facts.cluster_ids.at;
  const levels: Level[] = [];
  for (const [i, name] of names.entries()) {
    const level = await readLevel(ctx, name, [...at, i], wrong);
    if (level) levels.push(level);
  }
  const [first] = levels;
  if (!first || levels.length < names.length) return undefined;
  const other = levels.findIndex((level) => level.feature_uri !== first.feature_uri);
  if (other > 0) {
    wrong(
      'features_differ',
      [...at, other],
      `this definition clusters ${levels[other]!.feature_uri}, the first one ${first.feature_uri}`,
      'name definitions of one feature',
    );
    return undefined;
  }
  const collection = first.collections[0]!;
  const feature = featureOf(collection, first.feature_uri)!;
  const share = facts.cluster_overlap_threshold.value ?? overlapDefault;
  const { nodes, orphans } = buildNodes(levels, share);
  if (nodes.length > centroidsMax) {
    wrong(
      'nodes_too_many',
      at,
      `the runs have ${nodes.length} clusters; at most ${centroidsMax} are possible`,
    );
    return undefined;
  }
  return {
    source: {
      key: await writeNodes(ctx, nodes),
      count: nodes.length,
      levels: levels.length,
      feature_uri: feature.feature_uri,
      metric: feature.metric,
      dims: feature.dims,
      runs: levels.map(({ cluster_id, run_id }) => ({ cluster_id, run_id })),
      level_fields: [],
    },
    collectionId: collection.id,
    read: textRead(collection, feature.feature_uri),
    warnings:
      orphans > 0
        ? [
            `${orphans} of the finer clusters lie in no coarser one by ${share} or more, and stand at the top.`,
          ]
        : [],
  };
}

/** What the plugin of a feature reads, if that is one text: documents without a vector are embedded by it too. */
function textRead(collection: StoredCollection, featureUri: string): InputMapping[] {
  const extractor = collection.feature_extractors.find(({ features }) =>
    features.some((feature) => feature.feature_uri === featureUri),
  );
  const [property, ...others] = new Set(Object.values(extractor?.input_mappings ?? {}));
  const type = property === undefined ? undefined : collection.input_schema.properties[property]?.type;
  if (property === undefined || others.length > 0 || (type !== 'text' && type !== 'string')) return [];
  return [{ input_key: 'text', source_type: 'payload', path: property, override: null }];
}

async function readLevel(
  ctx: NsCtx,
  name: string,
  at: readonly (string | number)[],
  wrong: Wrong,
): Promise<Level | undefined> {
  const [idOrName, runId] = name.split('@') as [string, string | undefined];
  const { cluster } = await viewCluster(ctx, idOrName);
  const { run, groups, documents } = await readResult(ctx, idOrName, runId);
  const uri = cluster.feature_uri;
  const collections = (await Promise.all(cluster.collection_ids.map((id) => findCollection(ctx, id)))).filter(
    (collection) => collection !== undefined,
  );
  const feature = uri && collections[0] ? featureOf(collections[0], uri) : undefined;
  if (!feature) {
    wrong(
      'cluster_unsuitable',
      at,
      `"${cluster.name}" has no centroids of a feature that its collection holds`,
      'name a definition that clusters vectors',
    );
    return undefined;
  }
  const usable = (groups?.groups ?? []).filter(
    ({ centroid_vector }) => centroid_vector.length === feature.dims,
  );
  if (usable.length === 0) {
    wrong('cluster_unsuitable', at, `the run ${run.run_id} of "${cluster.name}" found no clusters`);
    return undefined;
  }
  const members = Map.groupBy(documents, ({ cluster_id }) => cluster_id);
  return {
    cluster_id: cluster.id,
    run_id: run.run_id,
    feature_uri: feature.feature_uri,
    collections,
    nodes: usable.map((group) => ({
      label: group.label,
      summary: group.summary,
      keywords: group.keywords,
      num_members: group.num_members,
      cluster_id: group.cluster_id,
      centroid: group.centroid_vector,
      members: (members.get(group.cluster_id) ?? []).map(
        ({ collection_id, document_id }) => `${collection_id}/${document_id}`,
      ),
    })),
  };
}

function buildNodes(
  levels: readonly Level[],
  share: number,
): { readonly nodes: CentroidNode[]; readonly orphans: number } {
  const nodes: CentroidNode[] = [];
  let orphans = 0;
  let above: Group[] = [];
  for (const [i, level] of levels.entries()) {
    const idOf = (clusterId: string) => (levels.length === 1 ? clusterId : `${i + 1}.${clusterId}`);
    const groups = level.nodes.map(({ cluster_id, members }) => ({ id: idOf(cluster_id), members }));
    const parents = i === 0 ? groups.map(() => null) : parentsByOverlap(above, groups, share);
    for (const [n, { members: _, ...node }] of level.nodes.entries()) {
      if (i > 0 && parents[n] === null) orphans += 1;
      nodes.push({ ...node, node_id: groups[n]!.id, parent_node_id: parents[n]!, level: i + 1 });
    }
    above = groups;
  }
  return { nodes, orphans };
}
