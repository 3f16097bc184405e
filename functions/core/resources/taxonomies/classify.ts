// Finds the reference of each document, many at once, and says what a document takes over from it.
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, parse } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import type { InputSchema } from '../../retrieval/index.ts';
import { searchMany } from '../../retrieval/index.ts';
import { queryBytesMax } from '../../retrieval/query.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import { getDocuments } from '../documents/service.ts';
import { embedFault, IndexSearchPort, RunReads } from '../retrievers/service.ts';
import { resolveConfig } from './check.ts';
import type { InputMapping, StoredTaxonomy } from './store.ts';

/** Something to classify: a document, or inputs as they are. */
export interface Subject {
  /** Not a reference of itself. */
  readonly document_id?: string;
  readonly fields?: JsonObject;
  readonly inputs?: JsonObject;
}

/** The nearest reference of a subject. */
export interface Nearest {
  readonly document_id: string;
  readonly collection_id: string;
  /** Raw similarity, cut to six decimals: the last bits depend on which texts are embedded together. */
  readonly score: number;
  /** Target field -> value; undefined: the score is below the threshold, so nothing is taken over. */
  readonly values: ReadonlyMap<string, Json> | undefined;
}

export interface Classified {
  /** In the order of the subjects; undefined where there is nothing to compare or no reference. */
  readonly nearest: readonly (Nearest | undefined)[];
  /** Subjects whose text the plugin refused. */
  readonly failed: number;
  readonly warnings: readonly string[];
}

export interface Classifier {
  readonly taxonomy: StoredTaxonomy;
  /** One embedding call and one scan; a few hundred subjects at once are right. */
  classify(subjects: readonly Subject[], deadlineMs: number): Promise<Classified>;
}

/** Fields that a reference must have: a value that is not null and not an empty text, in every source field. */
function referenceFilter(taxonomy: StoredTaxonomy): Condition {
  const names = [
    ...new Set(taxonomy.config.enrichment_fields.map(({ field_path }) => canonicalField(field_path))),
  ];
  return parse({
    AND: names.flatMap((field) => [
      { field, operator: 'is_null', value: false },
      { field, operator: 'ne', value: '' },
    ]),
  });
}

/** A field of a document by its path, own properties only; undefined if it is not there. */
export function readField(fields: JsonObject, path: string): Json | undefined {
  const name = canonicalField(path);
  if (Object.hasOwn(fields, name)) return fields[name];
  let value: Json | undefined = fields;
  for (const part of name.split('.')) {
    if (value === null || typeof value !== 'object' || Array.isArray(value) || !Object.hasOwn(value, part))
      return undefined;
    value = (value as JsonObject)[part];
  }
  return value;
}

/** The beginning of a text that a search accepts. */
function clip(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= queryBytesMax) return text;
  // A character that was cut through decodes as U+FFFD.
  return bytes
    .subarray(0, queryBytesMax)
    .toString('utf8')
    .replace(/\uFFFD+$/u, '');
}

/** The retriever's inputs of one document; what the document does not have is left out. */
export function inputsOf(
  fields: JsonObject,
  mappings: readonly InputMapping[],
  schema: InputSchema,
): JsonObject {
  const inputs: Record<string, Json> = {};
  for (const [name, field] of Object.entries(schema)) {
    if (field.default !== undefined) inputs[name] = field.default as Json;
  }
  for (const { input_key, source_type, path, override } of mappings) {
    const value = source_type === 'literal' ? override : readField(fields, path!);
    if (value !== undefined && value !== null)
      inputs[input_key] = typeof value === 'string' ? clip(value) : value;
  }
  return inputs;
}

/**
 * Prepares a taxonomy to classify with, over one version of the index.
 *
 * @throws AppError taxonomy_invalid: the retriever was changed so that it does not fit any more
 */
export async function openClassifier(ctx: NsCtx, taxonomy: StoredTaxonomy): Promise<Classifier> {
  const { config } = taxonomy;
  const { resolved, faults } = await resolveConfig(
    ctx,
    { ...config, retriever: config.retriever_id, collection: config.source_collection.collection_id },
    {
      retriever: ['config', 'retriever_id'],
      collection: ['config', 'source_collection', 'collection_id'],
      input_mappings: ['config', 'input_mappings'],
      enrichment_fields: ['config', 'enrichment_fields'],
      threshold: ['config', 'threshold'],
    },
  );
  if (!resolved) throw invalid('taxonomy_invalid', faults);
  const { retriever, source, inputSchema } = resolved;
  const { collection_identifiers: _, ...rest } = resolved.parameters;
  const single = rest.searches.length === 1;
  // The port reads the source collection alone, which every search of the retriever was found to read.
  const parameters = {
    ...rest,
    final_top_k: 1,
    searches: rest.searches.map(({ collection_identifiers: __, ...search }) => search),
  };
  const filter = referenceFilter(taxonomy);
  const reads = new RunReads(ctx);

  return {
    taxonomy,
    async classify(subjects, deadlineMs) {
      let failed = 0;
      const port = new IndexSearchPort(ctx, {
        collections: [source],
        reads,
        onTextFailure: (failure, pluginId) => {
          // What may pass on another try is tried again; what the plugin refuses for good concerns its text alone.
          if (failure.retryable) throw embedFault(pluginId, failure);
          failed += 1;
        },
      });
      const { outcomes, warnings } = await searchMany(
        {
          parameters,
          queries: subjects.map(({ document_id, fields, inputs }) => ({
            inputs: inputs ?? inputsOf(fields ?? {}, config.input_mappings, inputSchema),
            ...(document_id === undefined ? {} : { exclude_ids: [document_id] }),
          })),
          filter,
          context: { namespace_id: ctx.ns.namespaceId, retriever_id: retriever.id },
          // Fused rankings need the searches' own depth; one search needs its best hit only.
          ...(single ? { top_k: 1 } : {}),
          deadlineMs,
        },
        port,
        ctx.ports.clock,
      );
      const hits = outcomes.map(({ hits: [hit] }) => hit);
      const passing = hits.filter((hit) => hit !== undefined && isNear(hit.score, config.threshold));
      const ids = [...new Set(passing.map((hit) => hit!.document_id))];
      const found = await getDocuments(
        ctx,
        ids.map((document_id) => ({ collection_id: source.id, document_id })),
      );
      const references = new Map(ids.map((id, i) => [id, found[i]?.fields]));
      const nearest = hits.map((hit): Nearest | undefined => {
        if (!hit) return undefined;
        const at = {
          document_id: hit.document_id,
          collection_id: hit.collection_id,
          score: Math.round(hit.score * 1e6) / 1e6,
        };
        if (!isNear(hit.score, config.threshold)) return { ...at, values: undefined };
        const fields = references.get(hit.document_id);
        const values = new Map<string, Json>();
        for (const { field_path, target_field } of config.enrichment_fields) {
          const value = fields && readField(fields, field_path);
          // Deleted or changed since it was searched: it is no reference now.
          if (value === undefined || value === null) return undefined;
          values.set(canonicalField(target_field), value);
        }
        return { ...at, values };
      });
      return { nearest, failed, warnings };
    },
  };
}

function isNear(score: number, threshold: number | null): boolean {
  return threshold === null || score >= threshold;
}
