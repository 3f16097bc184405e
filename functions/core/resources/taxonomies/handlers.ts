// Requests about taxonomies -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { routes, Taxonomy, TaxonomyRun } from './contract.ts';
import { executeTaxonomy } from './execute.ts';
import type { ChangedTaxonomy, StoredRun, StoredTaxonomy } from './service.ts';
import {
  createTaxonomy,
  deleteTaxonomy,
  getTaxonomy,
  lastRunsOf,
  listTaxonomies,
  updateTaxonomy,
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
    created_at: run.created_at,
    completed_at: run.completed_at,
  };
}

const isOpen = (run: StoredRun) => run.status === 'PENDING' || run.status === 'PROCESSING';

/** Of the runs of one change, the one that says most: unfinished, then failed, then any. */
function telling(runs: readonly StoredRun[]): StoredRun | undefined {
  return runs.find(isOpen) ?? runs.find((run) => run.status === 'FAILED') ?? runs.at(-1);
}

function toTaxonomy(stored: StoredTaxonomy, runs: readonly StoredRun[]): Taxonomy {
  const { config } = stored;
  const input_mappings = config.input_mappings.map(({ input_key, source_type, path, override }) => ({
    input_key,
    source_type,
    path,
    override,
  }));
  const enrichment_fields = config.enrichment_fields.map(({ field_path, target_field, merge_mode }) => ({
    field_path,
    target_field,
    merge_mode,
  }));
  const { collection_id } = config.source_collection;
  const run = telling(runs);
  return {
    taxonomy_id: stored.id,
    taxonomy_name: stored.name,
    name: stored.name,
    description: stored.description,
    taxonomy_type: stored.taxonomy_type,
    retriever_id: config.retriever_id,
    collection_id,
    input_mappings,
    enrichment_fields,
    threshold: config.threshold,
    execution_mode: stored.execution_mode,
    applications: stored.applications.map((entry) => ({
      collection_id: entry.collection_id,
      execution_mode: entry.execution_mode,
    })),
    config: {
      taxonomy_type: stored.taxonomy_type,
      retriever_id: config.retriever_id,
      input_mappings,
      source_collection: { collection_id, enrichment_fields },
      enrichment_fields,
      threshold: config.threshold,
    },
    ready: !runs.some(isOpen),
    last_run: run ? toRun(run) : null,
    task_id: run?.task_id ?? null,
    metadata: stored.metadata as Taxonomy['metadata'],
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
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

async function answer(ctx: NsCtx, { taxonomy, taskIds }: ChangedTaxonomy) {
  const [presented] = await present(ctx, [taxonomy]);
  return new Answer({ ...presented!, task_ids: [...taskIds] }, { etag: taxonomy.revision });
}

export const handlers: Handlers<typeof routes> = {
  createTaxonomy: async ({ ctx, body }) => answer(ctx, await createTaxonomy(ctx, body)),
  listTaxonomies: ({ ctx, query }) => page(ctx, query),
  searchTaxonomies: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getTaxonomy: async ({ ctx, params }) => {
    const taxonomy = await getTaxonomy(ctx, params.taxonomy!);
    const [presented] = await present(ctx, [taxonomy]);
    return new Answer(presented!, { etag: taxonomy.revision });
  },
  putTaxonomy: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateTaxonomy(ctx, params.taxonomy!, body, ifMatch)),
  patchTaxonomy: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateTaxonomy(ctx, params.taxonomy!, body, ifMatch)),
  deleteTaxonomy: async ({ ctx, params, ifMatch }) => {
    const taxonomy = await deleteTaxonomy(ctx, params.taxonomy!, ifMatch);
    return { success: true as const, message: `Taxonomy ${taxonomy.name} deleted.` };
  },
  executeTaxonomy: async ({ ctx, params, body }) => {
    const { taxonomy, results, subjects, nearest, failed } = await executeTaxonomy(
      ctx,
      params.taxonomy!,
      body,
    );
    const matches = nearest.map((entry, i) => ({
      document_id: subjects[i]!.document_id ?? null,
      taxonomy_id: taxonomy.id,
      matched_document_id: entry?.document_id ?? null,
      matched_collection_id: entry?.collection_id ?? null,
      score: entry?.score ?? null,
      fields: Object.fromEntries(entry?.values ?? []) as Taxonomy['metadata'],
    }));
    return {
      taxonomy_id: taxonomy.id,
      version: taxonomy.revision,
      stats: {
        processed_docs: subjects.length,
        enriched: nearest.filter((entry) => entry?.values !== undefined).length,
        errors: failed,
      },
      results: results as Taxonomy['metadata'][],
      matches,
    };
  },
};
