// Whole pipelines of random stages against a naive one that carries every document through every stage.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import { defineRetriever } from '../../../functions/core/retrieval/definition.ts';
import { runRetriever } from '../../../functions/core/retrieval/run.ts';
import { searchMany, singleSearchOf } from '../../../functions/core/retrieval/search-many.ts';
import { memoryPort } from '../../unit/retrieval/memory-port.ts';

const uri = 'mixpeek://text_embed@1.0.0/vec';
const features = { [uri]: { dims: 2, metric: 'dot' as const } };

interface Row {
  readonly document_id: string;
  readonly fields: { readonly lang: string; readonly year?: number };
  readonly vectors: { readonly [uri]: readonly number[] };
}

const rows = fc.uniqueArray(
  fc
    .record({
      id: fc.nat({ max: 99 }),
      lang: fc.constantFrom('de', 'en'),
      year: fc.option(fc.integer({ min: 2000, max: 2003 }), { nil: undefined }),
      x: fc.integer({ min: -3, max: 3 }),
      y: fc.integer({ min: -3, max: 3 }),
    })
    .map(({ id, lang, year, x, y }): Row => {
      const document_id = `d${String(id).padStart(2, '0')}`;
      return {
        document_id,
        fields: year === undefined ? { lang } : { lang, year },
        vectors: { [uri]: [x, y] },
      };
    }),
  { selector: ({ document_id }) => document_id, maxLength: 25 },
);

type Step =
  | { readonly kind: 'filter'; readonly lang: string }
  | {
      readonly kind: 'search';
      readonly vector: readonly [number, number];
      readonly k: number;
      readonly lang?: string | undefined;
    }
  | {
      readonly kind: 'sort';
      readonly field: 'year' | 'score';
      readonly direction: 'asc' | 'desc';
      readonly missing: 'first' | 'last';
    }
  | { readonly kind: 'limit'; readonly limit: number; readonly offset: number };

const filterStep = fc.record({ kind: fc.constant('filter' as const), lang: fc.constantFrom('de', 'en') });
const searchStep = fc.record({
  kind: fc.constant('search' as const),
  vector: fc.tuple(fc.integer({ min: -2, max: 2 }), fc.integer({ min: -2, max: 2 })),
  k: fc.integer({ min: 1, max: 12 }),
  lang: fc.option(fc.constantFrom('de', 'en'), { nil: undefined }),
});
const sortStep = fc.record({
  kind: fc.constant('sort' as const),
  field: fc.constantFrom('year' as const, 'score' as const),
  direction: fc.constantFrom('asc' as const, 'desc' as const),
  missing: fc.constantFrom('first' as const, 'last' as const),
});
const limitStep = fc.record({
  kind: fc.constant('limit' as const),
  limit: fc.integer({ min: 1, max: 10 }),
  offset: fc.integer({ min: 0, max: 4 }),
});
const steps = fc
  .tuple(
    fc.oneof(filterStep, searchStep),
    fc.array(fc.oneof(filterStep, searchStep, sortStep, limitStep), { maxLength: 4 }),
  )
  .map(([first, more]): Step[] => [first, ...more]);

const stageOf = (step: Step, index: number) => {
  const config = (stage_id: string, parameters: object) => ({
    stage_name: `s${index}`,
    config: { stage_id, parameters },
  });
  const lang = (value: string) => ({ field: 'metadata.lang', operator: 'eq', value });
  if (step.kind === 'filter') return config('attribute_filter', lang(step.lang));
  if (step.kind === 'limit') return config('limit', { limit: step.limit, offset: step.offset });
  if (step.kind === 'sort') {
    const { field, direction, missing } = step;
    return config('sort', { field, direction, missing });
  }
  const filters = step.lang === undefined ? {} : { filters: lang(step.lang) };
  return config('feature_search', {
    searches: [{ feature_uri: uri, query: { vector: [...step.vector] }, top_k: step.k }],
    final_top_k: step.k,
    ...filters,
  });
};

interface Carried {
  readonly row: Row;
  readonly score: number;
}

/** Every stage on the whole list, nothing pushed down, each rule written in the plainest way. */
function naive(all: readonly Row[], pipeline: readonly Step[]): Carried[] {
  let list: Carried[] = all.map((row) => ({ row, score: 0 }));
  const byId = (a: Carried, b: Carried) => (a.row.document_id < b.row.document_id ? -1 : 1);
  list.sort(byId);
  for (const step of pipeline) {
    if (step.kind === 'filter') list = list.filter(({ row }) => row.fields.lang === step.lang);
    if (step.kind === 'limit') list = list.slice(step.offset, step.offset + step.limit);
    if (step.kind === 'search') {
      list = list
        .filter(({ row }) => step.lang === undefined || row.fields.lang === step.lang)
        .map(({ row }) => {
          const [x = 0, y = 0] = row.vectors[uri];
          return { row, score: x * step.vector[0] + y * step.vector[1] };
        })
        .sort((a, b) => b.score - a.score || byId(a, b))
        .slice(0, step.k);
    }
    if (step.kind === 'sort') {
      const value = ({ row, score }: Carried) => (step.field === 'score' ? score : row.fields.year);
      const sign = step.direction === 'asc' ? 1 : -1;
      const present = list.filter((each) => value(each) !== undefined);
      const missing = list.filter((each) => value(each) === undefined).sort(byId);
      present.sort((a, b) => (value(a)! - value(b)!) * sign || byId(a, b));
      list = step.missing === 'last' ? [...present, ...missing] : [...missing, ...present];
    }
  }
  return list;
}

describe('a pipeline', () => {
  it('gives the documents, scores and order of the naive one', async () => {
    await fc.assert(
      fc.asyncProperty(rows, steps, async (all, pipeline) => {
        const result = await runRetriever(
          {
            definition: defineRetriever({ stages: pipeline.map(stageOf) }),
            inputs: {},
            pagination: { method: 'offset', page_size: 100, page_number: 1 },
          },
          memoryPort(features, all),
          virtualClock(),
        );
        const expected = naive(all, pipeline).map(({ row, score }) => [row.document_id, score + 0]);
        expect(result.documents.map(({ document_id, score }) => [document_id, score + 0])).toEqual(expected);
        expect(result.pagination.total).toBe(expected.length);
      }),
      { numRuns: 250 },
    );
  });

  it('is covered by its pages without gaps or repeats', async () => {
    await fc.assert(
      fc.asyncProperty(rows, steps, fc.integer({ min: 1, max: 7 }), async (all, pipeline, page_size) => {
        const definition = defineRetriever({ stages: pipeline.map(stageOf) });
        const seen: string[] = [];
        for (let page_number = 1; page_number < 40; page_number += 1) {
          const pagination = { method: 'offset', page_size, page_number } as const;
          const page = await runRetriever(
            { definition, inputs: {}, pagination },
            memoryPort(features, all),
            virtualClock(),
          );
          seen.push(...page.documents.map(({ document_id }) => document_id));
          if (!page.pagination.has_more) break;
        }
        expect(seen).toEqual(naive(all, pipeline).map(({ row }) => row.document_id));
      }),
      { numRuns: 60 },
    );
  });

  it('of one search answers many inputs as it answers each alone', async () => {
    const vector = fc.tuple(fc.integer({ min: -2, max: 2 }), fc.integer({ min: -2, max: 2 }));
    await fc.assert(
      fc.asyncProperty(
        rows,
        fc.array(vector, { maxLength: 6 }),
        fc.integer({ min: 1, max: 8 }),
        async (all, vectors, k) => {
          const definition = defineRetriever({
            stages: [
              {
                stage_name: 's',
                config: {
                  stage_id: 'feature_search',
                  parameters: {
                    searches: [{ feature_uri: uri, query: { vector: '{{INPUT.v}}' } }],
                    final_top_k: k,
                  },
                },
              },
            ],
          });
          const many = await searchMany(
            {
              parameters: singleSearchOf(definition)!.parameters,
              queries: vectors.map((v) => ({ inputs: { v } })),
              deadlineMs: Number.MAX_SAFE_INTEGER,
            },
            memoryPort(features, all),
            virtualClock(),
          );
          for (const [index, v] of vectors.entries()) {
            const pagination = { method: 'offset', page_size: 100, page_number: 1 } as const;
            const one = await runRetriever(
              { definition, inputs: { v }, pagination },
              memoryPort(features, all),
              virtualClock(),
            );
            const expected = one.documents.map(({ document_id, score }) => [document_id, score]);
            expect(many.outcomes[index]?.hits.map(({ document_id, score }) => [document_id, score])).toEqual(
              expected,
            );
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});
