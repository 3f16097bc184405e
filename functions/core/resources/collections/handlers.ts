// Requests about collections -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Collection, routes } from './contract.ts';
import type { StoredCollection, StoredExtractor } from './service.ts';
import {
  countDocuments,
  createCollection,
  deleteCollection,
  describeIndex,
  getCollection,
  listCollections,
  updateCollection,
} from './service.ts';

type Json = Collection['metadata'];

function toExtractor(stored: StoredExtractor): Collection['feature_extractor'] {
  const parameters = stored.parameters as Json;
  return {
    feature_extractor_name: stored.feature_extractor_name,
    version: stored.version,
    feature_extractor_id: stored.plugin_id,
    input_mappings: { ...stored.input_mappings },
    parameters,
    params: parameters,
  };
}

function toFeatures(stored: StoredCollection): Collection['features'] {
  const features = stored.feature_extractors.flatMap((extractor) =>
    extractor.features.map((feature) => ({ extractor, feature })),
  );
  return features.map(({ extractor, feature }, i) => ({
    feature_uri: feature.feature_uri,
    feature_address: feature.feature_uri,
    feature_name: feature.feature_name,
    feature_extractor_name: extractor.feature_extractor_name,
    version: extractor.version,
    embedding_dim: feature.dims,
    distance_metric: feature.metric,
    primary: i === 0,
  }));
}

function toCollection(stored: StoredCollection, documentCount: number): Collection {
  const extractors = stored.feature_extractors.map(toExtractor);
  const features = toFeatures(stored);
  const input = stored.input_schema as Collection['input_schema'];
  return {
    collection_id: stored.id,
    collection_name: stored.name,
    name: stored.name,
    description: stored.description,
    enabled: stored.enabled,
    source: { type: 'bucket', bucket_ids: [...stored.source.bucket_ids] },
    feature_extractors: extractors,
    feature_extractor: extractors[0]!,
    features,
    feature_aliases: { ...stored.feature_aliases },
    input_schema: input,
    output_schema: {
      properties: {
        ...input.properties,
        ...Object.fromEntries(
          features.map((f) => [f.feature_name, { type: 'array', embedding_dim: f.embedding_dim }]),
        ),
      },
    },
    max_failure_share: stored.max_failure_share,
    taxonomy_applications: stored.taxonomy_applications as Json[],
    cluster_applications: stored.cluster_applications as Json[],
    alert_applications: stored.alert_applications as Json[],
    document_count: documentCount,
    metadata: stored.metadata as Json,
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const stored = await listCollections(ctx);
  const counts = await countDocuments(ctx, stored);
  const rows = stored.map((collection, i) => toCollection(collection, counts[i]!));
  return pageOfAll(ctx, 'collections', rows, input, ['collection_id', 'collection_name', 'description']);
}

async function answer(ctx: NsCtx, stored: StoredCollection) {
  const [count] = await countDocuments(ctx, [stored]);
  return new Answer(toCollection(stored, count!), { etag: stored.revision });
}

export const handlers: Handlers<typeof routes> = {
  createCollection: async ({ ctx, body }) => answer(ctx, await createCollection(ctx, body)),
  listCollections: ({ ctx, query }) => page(ctx, query),
  searchCollections: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getCollection: async ({ ctx, params }) => answer(ctx, await getCollection(ctx, params.collection!)),
  getCollectionFeatures: async ({ ctx, params }) => ({
    features: toFeatures(await getCollection(ctx, params.collection!)),
  }),
  getCollectionIndex: async ({ ctx, params, query }) =>
    describeIndex(ctx, await getCollection(ctx, params.collection!), query.live_rows),
  putCollection: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateCollection(ctx, params.collection!, body, ifMatch)),
  patchCollection: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateCollection(ctx, params.collection!, body, ifMatch)),
  deleteCollection: async ({ ctx, params, ifMatch }) => {
    const collection = await deleteCollection(ctx, params.collection!, ifMatch);
    return { success: true as const, message: `Collection ${collection.name} deleted.` };
  },
};
