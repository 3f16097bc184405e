// A cluster run from start to end, in process: the steps as the state machine orders them, and a clusterer that puts
// each document into the group of its largest coordinate.
import type { LabelModel } from '../../../functions/core/labels/label-model.ts';
import type { ClusterEvent } from '../../../functions/core/resources/clusters/steps.ts';
import { clusterStep } from '../../../functions/core/resources/clusters/steps.ts';
import type { ClusterJob } from '../../../functions/core/resources/clusters/store.ts';
import type {
  ClustererEvent,
  Labels,
  Prepared,
} from '../../../functions/core/resources/clusters/workflow.ts';
import type { App } from '../app.ts';

const keyOf = (url: string) => new URL(url).pathname.replace(/^\//, '');

/**
 * What the real one writes, by a rule that a test can foresee. Fewer than `min_cluster_size` are noise.
 *
 * @param centroids by axis, where they are not the direction of the axis
 */
export async function fakeClusterer(
  app: App,
  event: ClustererEvent,
  centroids: Readonly<Record<number, readonly number[]>> = {},
): Promise<void> {
  const { blobs } = app.ports;
  const bytes = await blobs.get(keyOf(event.vectors_url));
  const vectors = new Float32Array(bytes.buffer, bytes.byteOffset, event.rows * event.dims);
  const lines = Buffer.from(await blobs.get(keyOf(event.texts_url)))
    .toString('utf8')
    .trim()
    .split('\n');
  const documents = lines.map((line) => JSON.parse(line) as { document_id: string; text: string });
  if (bytes.byteLength !== event.rows * event.dims * 4 || documents.length !== event.rows)
    throw new Error('the input does not fit its own numbers');
  const axis = documents.map((_, i) => {
    const row = [...vectors.subarray(i * event.dims, (i + 1) * event.dims)];
    return row.indexOf(Math.max(...row));
  });
  const least = Number(event.algorithm.params.min_cluster_size ?? 5);
  const sizes = new Map<number, number>();
  for (const a of axis) sizes.set(a, (sizes.get(a) ?? 0) + 1);
  const kept = [...sizes].filter(([, size]) => size >= least).sort((x, y) => y[1] - x[1] || x[0] - y[0]);
  const names = new Map(kept.map(([a], i) => [a, `cl_${i}`]));
  const clusters = kept.map(([a, size], i) => {
    const own = documents.filter((_, d) => axis[d] === a);
    return {
      cluster_id: `cl_${i}`,
      num_members: size,
      label: own[0]!.text.split(' ').slice(0, 2).join(', '),
      summary: `${size} of ${event.rows} documents`,
      keywords: own[0]!.text.split(' ').slice(0, 3),
      centroid_vector: centroids[a] ?? Array.from({ length: event.dims }, (_, d) => (d === a ? 1 : 0)),
      representative_ids: own.slice(0, 3).map((document) => document.document_id),
      samples: own.slice(0, event.labels.samples_per_cluster).map((document) => document.text),
    };
  });
  const members = documents.map(({ document_id }, i) => {
    const cluster = names.get(axis[i]!);
    return { document_id, cluster_id: cluster ?? 'noise', probability: cluster ? 0.9 : 0 };
  });
  const points = documents.map(({ document_id }, i) => ({
    document_id,
    x: axis[i]!,
    y: i,
    ...(event.map.n_components === 3 ? { z: 1 } : {}),
  }));
  const noise = members.filter((member) => member.cluster_id === 'noise').length;
  const result = {
    num_clusters: clusters.length,
    num_points: event.rows,
    metrics: { silhouette_score: 0.5, noise_ratio: noise / event.rows },
    clusters,
    members,
    points,
    message: `Found ${clusters.length} clusters in ${event.rows} documents.`,
    degenerate_detail: null,
    label_source: 'ctfidf',
    pipeline: { map: { method: event.map.method, n_components: event.map.n_components }, seed: event.seed },
    timings: {},
  };
  await blobs.put(keyOf(event.result_url), JSON.stringify(result));
}

/** The jobs of a kind that wait in the outbox. */
export function queuedJobs(app: App, kind: string): ClusterJob[] {
  return app.ports.table
    .dump()
    .filter((item) => item.pk.startsWith('OUTBOX#'))
    .map((item) => JSON.parse(String(item.message)) as { to: string; job?: ClusterJob })
    .flatMap(({ to, job }) => (to === 'jobs' && job && (job.kind as string) === kind ? [job] : []));
}

/** The events of a type that wait in the outbox. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into metadata of every shape.
export function events(app: App, type: string): any[] {
  return app.ports.table
    .dump()
    .filter((item) => item.pk.startsWith('OUTBOX#'))
    .map((item) => JSON.parse(String(item.message)) as { event?: { event_type: string } })
    .flatMap(({ event }) => (event?.event_type === type ? [event] : []));
}

export interface RunOptions {
  readonly model?: LabelModel;
  readonly clusterer?: (app: App, event: ClustererEvent) => Promise<void>;
}

/** Every step of the run, in the order of the state machine. */
export async function runCluster(app: App, job: ClusterJob, options: RunOptions = {}): Promise<Prepared> {
  const step = (event: ClusterEvent) => clusterStep(app.ports, event, options.model);
  const prepared = (await step({ ...job, step: 'prepare' })) as Prepared;
  let labels: Labels | null = null;
  if (prepared.rows > 0) {
    await (options.clusterer ?? fakeClusterer)(app, prepared.request!);
    labels = (await step({ ...job, step: 'label' })) as Labels;
  }
  await step({ ...job, step: 'commit', labels, label_error: null });
  return prepared;
}

/** The job of a run that the API answered with. */
export function jobFor(app: App, clusterId: string, runId: string): ClusterJob {
  return {
    kind: 'cluster',
    org_id: app.principal.orgId,
    namespace_id: app.namespace,
    cluster_id: clusterId,
    run_id: runId,
    request_id: 'req1',
  };
}
