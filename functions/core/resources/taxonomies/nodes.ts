// The nodes of a taxonomy as they can be read: explicit ones, clusters, or the prefixes of the references' paths.
import type { NsCtx } from '../../context.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import type { Json } from '../documents/service.ts';
import { readNodes } from './centroids.ts';
import { levelsOf } from './hierarchy.ts';
import { readPath } from './paths.ts';
import { getTaxonomy, versionFor, versionOf } from './service.ts';
import type { PathRule, StoredTaxonomy, TaxonomyConfig } from './store.ts';
import { nodesOf } from './store.ts';

/** A node without what only searches need. */
export interface NodeView {
  readonly node_id: string;
  readonly parent_node_id: string | null;
  /** From 1. */
  readonly level: number;
  readonly label: string | null;
  readonly summary: string | null;
  readonly keywords: readonly string[];
  readonly collection_id: string | null;
  readonly retriever_id: string | null;
  readonly threshold: number | null;
  /** Of a cluster its documents, of a path the references below it. */
  readonly num_members: number | null;
}

/** Prefixes that are listed. */
const prefixesMax = 10_000;

async function pathNodes(ctx: NsCtx, config: TaxonomyConfig, rule: PathRule): Promise<NodeView[]> {
  const snapshot = await documentsSnapshot(ctx, config.source_collection.collection_id);
  const counts = new Map<string, { readonly path: readonly string[]; count: number }>();
  if (snapshot) {
    for (const [i, { firstRow }] of snapshot.parts.entries()) {
      for (const local of snapshot.liveRowsOf(i)) {
        const values = rule.fields.map((field) => snapshot.valueAt(firstRow + local, field) as Json);
        const parts = readPath(values, rule);
        for (const depth of parts.keys()) {
          const path = parts.slice(0, depth + 1);
          const key = JSON.stringify(path);
          const known = counts.get(key);
          if (known) known.count += 1;
          else if (counts.size < prefixesMax) counts.set(key, { path, count: 1 });
        }
      }
    }
  }
  if (counts.size === prefixesMax) ctx.warnings.push(`Only ${prefixesMax} different prefixes are listed.`);
  const idOf = (path: readonly string[]) => path.join(rule.separator);
  return [...counts.values()]
    .map(({ path, count }) => ({
      node_id: idOf(path),
      parent_node_id: path.length > 1 ? idOf(path.slice(0, -1)) : null,
      level: path.length,
      label: path.at(-1)!,
      summary: null,
      keywords: [],
      collection_id: config.source_collection.collection_id,
      retriever_id: config.retriever_id,
      threshold:
        rule.level_thresholds[Math.min(path.length, rule.level_thresholds.length) - 1] ?? config.threshold,
      num_members: count,
    }))
    .sort((a, b) => a.level - b.level || (a.node_id < b.node_id ? -1 : a.node_id > b.node_id ? 1 : 0));
}

/**
 * All nodes, level by level.
 *
 * @throws AppError taxonomy_not_found, taxonomy_version_not_found, index_unavailable, index_corrupt
 */
export async function listNodes(
  ctx: NsCtx,
  idOrName: string,
  version: number | undefined,
): Promise<{ readonly taxonomy: StoredTaxonomy; readonly version: number; readonly nodes: NodeView[] }> {
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const chosen = await versionFor(ctx, taxonomy, version);
  const config = chosen?.config ?? taxonomy.config;
  return {
    taxonomy,
    version: chosen?.number ?? versionOf(taxonomy),
    nodes: await nodesIn(ctx, config),
  };
}

async function nodesIn(ctx: NsCtx, config: TaxonomyConfig): Promise<NodeView[]> {
  const { centroids, path } = config;
  if (path) return pathNodes(ctx, config, path);
  if (centroids) {
    return (await readNodes(ctx, centroids)).map(({ centroid: _, cluster_id: __, ...node }) => ({
      ...node,
      collection_id: null,
      retriever_id: null,
      threshold: config.threshold,
    }));
  }
  const nodes = nodesOf(config);
  return levelsOf(
    nodes.map(({ node_id, parent_node_id }) => ({ id: node_id, parent: parent_node_id })),
  ).flatMap((level, depth) =>
    level.map((i) => {
      const { input_mappings: _, enrichment_fields: __, link: ___, ...node } = nodes[i]!;
      return { ...node, level: depth + 1, num_members: null } as NodeView;
    }),
  );
}
