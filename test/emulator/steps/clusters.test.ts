// Step 8 on the deployed stack: groups of similar documents with names, metrics and a map; and no structure is no fault.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  listDocuments,
  makeCollection,
  makeWorkspace,
  putTexts,
  runBatch,
  until,
  usePlugin,
  wordFeature,
} from '../stack.ts';

let space: Workspace;
let client: Client;
let setup: Setup;

/** Three themes of eight texts each, which share their words and differ by one. */
const themes = {
  ocean: 'whales swim in the deep blue ocean',
  kitchen: 'bread bakes slowly inside a hot oven',
  orbit: 'satellites circle our planet every few hours',
};
const endings = ['today', 'tomorrow', 'quietly', 'again', 'often', 'rarely', 'always', 'sometimes'];

beforeAll(async () => {
  space = await makeWorkspace('clusters');
  client = space.client;
  await usePlugin(space);
  setup = await makeCollection(space, 'themes');
  await putTexts(
    space,
    setup,
    Object.entries(themes).flatMap(([theme, text]) =>
      endings.map((ending) => ({ text: `${text} ${ending}`, metadata: { theme } })),
    ),
  );
  await runBatch(space, setup);
});
afterAll(() => space?.close());

const definition = (name: string, more: Json = {}): Json => ({
  cluster_name: name,
  collection_id: setup.collectionId,
  feature_uri: wordFeature,
  algorithm: { name: 'hdbscan', params: { min_cluster_size: 4 } },
  llm_labeling: { enabled: true },
  dimension_reduction: { method: 'umap', n_components: 2 },
  ...more,
});

const runEnd = (cluster: string, run: string): Promise<Json> => {
  let last: Json;
  return until(
    'the end of the cluster run',
    async () => {
      last = await client.call('GET', `${space.path}/clusters/${cluster}/executions/${run}`);
      return ['completed', 'failed'].includes(last.status) ? last : undefined;
    },
    { describe: () => last },
  );
};

async function cluster(body: Json): Promise<{ id: string; run: Json }> {
  const made = await client.call('POST', `${space.path}/clusters`, body);
  return { id: made.cluster_id, run: await runEnd(made.cluster_id, made.last_run_id) };
}

describe('a cluster', () => {
  let hdbscan: { id: string; run: Json };
  beforeAll(async () => {
    hdbscan = await cluster(definition('by-density'));
  });

  it('finds the themes, names them from their words, and says where the names come from', () => {
    const { run } = hdbscan;
    expect(run).toMatchObject({
      status: 'completed',
      num_clusters: 3,
      num_points: 24,
      label_source: 'ctfidf',
    });
    const labels = run.centroids.map((one: Json) => `${one.label} ${one.keywords.join(' ')}`.toLowerCase());
    for (const word of ['ocean', 'oven', 'planet'])
      expect(labels.some((label: string) => label.includes(word))).toBe(true);
    for (const centroid of run.centroids)
      expect(centroid).toMatchObject({ num_members: 8, representative_ids: expect.any(Array) });
    expect(run.metrics.silhouette_score).toBeGreaterThan(0.3);
    expect(run.metrics.noise_ratio).toBe(0);
  });

  it('puts its id and name on the documents, one for each theme', async () => {
    const byTheme = new Map<string, Set<string>>();
    for (const document of await listDocuments(space, setup)) {
      byTheme.set(document.theme, (byTheme.get(document.theme) ?? new Set()).add(document.cluster_id));
      expect(document.cluster_label).toBeTruthy();
    }
    expect([...byTheme.values()].map((ids) => ids.size)).toEqual([1, 1, 1]);
    expect(new Set([...byTheme.values()].flatMap((ids) => [...ids])).size).toBe(3);
  });

  it('shows its groups with their members, and a map with every point', async () => {
    const groups = await client.call('GET', `${space.path}/clusters/by-density/groups`);
    expect(groups).toMatchObject({ total_documents: 24 });
    expect(groups.groups.filter((one: Json) => !one.is_noise).map((one: Json) => one.num_members)).toEqual([
      8, 8, 8,
    ]);
    const map = await client.call('GET', `${space.path}/clusters/${hdbscan.id}/visualization`);
    expect(map).toMatchObject({ n_components: 2, num_points: 24 });
    for (const point of map.points) expect([point.x, point.y].every(Number.isFinite)).toBe(true);
  });

  it('runs again by execute, each run kept, and by kmeans into as many groups as asked, in three dimensions', async () => {
    const again = await client.call('POST', `${space.path}/clusters/${hdbscan.id}/execute`, {});
    expect(again).toMatchObject({ run_id: expect.stringMatching(/^run_/) });
    expect(await runEnd(hdbscan.id, again.run_id)).toMatchObject({ status: 'completed', num_clusters: 3 });
    const executions = await client.call('GET', `${space.path}/clusters/${hdbscan.id}/executions`);
    expect(executions.results.map((one: Json) => one.run_id)).toEqual(
      expect.arrayContaining([again.run_id, hdbscan.run.run_id]),
    );
    const kmeans = await cluster(
      definition('by-number', {
        algorithm: { name: 'kmeans', params: { n_clusters: 3 } },
        dimension_reduction: { method: 'umap', n_components: 3 },
        enrich_source_collection: false,
      }),
    );
    expect(kmeans.run).toMatchObject({ status: 'completed', num_clusters: 3 });
    const map = await client.call('GET', `${space.path}/clusters/${kmeans.id}/visualization`);
    for (const point of map.points) expect(Number.isFinite(point.z)).toBe(true);
  });

  it('with fewer documents than a cluster needs is completed, with no cluster and a sentence that says why', async () => {
    const { run } = await cluster(
      definition('too-few', {
        algorithm: { name: 'hdbscan', params: { min_cluster_size: 30 } },
        enrich_source_collection: false,
      }),
    );
    expect(run).toMatchObject({ status: 'completed', num_clusters: 0 });
    expect(run.message).toMatch(/24|30/);
  });

  it('that is set to follow batches runs before the batch is done', async () => {
    const { id, run } = await cluster(
      definition('follows', { auto_execute_on_batch: true, enrich_source_collection: false }),
    );
    await putTexts(space, setup, [{ text: `${themes.ocean} forever`, metadata: { theme: 'ocean' } }]);
    await runBatch(space, setup);
    const { results } = await client.call('GET', `${space.path}/clusters/${id}/executions`);
    expect(results[0]).toMatchObject({ trigger: 'batch', status: 'completed', num_points: 25 });
    expect(results[0].run_id).not.toBe(run.run_id);
  });

  it('lets new documents join its groups after a batch, under the name that a user gave, and groups by values', async () => {
    const { id, run } = await cluster(
      definition('joins', {
        auto_mode: 'assign',
        source_enrichment_config: {
          field_mappings: [{ source_field: 'label', target_field: 'joined' }],
        },
      }),
    );
    const ocean = run.centroids.find((one: Json) =>
      `${one.label} ${one.keywords.join(' ')}`.toLowerCase().includes('ocean'),
    );
    await client.call('PATCH', `${space.path}/clusters/${id}/executions/${run.run_id}/labels`, {
      labels: { [ocean.cluster_id]: 'Water' },
    });
    await putTexts(space, setup, [{ text: `${themes.ocean} tonight`, metadata: { theme: 'ocean' } }]);
    await runBatch(space, setup);
    const { results } = await client.call('GET', `${space.path}/clusters/${id}/executions`);
    expect(results[0]).toMatchObject({
      mode: 'assign',
      status: 'completed',
      base_run_id: run.run_id,
      assignment: { documents: 1, assigned: 1 },
    });
    const documents = await listDocuments(space, setup);
    expect(documents.find((one) => one.text.endsWith('tonight'))).toMatchObject({ joined: 'Water' });
    const file = await client.call(
      'GET',
      `${space.path}/clusters/${id}/executions/${results[0].run_id}/export?format=csv&cluster_label=Water`,
    );
    const lines = (await (await fetch(file.download_url)).text()).trim().split('\r\n');
    expect(lines).toHaveLength(1 + file.document_count);
    for (const line of lines.slice(1)) expect(line).toContain(`,${ocean.cluster_id},Water,`);
    const values = await cluster({
      cluster_name: 'by-theme',
      collection_id: setup.collectionId,
      cluster_type: 'attribute',
      attribute_config: { attributes: ['theme'] },
      enrich_source_collection: false,
    });
    expect(values.run).toMatchObject({ status: 'completed', num_clusters: 3, label_source: 'values' });
    expect(values.run.centroids.map((one: Json) => one.label).toSorted()).toEqual(
      Object.keys(themes).toSorted(),
    );
  });

  it('is read by name, listed and deleted', async () => {
    expect(await client.call('GET', `${space.path}/clusters/by-density`)).toMatchObject({
      cluster_id: hdbscan.id,
      status: 'COMPLETED',
    });
    expect(
      (await client.call('GET', `${space.path}/clusters`)).results.map((one: Json) => one.name),
    ).toContain('by-density');
    expect((await client.ask('DELETE', `${space.path}/clusters/${hdbscan.id}`)).status).toBe(200);
    expect((await client.ask('GET', `${space.path}/clusters/${hdbscan.id}`)).status).toBe(404);
  });

  it.each([
    ['an unknown algorithm', { algorithm: { name: 'magic' } }, /hdbscan/],
    ['an unknown parameter', { algorithm: { name: 'hdbscan', params: { min_size: 3 } } }, /min_cluster_size/],
    ['a feature that the collection does not have', { feature_uri: 'mixpeek://absent@1.0.0/x' }, /absent/],
    [
      'four dimensions for the map',
      { dimension_reduction: { method: 'umap', n_components: 4 } },
      /n_components/,
    ],
  ])('is refused with %s', async (_, change, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/clusters`, definition('refused', change));
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
    expect((await client.ask('GET', `${space.path}/clusters/refused`)).status).toBe(404);
  });
});
