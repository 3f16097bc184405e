// Classifies many documents at once: at each node of a taxonomy the nearest references are found in one embedding call
// and one scan, they vote, and what was matched goes on to the children.
import type { Condition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { RunReads } from '../retrievers/service.ts';
import { resolveStored } from './check.ts';
import { openCentroids } from './classify-centroids.ts';
import type { NodeOutcome } from './classify-node.ts';
import { openNode } from './classify-node.ts';
import { levelsOf } from './hierarchy.ts';
import type { Assignment, Placement, Search } from './placement.ts';
import { withVectors } from './reference-vectors.ts';
import { listReviews, reviewKey, type StoredReview } from './reviews.ts';
import type { StoredTaxonomy, TaxonomyConfig } from './store.ts';
import { versionOf } from './store.ts';
import type { Subject } from './subjects.ts';

export interface Classified {
  /** In the order of the subjects. */
  readonly placements: readonly Placement[];
  /** Subjects whose text the plugin refused. */
  readonly failed: number;
  readonly warnings: readonly string[];
}

export interface Classifier {
  readonly taxonomy: StoredTaxonomy;
  readonly config: TaxonomyConfig;
  /** Number of the version whose configuration this is. */
  readonly version: number;
  /** A few hundred subjects at once are right. */
  classify(subjects: readonly Subject[], deadlineMs: number): Promise<Classified>;
}

export interface ClassifierOptions {
  /** Another version than the one that counts. */
  readonly version?: { readonly number: number; readonly config: TaxonomyConfig } | undefined;
  /** Thresholds and shares do not count, and people's decisions about the subjects themselves do not either. */
  readonly evaluating?: boolean;
  /** The caller may write: what is worked out about decisions is kept. */
  readonly keeps?: boolean;
}

/**
 * Prepares a taxonomy to classify with, over one version of each index that it reads.
 *
 * @throws AppError taxonomy_invalid: a retriever or collection was changed so that it does not fit any more
 */
export async function openClassifier(
  ctx: NsCtx,
  taxonomy: StoredTaxonomy,
  options: ClassifierOptions = {},
): Promise<Classifier> {
  const stored = options.version?.config ?? taxonomy.config;
  const config = options.evaluating ? withoutThresholds(stored) : stored;
  const reviews = await listReviews(ctx, taxonomy.id);
  const decisions = new Map<string, StoredReview>(
    options.evaluating
      ? []
      : reviews.map((review) => [reviewKey(review.collection_id, review.document_id), review]),
  );
  const reads = new RunReads(ctx);
  const search = config.centroids
    ? await openCentroids(ctx, config, config.centroids, reads)
    : await openTree(ctx, taxonomy.id, config, reviews, reads, options.keeps ?? false);
  return {
    taxonomy,
    config,
    version: options.version?.number ?? versionOf(taxonomy),
    async classify(subjects, deadlineMs) {
      const decided = subjects.map((subject) =>
        subject.document_id === undefined || subject.collection_id === undefined
          ? undefined
          : decisions.get(reviewKey(subject.collection_id, subject.document_id)),
      );
      const open = subjects.filter((_, i) => !decided[i]);
      const found =
        open.length > 0 ? await search(open, deadlineMs) : { assignments: [], failed: 0, warnings: [] };
      let next = 0;
      const placements = decided.map((decision): Placement => {
        if (!decision) return { assignments: found.assignments[next++]!, decision: undefined };
        const { action, values, by, at } = decision;
        return { assignments: [], decision: { action, values, by, at } };
      });
      return { placements, failed: found.failed, warnings: found.warnings };
    },
  };
}

function withoutThresholds(config: TaxonomyConfig): TaxonomyConfig {
  return {
    ...config,
    threshold: null,
    ...(config.vote ? { vote: { ...config.vote, min_share: null } } : {}),
    ...(config.nodes ? { nodes: config.nodes.map((node) => ({ ...node, threshold: null })) } : {}),
    ...(config.path ? { path: { ...config.path, level_thresholds: [] } } : {}),
  };
}

async function openTree(
  ctx: NsCtx,
  taxonomyId: string,
  config: TaxonomyConfig,
  stored: readonly StoredReview[],
  reads: RunReads,
  keeps: boolean,
): Promise<Search> {
  const { nodes, faults } = await resolveStored(ctx, config);
  if (faults.length > 0) throw invalid('taxonomy_invalid', faults);
  const reviews = await withVectors(ctx, taxonomyId, config, nodes, stored, keeps);
  const levels = levelsOf(nodes.map(({ node }) => ({ id: node.node_id, parent: node.parent_node_id })));
  const linkedBy = (nodeId: string) =>
    nodes.flatMap(({ node }) =>
      node.parent_node_id === nodeId && node.link ? [node.link.parent_field] : [],
    );
  const opened = nodes.map((node) =>
    openNode(ctx, config, node, linkedBy(node.node.node_id), reviews, reads),
  );

  return async (subjects, deadlineMs) => {
    const assignments: Assignment[][] = subjects.map(() => []);
    /** By subject: outcome of each node that it passed. */
    const passed: Map<string, NodeOutcome>[] = subjects.map(() => new Map());
    let failed = 0;
    const warnings = new Set<string>();
    for (const [depth, level] of levels.entries()) {
      /** By subject, in the order of the nodes. */
      const found: { readonly node: number; readonly outcome: NodeOutcome }[][] = subjects.map(() => []);
      for (const n of level) {
        const { node } = nodes[n]!;
        const members: number[] = [];
        const filters: (Condition | undefined)[] = [];
        for (const i of subjects.keys()) {
          const above = node.parent_node_id === null ? undefined : passed[i]!.get(node.parent_node_id);
          if (node.parent_node_id !== null && !above) continue;
          const link = node.link
            ? opened[n]!.linkFilter(above?.links.get(node.link.parent_field))
            : undefined;
          // A parent without the shared field has no children.
          if (node.link && !link) continue;
          members.push(i);
          filters.push(link);
        }
        if (members.length === 0) continue;
        const answer = await opened[n]!.search(
          members.map((i) => subjects[i]!),
          filters,
          depth + 1,
          deadlineMs,
        );
        failed += answer.failed;
        for (const warning of answer.warnings) warnings.add(warning);
        for (const [m, i] of members.entries()) {
          const outcome = answer.outcomes[m];
          if (outcome) found[i]!.push({ node: n, outcome });
        }
      }
      for (const [i, outcomes] of found.entries()) {
        for (const { node, outcome } of keepOnePerTarget(outcomes)) {
          assignments[i]!.push(...outcome.assignments);
          if (outcome.accepted) passed[i]!.set(nodes[node]!.node.node_id, outcome);
        }
      }
    }
    return { assignments, failed, warnings: [...warnings] };
  };
}

/**
 * Of nodes of one level that write a common target, the one with the higher score counts; of equal ones the one that
 * was named first. The others are as if they had not matched.
 */
function keepOnePerTarget(
  outcomes: readonly { readonly node: number; readonly outcome: NodeOutcome }[],
): { readonly node: number; readonly outcome: NodeOutcome }[] {
  const taken = new Set<string>();
  const dropped = new Set<number>();
  const byScore = outcomes
    .filter(({ outcome }) => outcome.accepted)
    .sort((a, b) => b.outcome.score - a.outcome.score || a.node - b.node);
  for (const { node, outcome } of byScore) {
    const targets = outcome.assignments.flatMap(({ values }) => [...values.keys()]);
    if (targets.some((target) => taken.has(target))) dropped.add(node);
    else for (const target of targets) taken.add(target);
  }
  return outcomes.filter(({ node }) => !dropped.has(node));
}
