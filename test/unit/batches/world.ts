// A namespace with a bucket, a plugin and collections over memory stores, and a runner that answers as the real one
// does: what batch tests are written in.
import { createHash } from 'node:crypto';
import type { NsCtx } from '../../../functions/core/context.ts';
import type { GranaryEvent, Job } from '../../../functions/core/events.ts';
import type { FunctionCaller } from '../../../functions/core/ports.ts';
import type { ChunkPointer } from '../../../functions/core/resources/batches/files.ts';
import type { BatchJob } from '../../../functions/core/resources/batches/store.ts';
import { findBatch } from '../../../functions/core/resources/batches/store.ts';
import {
  admitBatch,
  commitBatch,
  failBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import { createBucket } from '../../../functions/core/resources/buckets/service.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import { createCollection } from '../../../functions/core/resources/collections/service.ts';
import { objectItem } from '../../../functions/core/resources/objects/store.ts';
import type { StoredPlugin } from '../../../functions/core/resources/plugins/store.ts';
import { pluginStore } from '../../../functions/core/resources/plugins/store.ts';
import { getJson } from '../../../functions/core/store/blobs.ts';
import { outboxMessage } from '../../../functions/core/store/outbox.ts';
import { documentsSnapshot } from '../../../functions/core/store/vector-index.ts';
import { listRows } from '../../../functions/core/vectors/list-rows.ts';
import type { App, TestPorts } from '../../http/app.ts';
import { makeApp, makeTestPorts } from '../../http/app.ts';

export const dims = 4;

interface RunnerRow {
  readonly row: number;
  readonly data: string;
  readonly object_id: string;
  readonly blob_property: string;
}

interface RunnerEvent {
  readonly operation: string;
  readonly plugin: { readonly plugin_id: string };
  readonly features: readonly { readonly name: string; readonly dims: number }[];
  readonly parameters: Record<string, unknown>;
  readonly rows: readonly RunnerRow[];
}

/** A vector that follows from a text. */
export function vectorFor(text: string, length = dims): number[] {
  const digest = createHash('sha256').update(text).digest();
  return Array.from({ length }, (_, i) => digest[i % 32]! / 255 - 0.5);
}

/** What the fake plugin does with a row: how many outputs it makes, which vector, or how it fails. */
export type Behaviour = (
  row: RunnerRow,
  event: RunnerEvent,
) => {
  readonly outputs?: number;
  readonly columns?: Record<string, unknown>;
  readonly vector?: readonly number[] | null;
  /** A code: the row fails with it. */
  readonly fail?: string | undefined;
  readonly traceback?: string;
  readonly retryable?: boolean;
};

const embed: Behaviour = () => ({});

export interface FakeRunner extends FunctionCaller {
  behave: Behaviour;
  /** Answers a whole call in another way; called before anything else. */
  answer: ((event: RunnerEvent) => unknown) | undefined;
  /** What the plugin prints in a call, and what else the runner says of it. */
  say: ((event: RunnerEvent) => Record<string, unknown>) | undefined;
  readonly calls: RunnerEvent[];
  readonly tenants: (string | undefined)[];
}

export function makeRunner(): FakeRunner {
  const runner: FakeRunner = {
    behave: embed,
    answer: undefined,
    say: undefined,
    calls: [],
    tenants: [],
    async call(payload, options) {
      const event = payload as RunnerEvent;
      runner.calls.push(event);
      runner.tenants.push(options?.tenant);
      const other = runner.answer?.(event);
      if (other !== undefined) return other;
      const outputs: unknown[] = [];
      const dropped: number[] = [];
      const failures: unknown[] = [];
      const vectors = new Map(event.features.map((feature) => [feature.name, [] as number[][]]));
      for (const row of event.rows) {
        const act = runner.behave(row, event);
        if (act.fail !== undefined) {
          failures.push({
            row: row.row,
            code: act.fail,
            message: `row ${row.row} was refused`,
            retryable: act.retryable ?? false,
            traceback: act.traceback ?? null,
          });
          continue;
        }
        const count = act.outputs ?? 1;
        if (count === 0) dropped.push(row.row);
        for (let ordinal = 0; ordinal < count; ordinal++) {
          const features: Record<string, number | null> = {};
          for (const feature of event.features) {
            const list = vectors.get(feature.name)!;
            const vector =
              act.vector === undefined ? vectorFor(`${row.data} ${ordinal}`, feature.dims) : act.vector;
            features[feature.name] = vector === null ? null : list.push([...vector]) - 1;
          }
          outputs.push({ row: row.row, ordinal, columns: act.columns ?? {}, features });
        }
      }
      return {
        outputs,
        dropped,
        failures,
        vectors: Object.fromEntries(
          event.features.map(({ name, dims: length }) => {
            const list = vectors.get(name)!;
            const data = Buffer.from(Float32Array.from(list.flat()).buffer).toString('base64');
            return [name, { dims: length, count: list.length, data_base64: data }];
          }),
        ),
        warnings: [],
        logs: '',
        timings: {},
        ...runner.say?.(event),
      };
    },
  };
  return runner;
}

export interface World extends App {
  readonly runner: FakeRunner;
  readonly bucketId: string;
  /** Puts objects into the bucket by the row, without a request each. */
  addObjects(
    texts: readonly string[],
    more?: { readonly metadata?: Record<string, string> },
  ): Promise<string[]>;
  /** Changes the text of an object. */
  rewriteObject(objectId: string, text: string): Promise<void>;
  addPlugin(
    name: string,
    features?: readonly { readonly name: string; readonly dims: number }[],
    more?: Partial<Pick<StoredPlugin, 'version' | 'compute_profile' | 'deployment' | 'secrets'>> & {
      readonly metric?: 'cosine' | 'dot' | 'euclid';
    },
  ): Promise<StoredPlugin>;
  addCollection(
    name: string,
    plugins?: readonly string[],
    more?: Record<string, unknown>,
  ): Promise<StoredCollection>;
}

/** @param stores other stores than memory ones */
export async function makeWorld(stores: Partial<TestPorts> = {}): Promise<World> {
  const runner = makeRunner();
  const app = await makeApp({ ports: { ...makeTestPorts({ runner }), ...stores } });
  const { ctx, ports } = app;
  const bucket = await createBucket(ctx, {
    name: 'articles',
    bucket_schema: {
      properties: {
        text: { type: 'text', required: false },
        title: { type: 'text', required: false },
        image: { type: 'image', required: false },
      },
    },
  });
  let made = 0;
  const objectOf = (
    objectId: string,
    version: number,
    text: string,
    metadata: Record<string, string> = {},
  ) => ({
    object_id: objectId,
    bucket_id: bucket.id,
    version,
    blobs: [
      {
        blob_id: `blob_${objectId.slice(4)}`,
        property: 'text',
        type: 'text',
        data: text,
        mime_type: 'text/plain',
        size_bytes: text.length,
      },
    ],
    metadata,
    key_prefix: null,
    created_at: '2026-01-01T00:00:00.000Z',
    updated_at: '2026-01-01T00:00:00.000Z',
  });
  const world: World = {
    ...app,
    runner,
    bucketId: bucket.id,
    async addObjects(texts, more = {}) {
      const ids = texts.map(() => `obj_${String(made++).padStart(20, '0')}`);
      await ports.table.writeMany(
        texts.map((text, i) => ({ put: objectItem(ctx, objectOf(ids[i]!, 1, text, more.metadata)) })),
      );
      return ids;
    },
    async rewriteObject(objectId, text) {
      const item = await ports.table.get(ctx.ns.object(bucket.id, objectId));
      await ports.table.writeMany([
        { put: objectItem(ctx, objectOf(objectId, Number(item!.version) + 1, text)) },
      ]);
    },
    async addPlugin(name, features = [{ name: `${name}_embedding`, dims }], more = {}) {
      const { version = '1.0.0', metric = 'cosine', ...rest } = more;
      const content = version === '1.0.0' ? name : `${name}@${version}`;
      return pluginStore.create(ctx, {
        id: `${name}_${version.replaceAll('.', '_')}`,
        name: `${name}@${version}`,
        parents: [],
        plugin_name: name,
        version,
        description: null,
        archive_sha256: createHash('sha256').update(content).digest('hex'),
        archive_key: `plugins/${content}.zip`,
        archive_bytes: 100,
        root: name,
        features: features.map((feature) => ({
          feature_type: 'embedding',
          feature_name: feature.name,
          embedding_dim: feature.dims,
          distance_metric: metric,
        })),
        input_mappings: { text: 'text' },
        compute_profile: { batch_size: 64 },
        has_realtime: false,
        deployment: 'batch_only',
        deployed_at: null,
        validation_warnings: [],
        ...rest,
      });
    },
    async addCollection(name, plugins = ['embedder'], more = {}) {
      return createCollection(ctx, {
        name,
        source: { type: 'bucket', bucket_ids: [bucket.id] },
        feature_extractors: plugins.map((plugin) => ({
          feature_extractor_name: plugin,
          version: '1.0.0',
          parameters: undefined,
        })),
        extractors_key: 'feature_extractors',
        ...more,
      } as Parameters<typeof createCollection>[1]);
    },
  };
  await world.addPlugin('embedder');
  return world;
}

/** Jobs in the outbox, oldest first. */
export function jobsOf(world: App): Job[] {
  return world.ports.table
    .dump()
    .filter((item) => item.pk.startsWith('OUTBOX#'))
    .sort((a, b) => (a.sk < b.sk ? -1 : 1))
    .map((item) => outboxMessage(item))
    .flatMap((message) => (message.to === 'jobs' ? [message.job] : []));
}

/** Events in the outbox, oldest first. */
export function eventsOf(world: App, ...types: readonly string[]): GranaryEvent[] {
  return world.ports.table
    .dump()
    .filter((item) => item.pk.startsWith('OUTBOX#'))
    .sort((a, b) => (a.sk < b.sk ? -1 : 1))
    .map((item) => outboxMessage(item))
    .flatMap((message) =>
      message.to === 'bus' && (types.length === 0 || types.includes(message.event.event_type))
        ? [message.event]
        : [],
    );
}

/** The job of a batch, as the starter would get it. */
export async function jobFor(ctx: NsCtx, bucketId: string, batchId: string): Promise<BatchJob> {
  const batch = await findBatch(ctx, bucketId, batchId);
  if (!batch) throw new Error(`no batch ${batchId}`);
  return {
    kind: 'batch',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    bucket_id: bucketId,
    batch_id: batchId,
    attempt: batch.attempt,
    request_id: batch.request_id,
  };
}

export async function pointersOf(ctx: NsCtx, chunksKey: string): Promise<ChunkPointer[]> {
  return getJson<ChunkPointer[]>(ctx.ports.blobs, chunksKey);
}

/** Runs a batch from admission to its end, as the state machine does: an error before the commit goes to `fail`. */
export async function runBatch(ctx: NsCtx, job: BatchJob): Promise<void> {
  const admission = await admitBatch(ctx, job);
  if (admission !== 'start') throw new Error(`the batch was not admitted: ${admission}`);
  try {
    const plan = await planBatch(ctx, job);
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await commitBatch(ctx, job);
  } catch (error) {
    await failBatch(ctx, job, { reason: (error as Error).name, detail: (error as Error).message });
    return;
  }
  await finishBatch(ctx, job);
}

/** Ids of all documents that the index shows. */
export async function indexedIds(ctx: NsCtx, collectionId: string): Promise<string[]> {
  const snapshot = await documentsSnapshot(ctx, collectionId);
  return snapshot ? listRows(snapshot, { limit: 1_000_000, idOrder: 'asc' }) : [];
}
