// Makes the configuration of a taxonomy out of what a request says and what the taxonomy said before.
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { NodePlaces, ResolvedNode } from './check.ts';
import { collectFaults, resolveNode, TargetCheck } from './check.ts';
import { copyClusters } from './copy-clusters.ts';
import type { Facts } from './definition.ts';
import { graphFaults, levelsOf } from './hierarchy.ts';
import { pathDepthMax } from './paths.ts';
import type {
  DefinedConfig,
  EnrichmentField,
  PathRule,
  TaxonomyConfig,
  TaxonomyNode,
  VoteRule,
} from './store.ts';
import { bestMatch } from './store.ts';

type Kind = 'flat' | 'nodes' | 'path' | 'centroids';

function kindOf(facts: Facts, own: TaxonomyConfig | undefined): Kind {
  if (facts.nodes.value) return 'nodes';
  if (facts.path_field.value || facts.path_fields.value) return 'path';
  if (facts.cluster_ids.value) return 'centroids';
  if (!own || facts.taxonomy_type.value === 'flat') return own?.centroids ? 'centroids' : 'flat';
  return own.nodes ? 'nodes' : own.path ? 'path' : own.centroids ? 'centroids' : 'flat';
}

function voteOf(facts: Facts, own: TaxonomyConfig | undefined): VoteRule | undefined {
  const { vote, top_k, min_share } = facts;
  if (vote.value === undefined && top_k.value === undefined && min_share.value === undefined)
    return own?.vote;
  const before = own?.vote ?? bestMatch;
  const many = top_k.value ?? (vote.value === 'best' ? 1 : before.top_k);
  const mode = vote.value ?? (many === 1 ? 'best' : before.mode === 'best' ? 'weighted' : before.mode);
  const rule = {
    mode,
    top_k: mode === 'best' ? 1 : vote.value && top_k.value === undefined ? Math.max(5, many) : many,
    min_share: min_share.value ?? before.min_share,
  };
  const isDefault = rule.mode === 'best' && rule.top_k === 1 && rule.min_share === null;
  return isDefault ? undefined : rule;
}

const placesIn = (at: readonly (string | number)[], facts: Facts): NodePlaces => ({
  retriever: [...at, 'retriever_id'],
  collection: [...at, 'collection_id'],
  input_mappings: facts.input_mappings.value ? facts.input_mappings.at : [...at, 'input_mappings'],
  enrichment_fields: [...at, 'enrichment_fields'],
  threshold: [...at, 'threshold'],
  link: [...at, 'link'],
});

/**
 * The configuration that a request asks for: what it leaves out stays as `own` has it.
 *
 * @param own the configuration before; undefined: a new taxonomy
 * @param faults gets everything that is wrong
 * @returns undefined exactly if something is wrong
 * @throws AppError cluster_not_found, cluster_run_not_found for the clusters that it names
 */
export async function defineConfig(
  ctx: NsCtx,
  facts: Facts,
  own: TaxonomyConfig | undefined,
  faults: FieldFault[],
): Promise<DefinedConfig | undefined> {
  const before = faults.length;
  const kind = kindOf(facts, own);
  const vote = voteOf(facts, own);
  const voted = vote ? { vote } : {};
  const threshold = facts.threshold.value === undefined ? (own?.threshold ?? null) : facts.threshold.value;
  let defined: DefinedConfig | undefined;
  if (kind === 'nodes') defined = await defineNodes(ctx, facts, own, threshold, voted, faults);
  else if (kind === 'centroids') {
    defined = await copyClusters(ctx, facts, own, threshold, collectFaults(faults));
  } else defined = await defineRoot(ctx, facts, own, kind, threshold, voted, faults);
  return faults.length > before ? undefined : defined;
}

async function defineRoot(
  ctx: NsCtx,
  facts: Facts,
  own: TaxonomyConfig | undefined,
  kind: 'flat' | 'path',
  threshold: number | null,
  voted: { readonly vote?: VoteRule },
  faults: FieldFault[],
): Promise<DefinedConfig | undefined> {
  const wrong = collectFaults(faults);
  const retriever = facts.retriever.value ?? own?.retriever_id ?? undefined;
  const collection = facts.collection.value ?? own?.source_collection.collection_id;
  const input_mappings = facts.input_mappings.value ?? own?.input_mappings ?? [];
  const enrichment_fields = facts.enrichment_fields.value ?? own?.enrichment_fields ?? [];
  if (retriever === undefined)
    wrong('missing', facts.retriever.at, 'required, the id or name of a retriever');
  if (collection === undefined)
    wrong('missing', facts.collection.at, 'required, the collection with the references');
  if (kind === 'flat' && enrichment_fields.length === 0)
    wrong('missing', facts.enrichment_fields.at, 'required, a list of fields to take over');
  const path = kind === 'path' ? pathRule(facts, own) : undefined;
  if (retriever === undefined || collection === undefined) return undefined;
  const resolved = await resolveNode(
    ctx,
    {
      node_id: 'root',
      parent_node_id: null,
      label: null,
      summary: null,
      keywords: [],
      collection_id: collection,
      retriever_id: retriever,
      input_mappings,
      enrichment_fields,
      threshold,
      link: null,
    },
    {
      retriever: facts.retriever.at,
      collection: facts.collection.at,
      input_mappings: facts.input_mappings.at,
      enrichment_fields: facts.enrichment_fields.at,
      threshold: facts.threshold.at,
      link: [],
    },
    threshold !== null || (path?.level_thresholds.length ?? 0) > 0,
    wrong,
  );
  const targets = new TargetCheck(wrong);
  if (path) {
    const at = facts.path_fields.value ? facts.path_fields.at : facts.path_field.at;
    for (const field of path.fields) targets.source(field, at);
    targets.target(path.target, facts.path_target.at, 0, 0);
    for (const [i, field] of path.level_fields.entries())
      targets.target(field, facts.level_fields.value ? [...facts.level_fields.at, i] : at, 0, 0);
  }
  targets.fields(enrichment_fields, facts.enrichment_fields.at, 0, 0);
  if (!resolved) return undefined;
  return {
    config: {
      retriever_id: resolved.retriever.id,
      input_mappings,
      source_collection: { collection_id: resolved.source.id },
      enrichment_fields,
      threshold,
      ...voted,
      ...(path ? { path } : {}),
    },
    taxonomy_type: path ? 'hierarchical' : 'flat',
    parents: parentsOf([resolved]),
    warnings: [],
  };
}

function pathRule(facts: Facts, own: TaxonomyConfig | undefined): PathRule {
  const before = own?.path;
  const given = facts.path_fields.value ?? (facts.path_field.value ? [facts.path_field.value] : undefined);
  const fields = (given ?? before?.fields ?? []).map((field) => canonicalField(field));
  const kept = given === undefined ? before : undefined;
  const nameOf = (field: string) => `auto_${field.split('.').at(-1)}`;
  const target = canonicalField(
    facts.path_target.value ?? kept?.target ?? (fields.length > 1 ? 'auto_path' : nameOf(fields[0]!)),
  );
  const levels =
    fields.length > 1
      ? fields.map(nameOf)
      : Array.from({ length: pathDepthMax }, (_, i) => `${target}_${i + 1}`);
  return {
    fields,
    separator: facts.path_separator.value ?? before?.separator ?? '/',
    target,
    level_fields:
      facts.level_fields.value?.map((field) => canonicalField(field)) ?? kept?.level_fields ?? levels,
    level_thresholds: facts.level_thresholds.value ?? before?.level_thresholds ?? [],
  };
}

async function defineNodes(
  ctx: NsCtx,
  facts: Facts,
  own: TaxonomyConfig | undefined,
  threshold: number | null,
  voted: { readonly vote?: VoteRule },
  faults: FieldFault[],
): Promise<DefinedConfig | undefined> {
  const wrong = collectFaults(faults);
  const retriever = facts.retriever.value ?? own?.retriever_id ?? undefined;
  const mappings = facts.input_mappings.value ?? own?.input_mappings ?? [];
  const fields = facts.enrichment_fields.value ?? own?.enrichment_fields ?? [];
  const nodes: { node: TaxonomyNode; places: NodePlaces }[] = [];
  const list = facts.nodes.value;
  if (facts.collection.value !== undefined)
    wrong('not_supported', facts.collection.at, 'each node names its own collection', 'leave it out');
  if (!list) {
    for (const fact of [facts.retriever, facts.input_mappings, facts.enrichment_fields, facts.threshold]) {
      if (fact.value !== undefined)
        wrong('nodes_needed', fact.at, 'each node has its own by now', 'send the nodes with it');
    }
  }
  for (const [i, given] of (list ?? []).entries()) {
    const at = [...facts.nodes.at, i];
    const places = placesIn(at, given.input_mappings ? emptyFacts(facts) : facts);
    const own_retriever = given.retriever ?? retriever;
    if (own_retriever === undefined)
      wrong('missing', places.retriever, 'required here or for the whole taxonomy: a retriever');
    const enrichment_fields: readonly EnrichmentField[] = given.enrichment_fields ?? fields;
    if (enrichment_fields.length === 0)
      wrong('missing', places.enrichment_fields, 'required, a list of fields to take over');
    if (given.link && given.parent === null)
      wrong('link_without_parent', places.link, 'the root has no parent to be linked with');
    nodes.push({
      node: {
        node_id: given.id,
        parent_node_id: given.parent,
        label: given.label,
        summary: given.summary,
        keywords: given.keywords,
        collection_id: given.collection,
        retriever_id: own_retriever ?? '',
        input_mappings: given.input_mappings ?? mappings,
        enrichment_fields,
        threshold: given.threshold === undefined ? threshold : given.threshold,
        link: given.link,
      },
      places,
    });
  }
  if (!list) {
    for (const [i, node] of (own?.nodes ?? []).entries()) {
      // What a node has by itself stays; what it had from the taxonomy cannot be told apart any more.
      nodes.push({ node, places: placesIn([...facts.nodes.at, i], facts) });
    }
  }
  const graph = nodes.map(({ node }) => ({ id: node.node_id, parent: node.parent_node_id }));
  for (const { index, type, message, fix } of graphFaults(graph))
    wrong(type, index === undefined ? facts.nodes.at : [...facts.nodes.at, index], message, fix);
  if (faults.length > 0) return undefined;
  const resolved = (
    await Promise.all(
      nodes.map(({ node, places }) => resolveNode(ctx, node, places, node.threshold !== null, wrong)),
    )
  ).filter((node) => node !== undefined);
  const targets = new TargetCheck(wrong);
  const levels = levelsOf(graph);
  for (const { node, places } of nodes) {
    for (const [i, { field_path }] of node.enrichment_fields.entries())
      targets.source(field_path, [...places.enrichment_fields, i]);
    if (node.link) targets.source(node.link.field, places.link);
  }
  for (const [level, indices] of levels.entries())
    for (const i of indices)
      targets.targets(nodes[i]!.node.enrichment_fields, nodes[i]!.places.enrichment_fields, i, level);
  if (resolved.length < nodes.length) return undefined;
  const root = resolved.find(({ node }) => node.parent_node_id === null)!;
  return {
    config: {
      retriever_id: root.retriever.id,
      input_mappings: root.node.input_mappings,
      source_collection: { collection_id: root.source.id },
      enrichment_fields: root.node.enrichment_fields,
      threshold: root.node.threshold,
      ...voted,
      nodes: resolved.map(({ node }) => node),
    },
    taxonomy_type: 'hierarchical',
    parents: parentsOf(resolved),
    warnings: [],
  };
}

/** Facts that say nothing about mappings, so that a node's own place is named. */
const emptyFacts = (facts: Facts): Facts => ({
  ...facts,
  input_mappings: { at: facts.input_mappings.at, value: undefined },
});

export function parentsOf(nodes: readonly ResolvedNode[]): Parent[] {
  const parents = nodes.flatMap(({ retriever, source }): Parent[] => [
    { kind: 'RETRIEVER', id: retriever.id },
    { kind: 'COLLECTION', id: source.id },
  ]);
  return [...new Map(parents.map((parent) => [parent.id, parent])).values()];
}
