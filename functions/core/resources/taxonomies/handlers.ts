// Requests about taxonomies -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { AssignmentView, routes, Taxonomy, TaxonomyRun, TaxonomyVersion } from './contract.ts';
import './enrich.ts';
import { evaluateTaxonomy } from './evaluation.ts';
import { executeTaxonomy } from './execute.ts';
import { listNodes } from './nodes.ts';
import type { Assignment } from './placement.ts';
import { leading, takenOf } from './placement.ts';
import { listDoubtful, reviewDocument, withdrawReview } from './review.ts';
import type { ChangedTaxonomy, StoredRun, StoredTaxonomy, StoredVersion, TaxonomyConfig } from './service.ts';
import {
  activateVersion,
  applyToCollection,
  cloneTaxonomy,
  createFromCluster,
  createTaxonomy,
  createVersion,
  deleteTaxonomy,
  getTaxonomy,
  getVersion,
  lastRunsOf,
  listTaxonomies,
  targetsOf,
  updateTaxonomy,
  versionOf,
  versionsOf,
} from './service.ts';

function toRun(run: StoredRun): TaxonomyRun {
  return {
    run_id: run.run_id,
    task_id: run.task_id,
    collection_id: run.collection_id,
    status: run.status,
    processed: run.processed,
    enriched: run.enriched,
    changed: run.changed,
    failed: run.failed,
    error: run.error_message,
    ...(run.warnings ? { warnings: [...run.warnings] } : {}),
    created_at: run.created_at,
    completed_at: run.completed_at,
  };
}

const isOpen = (run: StoredRun) => run.status === 'PENDING' || run.status === 'PROCESSING';

/** Of the runs of one change, the one that says most: unfinished, then failed, then any. */
function telling(runs: readonly StoredRun[]): StoredRun | undefined {
  return runs.find(isOpen) ?? runs.find((run) => run.status === 'FAILED') ?? runs.at(-1);
}

type StoredConfigView = Taxonomy['config'];

function toConfig(config: TaxonomyConfig, taxonomy_type: StoredTaxonomy['taxonomy_type']): StoredConfigView {
  const mappings = (list: TaxonomyConfig['input_mappings']) =>
    list.map(({ input_key, source_type, path, override }) => ({ input_key, source_type, path, override }));
  const fields = (list: TaxonomyConfig['enrichment_fields']) =>
    list.map(({ field_path, target_field, merge_mode }) => ({ field_path, target_field, merge_mode }));
  const { mode, top_k, min_share } = config.vote ?? { mode: 'best' as const, top_k: 1, min_share: null };
  const { path, centroids, nodes } = config;
  return {
    taxonomy_type,
    retriever_id: config.retriever_id,
    input_mappings: mappings(config.input_mappings),
    source_collection: {
      collection_id: config.source_collection.collection_id,
      enrichment_fields: fields(config.enrichment_fields),
    },
    enrichment_fields: fields(config.enrichment_fields),
    threshold: config.threshold,
    vote: mode,
    top_k,
    min_share,
    ...(nodes
      ? {
          hierarchical_nodes: nodes.map(({ link, ...node }) => ({
            node_id: node.node_id,
            parent_node_id: node.parent_node_id,
            label: node.label,
            summary: node.summary,
            keywords: [...node.keywords],
            collection_id: node.collection_id,
            retriever_id: node.retriever_id,
            input_mappings: mappings(node.input_mappings),
            enrichment_fields: fields(node.enrichment_fields),
            threshold: node.threshold,
            link: link && { field: link.field, parent_field: link.parent_field },
          })),
        }
      : {}),
    ...(path
      ? {
          path: {
            fields: [...path.fields],
            separator: path.separator,
            target: path.target,
            level_fields: [...path.level_fields],
            level_thresholds: [...path.level_thresholds],
          },
        }
      : {}),
    ...(centroids
      ? {
          centroids: {
            count: centroids.count,
            levels: centroids.levels,
            feature_uri: centroids.feature_uri,
            metric: centroids.metric,
            runs: centroids.runs.map(({ cluster_id, run_id }) => ({ cluster_id, run_id })),
            level_fields: [...centroids.level_fields],
          },
        }
      : {}),
  };
}

function toTaxonomy(stored: StoredTaxonomy, runs: readonly StoredRun[]): Taxonomy {
  const config = toConfig(stored.config, stored.taxonomy_type);
  const run = telling(runs);
  return {
    taxonomy_id: stored.id,
    taxonomy_name: stored.name,
    name: stored.name,
    description: stored.description,
    taxonomy_type: stored.taxonomy_type,
    retriever_id: config.retriever_id,
    collection_id: config.source_collection.collection_id,
    input_mappings: config.input_mappings,
    enrichment_fields: config.enrichment_fields,
    targets: targetsOf(stored.config),
    threshold: config.threshold,
    execution_mode: stored.execution_mode,
    applications: stored.applications.map((entry) => ({
      collection_id: entry.collection_id,
      execution_mode: entry.execution_mode,
    })),
    config,
    ready: !runs.some(isOpen),
    last_run: run ? toRun(run) : null,
    task_id: run?.task_id ?? null,
    metadata: stored.metadata as Taxonomy['metadata'],
    version: versionOf(stored),
    latest_version: stored.last_version ?? 1,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

function toVersion(taxonomy: StoredTaxonomy, stored: StoredVersion): TaxonomyVersion {
  return {
    taxonomy_id: taxonomy.id,
    version: stored.version,
    is_current: stored.version === versionOf(taxonomy),
    taxonomy_type: stored.taxonomy_type,
    config: toConfig(stored.config, stored.taxonomy_type),
    note: stored.note,
    created_by: stored.created_by,
    created_at: stored.created_at,
  };
}

type JsonRecord = Taxonomy['metadata'];

function toAssignment({ values, ...rest }: Assignment): AssignmentView {
  const { runner_up } = rest;
  return {
    ...rest,
    value: rest.value as JsonRecord[string],
    runner_up: runner_up && { ...runner_up, value: runner_up.value as JsonRecord[string] },
    fields: Object.fromEntries([...values].map(([field, { value }]) => [field, value])) as JsonRecord,
  };
}

async function present(ctx: NsCtx, stored: readonly StoredTaxonomy[]): Promise<Taxonomy[]> {
  const runs = await lastRunsOf(ctx, stored);
  return stored.map((taxonomy, i) => toTaxonomy(taxonomy, runs[i]!));
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = await present(ctx, await listTaxonomies(ctx));
  return pageOfAll(ctx, 'taxonomies', rows, input, ['taxonomy_id', 'taxonomy_name', 'description']);
}

async function answer(ctx: NsCtx, { taxonomy, taskIds }: ChangedTaxonomy, status?: number) {
  const [presented] = await present(ctx, [taxonomy]);
  return new Answer(
    {
      ...presented!,
      task_ids: [...taskIds],
      ...(ctx.warnings.length > 0 ? { warnings: [...ctx.warnings] } : {}),
    },
    { etag: taxonomy.revision, ...(status === undefined ? {} : { status }) },
  );
}

export const handlers: Handlers<typeof routes> = {
  createTaxonomy: async ({ ctx, body }) => answer(ctx, await createTaxonomy(ctx, body)),
  listTaxonomies: ({ ctx, query }) => page(ctx, query),
  searchTaxonomies: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getTaxonomy: async ({ ctx, params, query }) => {
    const taxonomy = await getTaxonomy(ctx, params.taxonomy!);
    const [presented] = await present(ctx, [taxonomy]);
    const other = query.version === undefined ? undefined : await getVersion(ctx, taxonomy, query.version);
    if (!other) return new Answer(presented!, { etag: taxonomy.revision });
    const shown = toTaxonomy(
      { ...taxonomy, config: other.config, taxonomy_type: other.taxonomy_type, version: other.version },
      [],
    );
    const { ready, last_run, task_id } = presented!;
    return new Answer({ ...shown, ready, last_run, task_id }, { etag: taxonomy.revision });
  },
  putTaxonomy: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateTaxonomy(ctx, params.taxonomy!, body, ifMatch)),
  patchTaxonomy: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateTaxonomy(ctx, params.taxonomy!, body, ifMatch)),
  deleteTaxonomy: async ({ ctx, params, query, ifMatch }) => {
    const { taxonomy, taskIds } = await deleteTaxonomy(
      ctx,
      params.taxonomy!,
      query.remove_enrichments,
      ifMatch,
    );
    return {
      success: true as const,
      message: `Taxonomy ${taxonomy.name} deleted.`,
      task_ids: [...taskIds],
    };
  },
  executeTaxonomy: async ({ ctx, params, query, body }) => {
    const { taxonomy, version, results, subjects, placements, failed } = await executeTaxonomy(
      ctx,
      params.taxonomy!,
      body,
      query.version,
    );
    const matches = placements.map((placement, i) => {
      const found = leading(placement);
      const { decision } = placement;
      return {
        document_id: subjects[i]!.document_id ?? null,
        taxonomy_id: taxonomy.id,
        node_id: found?.node_id ?? null,
        matched_document_id: found?.document_id ?? null,
        matched_collection_id: found?.collection_id ?? null,
        score: found?.score ?? null,
        runner_up: found ? toAssignment(found).runner_up : null,
        margin: found?.margin ?? null,
        fields: Object.fromEntries(
          [...takenOf(placement)].map(([field, { value }]) => [field, value]),
        ) as JsonRecord,
        assignments: placement.assignments.map(toAssignment),
        decision: decision ? { action: decision.action, by: decision.by, at: decision.at } : null,
      };
    });
    return {
      taxonomy_id: taxonomy.id,
      version,
      stats: {
        processed_docs: subjects.length,
        enriched: placements.filter((placement) => takenOf(placement).size > 0).length,
        errors: failed,
      },
      results: results as JsonRecord[],
      matches,
    };
  },
  listTaxonomyNodes: async ({ ctx, params, query }) => {
    const { version, ...list } = query;
    const { taxonomy, version: number, nodes } = await listNodes(ctx, params.taxonomy!, version);
    const rows = nodes.map((node) => ({
      node_id: node.node_id,
      parent_node_id: node.parent_node_id,
      level: node.level,
      label: node.label,
      summary: node.summary,
      keywords: [...node.keywords],
      collection_id: node.collection_id,
      retriever_id: node.retriever_id,
      threshold: node.threshold,
      num_members: node.num_members,
    }));
    return pageOfAll(ctx, `taxonomy nodes ${taxonomy.id} ${number}`, rows, list, [
      'node_id',
      'label',
      'summary',
    ]);
  },
  createTaxonomyVersion: async ({ ctx, params, body, ifMatch }) => {
    const { taxonomy, version } = await createVersion(ctx, params.taxonomy!, body, ifMatch);
    return new Answer(toVersion(taxonomy, version), { etag: taxonomy.revision });
  },
  listTaxonomyVersions: async ({ ctx, params, query }) => {
    const { taxonomy, versions } = await versionsOf(ctx, params.taxonomy!);
    const rows = versions.map((version) => toVersion(taxonomy, version));
    return pageOfAll(ctx, `taxonomy versions ${taxonomy.id}`, rows, query, ['note']);
  },
  activateTaxonomyVersion: async ({ ctx, params, ifMatch }) =>
    answer(ctx, await activateVersion(ctx, params.taxonomy!, params.version!, ifMatch)),
  cloneTaxonomy: async ({ ctx, params, query, body }) =>
    answer(ctx, await cloneTaxonomy(ctx, params.taxonomy!, body, query.version), 201),
  createTaxonomyFromCluster: async ({ ctx, params, body }) =>
    answer(ctx, await createFromCluster(ctx, params.cluster!, body), 201),
  applyTaxonomy: async ({ ctx, params, body }) => {
    const filters = body.filters ?? body.filter ?? undefined;
    const run = await applyToCollection(ctx, params.collection!, body.taxonomy_id, filters);
    return { task_id: run.task_id, run: toRun(run) };
  },
  evaluateTaxonomy: async ({ ctx, params, query, body }) => {
    const { taxonomy, suggested, per_class, confusions, curve, ...rest } = await evaluateTaxonomy(
      ctx,
      params.taxonomy!,
      body,
      query.version,
    );
    return {
      ...rest,
      taxonomy_id: taxonomy.id,
      suggested_threshold: suggested?.threshold ?? null,
      at_suggested: suggested,
      per_class: [...per_class],
      confusions: [...confusions],
      curve: [...curve],
    };
  },
  listTaxonomyReviews: async ({ ctx, params, query }) => {
    const { taxonomy, collectionId, results, total } = await listDoubtful(ctx, params.taxonomy!, query);
    return {
      taxonomy_id: taxonomy.id,
      collection_id: collectionId,
      results: results.map(({ fields, runner_up, ...rest }) => ({
        ...rest,
        fields: fields as JsonRecord,
        runner_up: runner_up && { ...runner_up, value: runner_up.value as JsonRecord[string] },
      })),
      total,
    };
  },
  reviewTaxonomyDocument: async ({ ctx, params, body }) => {
    const { taxonomy, review } = await reviewDocument(ctx, params.taxonomy!, params.document!, body);
    return {
      taxonomy_id: taxonomy.id,
      document_id: review.document_id,
      collection_id: review.collection_id,
      action: review.action,
      values: review.values as JsonRecord,
      is_reference: Object.keys(review.vectors).length > 0,
      by: review.by,
      at: review.at,
      revision: review.revision,
    };
  },
  withdrawTaxonomyReview: async ({ ctx, params, query }) => {
    const { document_id } = await withdrawReview(
      ctx,
      params.taxonomy!,
      params.document!,
      query.collection_id,
    );
    return { success: true as const, message: `The decision about ${document_id} is taken back.` };
  },
};
