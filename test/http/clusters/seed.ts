// Puts documents into a collection as a batch leaves them (rows, segments, head, receipts), without running one: for
// tests of what comes after a batch.
import { derivedId } from '../../../functions/core/ids.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import { featuresOf, getCollection } from '../../../functions/core/resources/collections/service.ts';
import type {
  BatchRef,
  DocumentBody,
  JsonObject,
} from '../../../functions/core/resources/documents/service.ts';
import { insertRow, stageRow, toRow } from '../../../functions/core/resources/documents/store.ts';
import { pluginStore } from '../../../functions/core/resources/plugins/store.ts';
import {
  commitIndex,
  documentsUri,
  openSequence,
  putSegment,
  readHead,
} from '../../../functions/core/store/vector-index.ts';
import { flattenColumns } from '../../../functions/core/vectors/columns.ts';
import type { App } from '../app.ts';

export const dims = 4;
export const featureUri = 'mixpeek://toy_embed@1.0.0/toy_embedding';

type SeedFeature = (typeof plugins)[keyof typeof plugins][number];

const cosine = { feature_type: 'embedding', embedding_dim: dims, distance_metric: 'cosine' } as const;
/** By plugin: what it makes. */
const plugins = {
  toy_embed: [{ ...cosine, feature_name: 'toy_embedding' }],
  flat_embed: [{ ...cosine, feature_name: 'place', distance_metric: 'euclid' }],
  pair_embed: [
    { ...cosine, feature_name: 'left' },
    { ...cosine, feature_name: 'right', embedding_dim: 2 },
  ],
} as const;

/**
 * A bucket with `text` and `topic`, a plugin, and a collection over both.
 *
 * @param plugin one feature of four dimensions (`toy_embed`), one with the metric euclid, or two
 */
export async function seedCollection(
  app: App,
  name = 'articles',
  plugin: keyof typeof plugins = 'toy_embed',
): Promise<StoredCollection> {
  const { ctx } = app;
  if (!(await pluginStore.find(ctx, `${plugin}_1_0_0`))) {
    await pluginStore.create(ctx, {
      id: `${plugin}_1_0_0`,
      name: `${plugin}@1.0.0`,
      parents: [],
      plugin_name: plugin,
      version: '1.0.0',
      description: null,
      archive_sha256: 'f'.repeat(64),
      archive_key: 'plugins/toy.zip',
      archive_bytes: 100,
      root: '',
      features: plugins[plugin].map((feature: SeedFeature) => ({ ...feature })),
      input_mappings: { text: 'text' },
      compute_profile: {},
      has_realtime: false,
      deployment: 'batch_only',
      deployed_at: null,
      validation_warnings: [],
    });
  }
  const bucket = await app.call('POST', '/v1/namespaces/{ns}/buckets', {
    name: `${name}-bucket`,
    bucket_schema: { properties: { text: { type: 'text', required: true }, topic: { type: 'string' } } },
  });
  if (bucket.status !== 200) throw new Error(JSON.stringify(bucket.body));
  const collection = await app.call('POST', '/v1/namespaces/{ns}/collections', {
    name,
    source: { type: 'bucket', bucket_ids: [bucket.body.bucket_id] },
    feature_extractors: [
      { feature_extractor_name: plugin, version: '1.0.0', input_mappings: { text: 'text' } },
    ],
  });
  if (collection.status !== 200) throw new Error(JSON.stringify(collection.body));
  return getCollection(ctx, collection.body.collection_id);
}

export interface SeedDocument {
  readonly id: string;
  readonly fields: JsonObject;
  readonly vector?: readonly number[];
  /** By feature URI; `vector` is that of the first feature. */
  readonly vectors?: Readonly<Record<string, readonly number[]>>;
}

let batches = 0;

/** One committed batch of these documents. A document that is there already is made anew. */
export async function seedBatch(
  app: App,
  collection: StoredCollection,
  documents: readonly SeedDocument[],
): Promise<BatchRef> {
  const { ctx } = app;
  batches += 1;
  const batch = {
    bucket_id: collection.source.bucket_ids[0]!,
    batch_id: derivedId('batch', 'seed', batches),
    attempt: 1,
  };
  const opened = openSequence(ctx, await readHead(ctx, collection.id), batch);
  await ctx.ports.table.write([opened.write!]);
  const head = await readHead(ctx, collection.id);
  let fresh = 0;
  for (const { id, fields } of documents) {
    const body: DocumentBody = {
      fields,
      lineage: {
        bucket_id: batch.bucket_id,
        object_id: `obj_${id}`,
        object_version: opened.seq,
        batch_id: batch.batch_id,
        feature_extractor_id: 'toy_embed_1_0_0',
        feature_extractor_ids: ['toy_embed_1_0_0'],
        ordinal: 0,
      },
      enrichments: [],
      blobs: [],
      features: [featureUri],
      created_at: new Date(ctx.ports.clock.now()).toISOString(),
      updated_at: new Date(ctx.ports.clock.now()).toISOString(),
    };
    const slot = {
      seq: opened.seq,
      object_id: `obj_${id}`,
      object_version: opened.seq,
      content_hash: 'h',
      body: JSON.stringify(body),
    };
    const item = await ctx.ports.table.get(ctx.ns.document(collection.id, id));
    if (!item) fresh += 1;
    const write = item
      ? stageRow(ctx, collection.id, toRow(item), head, slot)
      : insertRow(ctx, collection.id, id, slot);
    if (write) await ctx.ports.table.write([write]);
  }
  const columns = documents.map(({ id, fields }) => ({ id, columns: flattenColumns(fields) }));
  const features = featuresOf(collection).map((feature, i) => ({
    ...feature,
    rows: documents.flatMap(({ id, vector, vectors, fields }) => {
      const own = vectors?.[feature.feature_uri] ?? (i === 0 ? vector : undefined);
      return own ? [{ id, vector: own, columns: flattenColumns(fields) }] : [];
    }),
  }));
  const additions = [
    {
      uri: documentsUri,
      dims: 0,
      metric: null,
      segment: await putSegment(ctx, collection.id, { kind: 'data', dims: 0, metric: null, rows: columns }),
    },
    ...(await Promise.all(
      features
        .filter(({ rows }) => rows.length > 0)
        .map(async ({ feature_uri, dims: own, metric, rows }) => ({
          uri: feature_uri,
          dims: own,
          metric,
          segment: await putSegment(ctx, collection.id, { kind: 'data', dims: own, metric, rows }),
        })),
    )),
  ];
  await commitIndex(
    ctx,
    [{ collection_id: collection.id, additions, document_delta: fresh, sequence: batch }],
    { token: batch.batch_id },
  );
  const ids = documents.map(({ id }) => id);
  await ctx.ports.table.write([
    {
      put: {
        ...ctx.ns.batch(batch.bucket_id, batch.batch_id),
        ...batch,
        status: 'COMPLETED',
        committed_attempt: 1,
      },
    },
    {
      put: {
        ...ctx.ns.receipt(batch.batch_id, 1, 0),
        chunk: 0,
        collection_id: collection.id,
        counts: { objects: ids.length, processed: ids.length, failed: 0, skipped: 0, documents: ids.length },
        errors: {},
        result_key: 'none',
        outcome: JSON.stringify({ segments: [], document_ids: ids }),
        document_delta: fresh,
        rows_written: true,
        at: new Date(ctx.ports.clock.now()).toISOString(),
      },
    },
  ]);
  return batch;
}

/** Documents on the axes: `doc_a0`, `doc_a1` ... near the first axis, `doc_b0` ... near the second; texts sort as ids. */
export function axisDocuments(groups: Readonly<Record<string, number>>): SeedDocument[] {
  const words: Record<string, string> = {
    a: 'quantum entangled qubits',
    b: 'referee league goal',
    c: 'yeast oven dough',
  };
  return Object.entries(groups).flatMap(([axis, count], place) =>
    Array.from({ length: count }, (_, i) => ({
      id: `doc_${axis}${i}`,
      fields: { text: `${words[axis] ?? axis} number ${i}`, topic: axis },
      vector: Array.from({ length: dims }, (_, d) => (d === place ? 1 : 0.01 * (i + 1))),
    })),
  );
}
