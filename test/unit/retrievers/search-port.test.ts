// The search port over real segments answers as a scan of all documents does, however they are spread.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from '../../../functions/core/conditions/index.ts';
import type { NsCtx } from '../../../functions/core/context.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import { answerScan } from '../../../functions/core/fan-out/answer.ts';
import type { ScanRequest } from '../../../functions/core/fan-out/messages.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import { RunReads } from '../../../functions/core/resources/retrievers/run-reads.ts';
import { IndexSearchPort } from '../../../functions/core/resources/retrievers/search-port.ts';
import type { FacetRequest, SearchRequest } from '../../../functions/core/retrieval/index.ts';
import type { App } from '../../http/app.ts';
import { makeApp } from '../../http/app.ts';
import type { SeedDocument } from '../../http/clusters/seed.ts';
import { featureUri, seedBatch, seedCollection } from '../../http/clusters/seed.ts';
import { memoryPort } from '../retrieval/memory-port.ts';

// Small whole numbers: sums are exact, so both sides give the same scores to the last bit, and ties are frequent.
const vector = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 4, maxLength: 4 });
const row = fc.record({
  place: fc.integer({ min: 0, max: 2 }),
  batch: fc.integer({ min: 0, max: 1 }),
  vector,
  colour: fc.constantFrom('red', 'blue', undefined),
  size: fc.integer({ min: 0, max: 3 }),
});

interface Row {
  readonly id: string;
  readonly place: number;
  readonly batch: number;
  readonly vector: readonly number[];
  readonly fields: Record<string, string | number>;
}

/** As many functions as there are, each asked for what does not fit into one byte: for everything. */
function withScanners(app: App, functions: number): NsCtx {
  const call = async (payload: unknown) => {
    const message = JSON.parse(JSON.stringify(payload)) as ScanRequest;
    return JSON.parse(JSON.stringify(await answerScan(workflowContext(app.ports, message), message)));
  };
  const scanners = { bytesEach: 1, functions: Array.from({ length: functions }, () => ({ call })) };
  return { ...app.ctx, ports: { ...app.ports, scanners } };
}

async function bothPorts(rows: readonly Row[], scanFunctions = 0) {
  const app = await makeApp();
  const ctx = withScanners(app, scanFunctions);
  const collections: StoredCollection[] = [];
  for (const place of [0, 1, 2]) {
    const collection = await seedCollection(app, `place${place}`);
    collections.push(collection);
    for (const batch of [0, 1]) {
      const documents = rows
        .filter((one) => one.place === place && one.batch === batch)
        .map(({ id, vector: own, fields }): SeedDocument => ({ id, vector: own, fields }));
      if (documents.length > 0) await seedBatch(app, collection, documents);
    }
  }
  const port = new IndexSearchPort(ctx, { collections, reads: new RunReads(ctx) });
  const naive = memoryPort(
    { [featureUri]: { dims: 4, metric: 'cosine' } },
    rows.map(({ id, place, vector: own, fields }) => ({
      document_id: id,
      collection_id: collections[place]!.id,
      fields,
      vectors: { [featureUri]: own },
    })),
  );
  return { port, naive, collections };
}

const filters = [
  undefined,
  { field: 'colour', operator: 'eq', value: 'red' },
  {
    OR: [
      { field: 'metadata.size', operator: 'gt', value: 1 },
      { field: 'colour', operator: 'exists', value: false },
    ],
  },
];

describe('the search port', () => {
  it('finds the same documents, scores and order as a scan of everything, by itself or over several functions', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(row, { maxLength: 25 }),
        fc.array(vector, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 8 }),
        fc.constantFrom(...filters),
        fc.boolean(),
        fc.integer({ min: 0, max: 3 }),
        async (given, queries, k, tree, excludes, scanFunctions) => {
          const rows = given.map(
            ({ colour, size, ...rest }, i): Row => ({
              ...rest,
              id: `doc_${String(i).padStart(3, '0')}`,
              fields: { size, ...(colour === undefined ? {} : { colour }) },
            }),
          );
          const { port, naive, collections } = await bothPorts(rows, scanFunctions);
          const request: SearchRequest = {
            feature_uri: featureUri,
            collection_ids: collections.map(({ id }) => id),
            vectors: queries.map((query) => Float32Array.from(query)),
            k,
            ...(tree ? { filter: parse(tree) } : {}),
            ...(excludes ? { exclude: queries.map((_, i) => [rows[i]?.id ?? 'doc_none']) } : {}),
            allow_partial: false,
            deadline_ms: Number.MAX_SAFE_INTEGER,
          };
          const [ours, theirs] = await Promise.all([port.search(request), naive.search(request)]);
          const rounded = (lists: typeof ours.hits) =>
            lists.map((list) =>
              list.map(({ score, ...ref }) => ({ ...ref, score: Math.round(score * 1e6) / 1e6 })),
            );
          const scores = (lists: typeof ours.hits) =>
            rounded(lists).map((list) => list.map(({ score }) => score));
          expect(scores(ours.hits)).toEqual(scores(theirs.hits));
          for (const list of ours.hits) {
            for (const [i, hit] of list.entries()) {
              const before = list[i - 1];
              expect(
                !before ||
                  before.score > hit.score ||
                  (before.score === hit.score && before.document_id < hit.document_id),
              ).toBe(true);
            }
          }
          for (const [q, list] of rounded(ours.hits).entries()) {
            const all = rounded((await naive.search({ ...request, k: 1000 })).hits)[q]!;
            for (const hit of list) expect(all).toContainEqual(hit);
            expect(new Set(list.map((hit) => hit.document_id)).size).toBe(list.length);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('lists the same documents in the same order, page by page', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(row, { maxLength: 25 }),
        fc.constantFrom(...filters),
        fc.constantFrom<readonly { field: string; direction: 'asc' | 'desc'; missing: 'first' | 'last' }[]>(
          [],
          [
            { field: 'colour', direction: 'desc', missing: 'last' },
            { field: 'size', direction: 'asc', missing: 'last' },
          ],
          [{ field: 'metadata.colour', direction: 'asc', missing: 'first' }],
          [
            { field: 'score', direction: 'desc', missing: 'last' },
            { field: 'size', direction: 'desc', missing: 'last' },
          ],
        ),
        fc.integer({ min: 0, max: 10 }),
        fc.integer({ min: 1, max: 10 }),
        async (given, tree, sort, offset, limit) => {
          const rows = given.map(
            ({ colour, size, ...rest }, i): Row => ({
              ...rest,
              id: `doc_${String(i).padStart(3, '0')}`,
              fields: { size, ...(colour === undefined ? {} : { colour }) },
            }),
          );
          const { port, naive } = await bothPorts(rows);
          const request = {
            ...(tree ? { filter: parse(tree) } : {}),
            sort,
            offset,
            limit,
            allow_partial: false,
            deadline_ms: Number.MAX_SAFE_INTEGER,
          };
          const [ours, theirs] = await Promise.all([port.list(request), naive.list(request)]);
          expect(ours.documents).toEqual(theirs.documents);
          expect(ours.total).toBe(theirs.total);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('counts facets over every document that any scope selects, in all collections together', async () => {
    const scope = fc.record({ feature: fc.boolean(), tree: fc.constantFrom(...filters) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(row, { maxLength: 25 }),
        fc.array(scope, { minLength: 1, maxLength: 3 }),
        fc.option(fc.array(fc.nat({ max: 24 }), { maxLength: 6 }), { nil: undefined }),
        fc.integer({ min: 1, max: 3 }),
        async (given, scopes, included, limit) => {
          const rows = given.map(
            ({ colour, size, ...rest }, i): Row => ({
              ...rest,
              id: `doc_${String(i).padStart(3, '0')}`,
              fields: { size, ...(colour === undefined ? {} : { colour }) },
            }),
          );
          const { port, naive, collections } = await bothPorts(rows);
          const request: FacetRequest = {
            scopes: scopes.map(({ feature, tree }) => ({
              ...(feature ? { feature_uri: featureUri } : {}),
              ...(tree ? { filter: parse(tree) } : {}),
            })),
            ...(included
              ? {
                  include: included.flatMap((i) =>
                    rows[i]
                      ? [{ document_id: rows[i].id, collection_id: collections[rows[i].place]!.id }]
                      : [],
                  ),
                }
              : {}),
            fields: ['colour', 'size', 'nothing'].map((key) => ({ key, limit })),
            allow_partial: false,
            deadline_ms: Number.MAX_SAFE_INTEGER,
          };
          const [ours, theirs] = await Promise.all([port.facets(request), naive.facets(request)]);
          expect(ours.facets).toEqual(theirs.facets);
          if (rows.length > 0) expect(ours.unknown_fields).toContain('nothing');
        },
      ),
      { numRuns: 60 },
    );
  });

  it('keeps to one version of a collection for all reads of a run', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    await seedBatch(app, collection, [{ id: 'doc_a', fields: { text: 'a' }, vector: [1, 0, 0, 0] }]);
    const port = new IndexSearchPort(app.ctx, { collections: [collection], reads: new RunReads(app.ctx) });
    const request: SearchRequest = {
      feature_uri: featureUri,
      collection_ids: [collection.id],
      vectors: [Float32Array.from([1, 0, 0, 0])],
      k: 10,
      allow_partial: false,
      deadline_ms: Number.MAX_SAFE_INTEGER,
    };
    expect((await port.search(request)).hits[0]).toHaveLength(1);
    await seedBatch(app, collection, [{ id: 'doc_b', fields: { text: 'b' }, vector: [1, 0, 0, 0] }]);
    expect((await port.search(request)).hits[0]).toHaveLength(1);
    const listed = {
      sort: [],
      offset: 0,
      limit: 10,
      allow_partial: false,
      deadline_ms: Number.MAX_SAFE_INTEGER,
    };
    expect((await port.list(listed)).total).toBe(1);
    const later = new IndexSearchPort(app.ctx, { collections: [collection], reads: new RunReads(app.ctx) });
    expect((await later.search(request)).hits[0]).toHaveLength(2);
  });

  it('still shows a hit whose document a batch has made anew since the heads were read', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const version = (text: string): SeedDocument[] => [
      { id: 'doc_a', fields: { text }, vector: [1, 0, 0, 0] },
    ];
    await seedBatch(app, collection, version('first'));
    const reads = new RunReads(app.ctx);
    const port = new IndexSearchPort(app.ctx, { collections: [collection], reads });
    await reads.view(collection.id);
    await seedBatch(app, collection, version('second'));
    await seedBatch(app, collection, version('third'));
    const [document] = await port.documents([{ document_id: 'doc_a', collection_id: collection.id }], {
      return_vectors: false,
      return_presigned_urls: false,
    });
    expect(document).toMatchObject({ document_id: 'doc_a', text: 'third' });
  });
});
