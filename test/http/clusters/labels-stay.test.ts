// Names between runs: a cluster that is what it was keeps its name, and the model is not asked about it again.
import { describe, expect, it } from 'vitest';
import type { LabelModel, LabelPrompt } from '../../../functions/core/labels/label-model.ts';
import type { ClustererEvent } from '../../../functions/core/resources/clusters/workflow.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { fakeClusterer, jobFor, runCluster } from './run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';

/** Names each cluster by a number that never comes again; remembers which it was asked about. */
function countingModel(): LabelModel & { readonly asked: string[][] } {
  const asked: string[][] = [];
  let count = 0;
  return {
    name: 'counting',
    limits: { promptTokensMax: 100_000, runTokensMax: 1_000_000 },
    asked,
    complete: async (prompt: LabelPrompt) => {
      const ids = [...new Set(prompt.user.match(/cl_\d+/g) ?? [])];
      asked.push(ids);
      const clusters = ids.map((cluster_id) => {
        count += 1;
        return {
          cluster_id,
          label: `Theme ${count}`,
          summary: `About theme ${count}.`,
          keywords: [`word${count}`],
        };
      });
      return JSON.stringify({ clusters });
    },
  };
}

async function seeded(enabled: boolean) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 5, b: 4 }));
  const made = await app.call('POST', base, {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
    llm_labeling: { enabled, max_samples_per_cluster: 3 },
  });
  return { app, collection, made: made.body };
}

type Options = { model?: LabelModel; clusterer?: (app: App, event: ClustererEvent) => Promise<void> };

async function run(app: App, clusterId: string, runId: string, options: Options) {
  await runCluster(app, jobFor(app, clusterId, runId), options);
  // Longer than the answers of models are kept.
  app.ports.clock.advance(30 * 24 * 3_600_000);
  return (await app.call('GET', `${base}/${clusterId}/executions/${runId}`)).body.centroids.map(
    (c: { label: string; label_source: string }) => [c.label, c.label_source],
  );
}

async function again(app: App, clusterId: string, options: Options) {
  const started = await app.call('POST', `${base}/${clusterId}/execute`);
  return run(app, clusterId, started.body.run_id, options);
}

describe('names between runs', () => {
  it('of a model stay while the samples are the same, and only the changed cluster is asked about', async () => {
    const { app, collection, made } = await seeded(true);
    const model = countingModel();
    const first = await run(app, made.cluster_id, made.last_run_id, { model });
    expect(first).toEqual([
      ['Theme 1', 'model'],
      ['Theme 2', 'model'],
    ]);
    expect(await again(app, made.cluster_id, { model })).toEqual(first);
    expect(model.asked).toEqual([['cl_0', 'cl_1']]);
    // A member far from the samples changes nothing; one that is a sample does.
    await seedBatch(app, collection, [
      { id: 'doc_z', fields: { text: 'zzz far from the samples', topic: 'a' }, vector: [1, 0.3, 0, 0] },
      { id: 'doc_b0', fields: { text: 'aaa another text in front', topic: 'b' }, vector: [0, 1, 0, 0] },
    ]);
    expect(await again(app, made.cluster_id, { model })).toEqual([
      ['Theme 1', 'model'],
      ['Theme 3', 'model'],
    ]);
    expect(model.asked).toEqual([['cl_0', 'cl_1'], ['cl_1']]);
  });

  it('that a model gives to a changed cluster are not those that another one kept', async () => {
    const { app, collection, made } = await seeded(true);
    await run(app, made.cluster_id, made.last_run_id, { model: countingModel() });
    await seedBatch(app, collection, [
      { id: 'doc_b0', fields: { text: 'aaa another text in front', topic: 'b' }, vector: [0, 1, 0, 0] },
    ]);
    // It begins to count anew, and says "Theme 1".
    const labels = await again(app, made.cluster_id, { model: countingModel() });
    expect(labels[0]).toEqual(['Theme 1', 'model']);
    expect(labels[1]![1]).toBe('ctfidf');
  });

  it('of words stay while the samples are the same, although the words would be others', async () => {
    const { app, made } = await seeded(false);
    const renaming = async (one: App, event: ClustererEvent) => {
      await fakeClusterer(one, event);
      const key = new URL(event.result_url).pathname.slice(1);
      const result = JSON.parse(Buffer.from(await one.ports.blobs.get(key)).toString('utf8'));
      for (const cluster of result.clusters) cluster.label = `other words of ${cluster.cluster_id}`;
      await one.ports.blobs.put(key, JSON.stringify(result));
    };
    const first = await run(app, made.cluster_id, made.last_run_id, {});
    expect(await again(app, made.cluster_id, { clusterer: renaming })).toEqual(first);
  });

  it('do not stay when the definition wants them otherwise', async () => {
    const { app, made } = await seeded(true);
    const model = countingModel();
    await run(app, made.cluster_id, made.last_run_id, { model });
    await app.call('PATCH', `${base}/themes`, {
      llm_labeling: { enabled: false, max_samples_per_cluster: 3 },
    });
    expect((await again(app, made.cluster_id, { model }))[0]).toEqual(['quantum, entangled', 'ctfidf']);
  });
});
