// What evaluation says of predictions, against counting at every threshold; nearest centroids against trying all.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { StoredDocument } from '../../../functions/core/resources/documents/service.ts';
import { changeFor } from '../../../functions/core/resources/taxonomies/apply.ts';
import { CentroidMatcher } from '../../../functions/core/resources/taxonomies/centroids.ts';
import type { Judged } from '../../../functions/core/resources/taxonomies/evaluate.ts';
import { judge, pointAt } from '../../../functions/core/resources/taxonomies/evaluate.ts';
import { removalFor } from '../../../functions/core/resources/taxonomies/remove.ts';
import { reviewedPort, toRows } from '../../../functions/core/resources/taxonomies/reviewed-port.ts';
import { round } from '../../../functions/core/resources/taxonomies/vote.ts';
import type { ScoredId, SearchPort, SearchRequest } from '../../../functions/core/retrieval/index.ts';
import { scorerOf } from '../../../functions/core/vectors/score.ts';

const label = fc.constantFrom('a', 'b', 'c');
const example = fc
  .record({
    expected: fc.option(label),
    predicted: fc.option(label, { freq: 8 }),
    score: fc.integer({ min: 0, max: 6 }).map((n) => n / 8),
  })
  .map((one): Judged => (one.predicted === null ? { ...one, score: null } : one));
const examples = fc.array(example, { maxLength: 25 });

const right = ({ expected, predicted }: Judged) => expected !== null && expected === predicted;

describe('judge', () => {
  it('counts the same at each point of the curve as counting there', () => {
    fc.assert(
      fc.property(examples, (list) => {
        const { curve, accuracy } = judge(list);
        const scores = [...new Set(list.flatMap(({ score }) => score ?? []))].sort((x, y) => x - y);
        expect(curve.map(({ threshold }) => threshold)).toEqual(scores);
        for (const point of curve) expect(point).toEqual(pointAt(list, point.threshold));
        const inScope = list.filter(({ expected }) => expected !== null);
        const wanted = inScope.length === 0 ? null : round(inScope.filter(right).length / inScope.length);
        expect(accuracy).toBe(wanted);
      }),
      { numRuns: 1_000 },
    );
  });

  it('suggests the lowest of the thresholds that are best for the objective, and no other is better', () => {
    fc.assert(
      fc.property(
        examples,
        fc.constantFrom('f1' as const, 'balanced' as const, 'precision' as const),
        fc.constantFrom(0.5, 0.75, 1),
        (list, objective, targetPrecision) => {
          const value = (threshold: number): number | undefined => {
            const accepted = list.filter(({ score }) => score !== null && score >= threshold);
            const inScope = list.filter(({ expected }) => expected !== null).length;
            const acceptedIn = accepted.filter(({ expected }) => expected !== null).length;
            const hits = accepted.filter(right).length;
            const out = list.length - inScope;
            if (objective === 'f1') return (2 * hits) / (accepted.length + inScope);
            if (objective === 'balanced')
              return (
                (inScope === 0 ? 0 : acceptedIn / inScope) +
                (out === 0 ? 0 : (out - (accepted.length - acceptedIn)) / out)
              );
            return hits / accepted.length >= targetPrecision
              ? inScope === 0
                ? 0
                : acceptedIn / inScope
              : undefined;
          };
          const { suggested } = judge(list, { objective, targetPrecision });
          const scores = [...new Set(list.flatMap(({ score }) => score ?? []))].sort((x, y) => x - y);
          const fitting = scores.filter((threshold) => value(threshold) !== undefined);
          const most = Math.max(...fitting.map((threshold) => value(threshold)!));
          expect(suggested?.threshold ?? null).toBe(
            fitting.find((threshold) => value(threshold) === most) ?? null,
          );
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it('gives each class the precision and recall that counting gives', () => {
    fc.assert(
      fc.property(examples, (list) => {
        const { per_class, confusions } = judge(list);
        for (const { value, support, predicted, precision, recall } of per_class) {
          const hits = list.filter((one) => right(one) && one.expected === value).length;
          expect(support).toBe(list.filter(({ expected }) => expected === value).length);
          expect(predicted).toBe(list.filter((one) => one.predicted === value).length);
          expect(precision).toBe(predicted === 0 ? null : round(hits / predicted));
          expect(recall).toBe(support === 0 ? null : round(hits / support));
        }
        const wrong = list.filter((one) => one.expected !== null && one.predicted !== null && !right(one));
        expect(confusions.reduce((sum, { count }) => sum + count, 0)).toBe(wrong.length);
      }),
    );
  });
});

const vector = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 3, maxLength: 3 });

describe('CentroidMatcher', () => {
  it('takes at each level the child that trying all of them gives', () => {
    fc.assert(
      fc.property(
        fc.array(vector, { minLength: 1, maxLength: 4 }),
        fc.array(fc.record({ parent: fc.nat(3), centroid: vector }), { maxLength: 6 }),
        vector,
        fc.constantFrom('cosine' as const, 'euclid' as const, 'dot' as const),
        (tops, leaves, query, metric) => {
          const common = { summary: null, keywords: [], num_members: 1, cluster_id: 'c', label: 'l' };
          const nodes = [
            ...tops.map((centroid, i) => ({
              ...common,
              node_id: `t${i}`,
              parent_node_id: null,
              level: 1,
              centroid,
            })),
            ...leaves.map(({ parent, centroid }, i) => ({
              ...common,
              node_id: `l${i}`,
              parent_node_id: `t${parent % tops.length}`,
              level: 2,
              centroid,
            })),
          ];
          const asked = Float32Array.from(query);
          const steps = new CentroidMatcher(nodes, metric, 3).match(asked, null);
          const scoreOf = (centroid: readonly number[]) =>
            round(scorerOf(metric, asked)(toRows([Float32Array.from(centroid)], 3), 0));
          let parent: string | null = null;
          for (const step of steps) {
            const children = nodes.filter((node) => node.parent_node_id === parent);
            const scores = children.map(({ centroid }) => scoreOf(centroid));
            expect(step.node).toBe(children[scores.indexOf(Math.max(...scores))]);
            expect(step.score).toBe(Math.max(...scores));
            parent = step.node.node_id;
          }
          expect(nodes.some((node) => node.parent_node_id === parent)).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('reviewedPort', () => {
  const id = fc.constantFrom('d1', 'd2', 'd3', 'd4', 'd5', 'd6');
  const rows = fc.uniqueArray(fc.record({ document_id: id, vector }), {
    maxLength: 6,
    selector: (row) => row.document_id,
  });
  const ranked = (list: readonly ScoredId[]) =>
    list.toSorted((a, b) => b.score - a.score || (a.document_id < b.document_id ? -1 : 1));

  it('finds what one index over both would find', async () => {
    await fc.assert(
      fc.asyncProperty(
        rows,
        rows,
        fc.array(vector, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.uniqueArray(id, { maxLength: 2 }),
        async (indexed, decided, queries, k, excluded) => {
          const scoreOf = (query: Float32Array, row: readonly number[]) =>
            scorerOf('cosine', query)(toRows([Float32Array.from(row)], 3), 0);
          const scan = (list: typeof indexed, query: Float32Array, without: readonly string[]) =>
            ranked(
              list
                .filter(({ document_id }) => !without.includes(document_id))
                .map((row) => ({
                  document_id: row.document_id,
                  collection_id: 'c',
                  score: scoreOf(query, row.vector),
                })),
            );
          const port = {
            search: async (request: SearchRequest) => ({
              hits: request.vectors.map((query, i) =>
                scan(indexed, query, request.exclude?.[i] ?? []).slice(0, request.k),
              ),
              stats: { bytes_scanned: 0, shards: 1, exact: true },
            }),
          } as unknown as SearchPort;
          const vectors = queries.map((query) => Float32Array.from(query));
          const extra = {
            metric: 'cosine' as const,
            dims: 3,
            ids: decided.map(({ document_id }) => ({ document_id, collection_id: 'c' })),
            rows: toRows(
              decided.map((row) => Float32Array.from(row.vector)),
              3,
            ),
          };
          const { hits } = await reviewedPort(port, () => extra).search({
            feature_uri: 'f',
            collection_ids: ['c'],
            vectors,
            k,
            exclude: vectors.map(() => excluded),
            allow_partial: false,
            deadline_ms: 0,
          });
          const both = [
            ...indexed.filter((row) => !decided.some((other) => other.document_id === row.document_id)),
            ...decided,
          ];
          expect(hits).toEqual(vectors.map((query) => scan(both, query, excluded).slice(0, k)));
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('enriching and removing', () => {
  const value = fc.constantFrom('x', 'y', 'z');

  it('leaves of a document what it was before, whatever it took over', () => {
    fc.assert(
      fc.property(
        fc.option(fc.uniqueArray(value), { nil: undefined }),
        fc.uniqueArray(value, { minLength: 1 }),
        fc.constantFrom('replace' as const, 'append' as const),
        (own, given, merge) => {
          const fields = own === undefined || merge === 'replace' ? {} : { tags: own };
          const document = {
            document_id: 'd',
            collection_id: 'c',
            fields,
            enrichments: [],
            source_version: 1,
          } as unknown as StoredDocument;
          const classifier = {
            taxonomy: { id: 'tax_1' },
            version: 1,
            config: {
              retriever_id: 'r',
              input_mappings: [],
              source_collection: { collection_id: 'c' },
              enrichment_fields: [{ field_path: 'tag', target_field: 'tags', merge_mode: merge }],
              threshold: null,
            },
          };
          const assignment = {
            node_id: 'root',
            label: null,
            level: 1,
            document_id: 'r',
            collection_id: 'c',
            score: 1,
            value: 'x',
            accepted: true,
            runner_up: null,
            margin: null,
            votes: { winner: 1, total: 1, share: 1 },
            values: new Map([['tags', { value: given, merge }]]),
          };
          const change = changeFor(
            classifier,
            document,
            { assignments: [assignment], decision: undefined },
            undefined,
            't',
          )!;
          const after = {
            ...document,
            fields: { ...fields, ...change.set },
            enrichments: change.provenance!,
          } as StoredDocument;
          expect(new Set(after.fields.tags as string[])).toEqual(
            new Set([...(own && merge === 'append' ? own : []), ...given]),
          );
          const removal = removalFor('tax_1', after)!;
          const left: Record<string, unknown> = { ...after.fields, ...removal.set };
          for (const name of removal.remove ?? []) delete left[name];
          // An empty list of one's own is not told from none.
          expect(left.tags ?? []).toEqual(own && merge === 'append' ? own : []);
        },
      ),
    );
  });
});
