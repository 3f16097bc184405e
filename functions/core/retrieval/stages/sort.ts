// Stage sort, and the client's sort_relevance and sort_attribute: other orders of the same documents.
import * as z from 'zod';
import { isObject, kindOf } from '../faults.ts';
import { compareByKeys, sortableOf } from '../order.ts';
import type { SortKey } from '../ports.ts';
import { addFault, strict } from './parameters.ts';
import type { Stage, StageContext, WorkingSet } from './stage.ts';

const keysMax = 5;

export interface SortParameters {
  readonly sorts: readonly SortKey[];
}

const fieldSchema = z.string().min(1).max(256);
const directionSchema = z.string().transform((value, ctx): 'asc' | 'desc' => {
  const lower = value.toLowerCase();
  if (lower === 'asc' || lower === 'desc') return lower;
  ctx.issues.push({ code: 'custom', message: 'the direction is asc or desc', input: value });
  return z.NEVER;
});

const keyShape = {
  field: fieldSchema.optional(),
  by: fieldSchema.optional(),
  direction: directionSchema.optional(),
  order: directionSchema.optional(),
  missing: z.enum(['first', 'last']).optional(),
  nulls_last: z.boolean().optional(),
};

/** One key: `by` is `field`, `order` is `direction`, `nulls_last` is `missing`. Scores fall, fields rise by default. */
const keySchema = strict(keyShape).transform((given, ctx): SortKey => {
  const refuse = (message: string) => {
    addFault(ctx, { type: 'value_error', path: [], message }, given);
    return z.NEVER;
  };
  const field = given.field ?? given.by;
  if (field === undefined) return refuse('the sort names no field');
  if (given.by !== undefined && given.by !== field) return refuse('"by" and "field" name different fields');
  const direction = given.direction ?? given.order ?? (field === 'score' ? 'desc' : 'asc');
  if (given.order !== undefined && given.order !== direction) {
    return refuse('"order" and "direction" say different things');
  }
  const byNulls = given.nulls_last === false ? 'first' : 'last';
  if (given.missing !== undefined && given.nulls_last !== undefined && given.missing !== byNulls) {
    return refuse('"missing" and "nulls_last" say different things');
  }
  return { field, direction, missing: given.missing ?? byNulls };
});

const sortsSchema = z.array(keySchema).min(1).max(keysMax);

/** `{sorts: […]}`, `{sort: {…} | […]}`, `{by: […]}` or the one key itself. */
const sortParameters = z
  .unknown()
  .transform((value, ctx): unknown => {
    if (!isObject(value)) {
      addFault(
        ctx,
        { type: 'value_error', path: [], message: `expected an object, got ${kindOf(value)}` },
        value,
      );
      return z.NEVER;
    }
    if (value.sort !== undefined) {
      const { sort, ...rest } = value;
      return { ...rest, sorts: Array.isArray(sort) ? sort : [sort] };
    }
    if (Array.isArray(value.by)) {
      const { by, ...rest } = value;
      return { ...rest, sorts: by };
    }
    if (value.sorts !== undefined) return value;
    return { sorts: [value] };
  })
  .pipe(strict({ sorts: sortsSchema }))
  .meta({
    description:
      "One key {field, direction, nulls_last}, or several in `sorts`; the field `score` is the hit's score",
    type: 'object',
  });

async function runSort(ctx: StageContext, sorts: readonly SortKey[], input: WorkingSet): Promise<WorkingSet> {
  // Before a search all scores are equal, so a key on them decides nothing.
  if (input.kind === 'selection') return { ...input, sort: sorts.filter(({ field }) => field !== 'score') };
  const hits = sorts.every(({ field }) => field === 'score')
    ? input.hits
    : await ctx.withDocuments(input.hits);
  const compare = compareByKeys(sorts);
  const sorted = hits
    .map((hit) => ({ hit, keys: sortableOf(hit, hit.document) }))
    .sort((a, b) => compare(a.keys, b.keys))
    .map(({ hit }) => hit);
  return { kind: 'hits', hits: sorted };
}

const common = {
  category: 'sort' as const,
  canStart: false,
  roots: () => [],
  check: () => [],
  featureUris: () => [],
  outputMax: (_parameters: unknown, input: number | null) => input,
};

export const sort: Stage<SortParameters> = {
  ...common,
  stage_id: 'sort',
  description: 'Orders the documents by score or by fields; ties by document id.',
  icon: 'arrow-down-up',
  parameters: sortParameters,
  run: (ctx, { sorts }, input) => runSort(ctx, sorts, input),
};

export interface SortRelevanceParameters {
  readonly score_field: string;
  readonly direction: 'asc' | 'desc';
  readonly missing_score: 'bottom' | 'top';
}

export const sortRelevance: Stage<SortRelevanceParameters> = {
  ...common,
  stage_id: 'sort_relevance',
  description: 'Orders the documents by score, or by a field that holds one.',
  icon: 'arrow-down-wide-narrow',
  parameters: strict({
    score_field: fieldSchema.default('score'),
    direction: directionSchema.default('desc'),
    missing_score: z.enum(['bottom', 'top']).default('bottom'),
  }),
  run: (ctx, { score_field, direction, missing_score }, input) =>
    runSort(
      ctx,
      [{ field: score_field, direction, missing: missing_score === 'top' ? 'first' : 'last' }],
      input,
    ),
};

export interface SortAttributeParameters {
  readonly field: string;
  readonly direction: 'asc' | 'desc';
  readonly nulls_last: boolean;
}

export const sortAttribute: Stage<SortAttributeParameters> = {
  ...common,
  stage_id: 'sort_attribute',
  description: 'Orders the documents by one field.',
  icon: 'arrow-down-a-z',
  parameters: strict({
    field: fieldSchema.default('metadata.created_at'),
    direction: directionSchema.default('desc'),
    nulls_last: z.boolean().default(true),
  }),
  run: (ctx, { field, direction, nulls_last }, input) =>
    runSort(ctx, [{ field, direction, missing: nulls_last ? 'last' : 'first' }], input),
};
