// A namespace with articles whose vectors say which words they use, so that tests know what is near what.

import type { World } from '../../unit/batches/world.ts';
import { jobFor, makeWorld, runBatch } from '../../unit/batches/world.ts';
import type { Reply } from '../app.ts';

export const featureUri = 'mixpeek://embedder@1.0.0/embedder_embedding';

const words = ['quantum', 'cook', 'ball', 'seed'];

/** How often a text uses each of four words. A text with none of them gets no vector. */
export function wordVector(text: string): number[] | null {
  const counts = words.map((word) => text.split(word).length - 1);
  return counts.some((count) => count > 0) ? counts : null;
}

export interface Article {
  readonly text: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface Library extends World {
  readonly collectionId: string;
  /** Puts articles into the bucket and runs a batch over them. @returns document ids in the order of the articles */
  publish(articles: readonly Article[]): Promise<string[]>;
  /** Texts that the plugin was asked to embed for queries, call by call. */
  embedded(): string[][];
  post(path: string, body?: unknown): Promise<Reply>;
}

/** A library with one collection, "articles", and nothing in it yet. */
export async function makeLibrary(): Promise<Library> {
  const world = await makeWorld();
  world.runner.behave = (row) => ({ vector: wordVector(row.data) });
  const collection = await world.addCollection('articles');
  const post = (path: string, body?: unknown) => world.call('POST', `/v1/namespaces/{ns}/${path}`, body);
  return {
    ...world,
    collectionId: collection.id,
    post,
    embedded: () =>
      world.runner.calls
        .filter((call) => call.operation === 'embed')
        .map((call) => call.rows.map((row) => row.data)),
    async publish(articles) {
      // Ids sort by time, so two batches of one millisecond would have no order.
      world.ports.clock.advance(1_000);
      const objectIds: string[] = [];
      for (const { text, metadata } of articles)
        objectIds.push(...(await world.addObjects([text], metadata ? { metadata } : {})));
      const reply = await post(`buckets/${world.bucketId}/batches/trigger`, {});
      if (reply.status !== 202) throw new Error(JSON.stringify(reply.body));
      await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, reply.body.batch_id));
      const listed = await post(`collections/${collection.id}/documents/list`, { limit: 1000 });
      const byObject = new Map(
        listed.body.results.map(
          (document: { document_id: string; _internal: { lineage: { object_id: string } } }) => [
            document._internal.lineage.object_id,
            document.document_id,
          ],
        ),
      );
      return objectIds.map((id) => String(byObject.get(id)));
    },
  };
}

/** The stages of a retriever with one search by text. */
export const searchStages = (more: Record<string, unknown> = {}, uri = featureUri) => [
  {
    stage_name: 'vector_search',
    stage_type: 'filter',
    config: {
      stage_id: 'feature_search',
      parameters: { searches: [{ feature_uri: uri, query: '{{INPUT.query}}', ...more }] },
    },
  },
];

/** Ids of the hits, best first. */
export const idsOf = (reply: Reply): string[] =>
  reply.body.results.map((hit: { document_id: string }) => hit.document_id);
