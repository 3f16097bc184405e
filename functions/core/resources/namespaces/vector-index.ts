// Where the vectors of a namespace are: what a request sees of it, and how a move to another backend is asked for.
import { readCopies } from '../../backends/copy-state.ts';
import {
  enabledBackends,
  fromVectorIndex,
  requireBackend,
  toVectorIndex,
} from '../../backends/of-namespace.ts';
import type { BackendName } from '../../backends/registry.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { audit } from '../../store/audit.ts';
import { dueAttributes } from '../../store/keys.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Attribute } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import { openIndex } from '../../store/vector-index.ts';
import { listCollections } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import { migrationJob, migrationWatchMs } from './migrate.ts';
import { findNamespace } from './store.ts';

export interface FeatureIndexState {
  readonly collection_id: string;
  readonly feature_uri: string;
  readonly dims: number;
  readonly metric: string;
  readonly version: number;
  readonly stored_rows: number;
  readonly copies: {
    readonly backend: BackendName;
    readonly synced_version: number;
    readonly rows: number;
    readonly error: string | null;
  }[];
}

export interface VectorIndexView {
  readonly namespace_id: string;
  readonly backend: BackendName;
  readonly storage: 'float32' | 'bfloat16';
  readonly state: 'ready' | 'migrating';
  readonly migration: {
    readonly to: BackendName;
    readonly task_id: string;
    readonly started_at: string;
  } | null;
  readonly enabled_backends: BackendName[];
  readonly features: FeatureIndexState[];
}

const notFound = (ctx: NsCtx) =>
  new AppError('namespace_not_found', { detail: `No namespace "${ctx.ns.namespaceId}".` });

/**
 * Counts come from manifests and from the last syncs: nothing is scanned and no backend is asked.
 *
 * @throws AppError namespace_not_found, index_unavailable, index_corrupt
 */
export async function readVectorIndexState(ctx: NsCtx): Promise<VectorIndexView> {
  const namespace = await findNamespace(ctx, ctx.ns.namespaceId);
  if (!namespace) throw notFound(ctx);
  const { backend, storage, migration } = toVectorIndex(namespace);
  const features: FeatureIndexState[] = [];
  for (const { id } of await listCollections(ctx)) {
    const [{ head, manifest }, copies] = await Promise.all([openIndex(ctx, id), readCopies(ctx, id)]);
    for (const [uri, feature] of Object.entries(manifest.features)) {
      if (feature.dims === 0 || feature.metric === null) continue;
      features.push({
        collection_id: id,
        feature_uri: uri,
        dims: feature.dims,
        metric: feature.metric,
        version: head.version,
        stored_rows: feature.segments.reduce((sum, { kind, rows }) => sum + (kind === 'data' ? rows : 0), 0),
        copies: copies.flatMap((copy) => {
          const found = copy.features[uri];
          if (!found) return [];
          const { version, rows, error } = found;
          return [{ backend: copy.backend as BackendName, synced_version: version, rows, error }];
        }),
      });
    }
  }
  return {
    namespace_id: namespace.id,
    backend,
    storage,
    state: migration === null ? 'ready' : 'migrating',
    migration:
      migration === null
        ? null
        : { to: migration.to, task_id: migration.task_id, started_at: migration.started_at },
    enabled_backends: enabledBackends(ctx),
    features,
  };
}

export interface RequestedMigration {
  readonly from: BackendName;
  readonly to: BackendName;
  readonly run_id: string;
  readonly task_id: string;
}

/**
 * Begins the move of a namespace to another backend; a worker does it (migrate.ts).
 *
 * @throws AppError vector_backend_not_enabled, vector_index_migrating, vector_index_unchanged, namespace_not_found,
 *   namespace_changed
 */
export async function requestMigration(ctx: NsCtx, to: BackendName): Promise<RequestedMigration> {
  requireBackend(ctx, to);
  const namespace = await findNamespace(ctx, ctx.ns.namespaceId);
  if (!namespace) throw notFound(ctx);
  const index = toVectorIndex(namespace);
  if (index.migration !== null) {
    throw new AppError('vector_index_migrating', {
      detail: `The vectors are being moved to ${index.migration.to} (task ${index.migration.task_id}); wait until that has ended.`,
      extra: { task_id: index.migration.task_id },
    });
  }
  if (index.dropping !== null) {
    throw new AppError('vector_index_migrating', {
      detail: `What ${index.dropping} held of this namespace is still being removed; try again in a few minutes.`,
      retryAfterSeconds: 120,
    });
  }
  if (index.backend === to) {
    throw new AppError('vector_index_unchanged', { detail: `The vectors are in ${to} already.` });
  }
  const { clock, random, table } = ctx.ports;
  const run_id = newId('run', clock, random);
  const task_id = newId('task', clock, random);
  const started_at = isoTime(now(ctx));
  const job = migrationJob(ctx, run_id);
  const run: { readonly [name: string]: Attribute } = {
    run_id,
    task_id,
    from: index.backend,
    to,
    status: 'PENDING',
    created_at: started_at,
    updated_at: started_at,
  };
  try {
    await table.write([
      {
        update: ctx.org.namespace(namespace.id),
        set: {
          vector_index: fromVectorIndex({ ...index, migration: { to, run_id, task_id, started_at } }),
          revision: namespace.revision + 1,
          updated_at: started_at,
        },
        if: [
          { attribute: 'revision', eq: namespace.revision },
          { attribute: 'state', eq: 'active' },
        ],
      },
      {
        put: {
          ...ctx.ns.migration(run_id),
          ...run,
          // Should the job get lost, the sweeper sends it again.
          watch_job: JSON.stringify(job),
          ...dueAttributes(run_id, isoTime(now(ctx) + migrationWatchMs)),
        },
      },
      createTask(ctx, {
        task_id,
        task_type: 'api_namespaces_vector_index_migrate',
        namespace_id: namespace.id,
        target: { kind: 'vector_migration', run_id },
      }),
      enqueue(ctx, job, run_id),
      audit(ctx, 'namespace.vector_index.migrate', namespace.id),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    throw new AppError('namespace_changed', {
      detail: `The namespace ${namespace.id} changed meanwhile; read it again.`,
    });
  }
  return { from: index.backend, to, run_id, task_id };
}
