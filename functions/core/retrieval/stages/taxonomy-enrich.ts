// Stage taxonomy_enrich: classifies the documents of a run by a taxonomy and adds what they take over; nothing is stored.
import * as z from 'zod';
import { canonicalField } from '../../conditions/index.ts';
import { checkFilter, dynamicToTemplates, parseResolved, passes } from '../filter.ts';
import { checkTemplates } from '../template.ts';
import { numberOrTemplate, resolvedNumber, strict } from './parameters.ts';
import { type Hit, type Stage, withAdded } from './stage.ts';

const topKRange = { min: 1, max: 50, integer: true };
const scoreRange = { min: -1, max: 1, integer: false };
/** Documents that are classified; those behind them pass as they are. */
const documentsMax = 500;

export interface TaxonomyEnrichParameters {
  /** Id or name, or one template. */
  readonly taxonomy_id: string;
  /** Targets to add; all of the taxonomy's if left out. */
  readonly fields?: readonly string[] | undefined;
  readonly top_k: number | string;
  readonly min_score?: number | string | undefined;
  /** Only documents that fulfil it are classified. */
  readonly when?: unknown;
}

const fieldName = z.string().min(1).max(256);
const fieldsSchema = z
  .array(
    z.union([
      fieldName,
      strict({ target_field: fieldName.optional(), field_path: fieldName.optional() }).refine(
        (field) => field.target_field !== undefined || field.field_path !== undefined,
        'name the target_field',
      ),
    ]),
  )
  .min(1)
  .max(50)
  .transform((list) =>
    list.map((field) =>
      canonicalField(typeof field === 'string' ? field : (field.target_field ?? field.field_path)!),
    ),
  );

const parameters = strict({
  taxonomy_id: z
    .string()
    .min(1)
    .max(200)
    .meta({ description: 'id or name of the taxonomy, or one template' }),
  fields: fieldsSchema.optional(),
  top_k: numberOrTemplate(topKRange)
    .default(3)
    .describe('assignments that each document lists under _internal.taxonomy_assignments'),
  min_score: numberOrTemplate(scoreRange).optional(),
  when: z.unknown().transform(dynamicToTemplates).optional(),
}).transform((given): TaxonomyEnrichParameters => given);

export const taxonomyEnrich: Stage<TaxonomyEnrichParameters> = {
  stage_id: 'taxonomy_enrich',
  description: 'Classifies documents by a taxonomy and adds the fields that they take over.',
  category: 'enrich',
  icon: 'tags',
  parameters,
  canStart: false,
  roots: () => ['INPUT', 'CONTEXT', 'STAGE', 'SECRET', 'DOC'],
  check: ({ when }) => (when === undefined ? [] : checkFilter(when, ['when'])),
  featureUris: () => [],
  outputMax: (_parameters, input) => input,
  async run(ctx, { taxonomy_id, fields, top_k, min_score, when }, input) {
    const named = String(ctx.resolve(taxonomy_id, ['taxonomy_id']));
    const most = resolvedNumber(ctx.resolve(top_k, ['top_k']), topKRange, [...ctx.path, 'top_k']);
    const least =
      min_score === undefined
        ? undefined
        : resolvedNumber(ctx.resolve(min_score, ['min_score']), scoreRange, [...ctx.path, 'min_score']);
    const hits = await ctx.withDocuments(await ctx.materialise(input));
    const perDocument =
      when !== undefined && checkTemplates(when).references.some(({ root }) => root === 'DOC');
    const fixed =
      when === undefined || perDocument
        ? undefined
        : parseResolved(ctx.resolve(when, ['when']), [...ctx.path, 'when']);
    const chosen = hits.filter(({ document }) => {
      if (when === undefined) return true;
      const filter =
        fixed ?? parseResolved(ctx.resolve(when, ['when'], { DOC: document! }), [...ctx.path, 'when']);
      return passes(filter, document!);
    });
    if (chosen.length > documentsMax)
      ctx.warn(`taxonomy_enrich classified the first ${documentsMax} of ${chosen.length} documents.`);
    const asked = chosen.slice(0, documentsMax);
    ctx.note({ classified: asked.length });
    if (asked.length === 0) return { kind: 'hits', hits };
    if (!ctx.port.enrich) throw new Error('the port of this run cannot classify');
    const found = await ctx.port.enrich({
      taxonomy_id: named,
      documents: asked.map(({ document }) => document!),
      top_k: most,
      deadline_ms: ctx.deadlineMs,
      ...(fields ? { fields } : {}),
      ...(least === undefined ? {} : { min_score: least }),
    });
    ctx.checkDeadline();
    const added = new Map(asked.map((hit, i) => [hit, found[i]!]));
    ctx.note({ enriched: found.filter((one) => Object.keys(one.fields).length > 0).length });
    return {
      kind: 'hits',
      hits: hits.map((hit): Hit => {
        const own = added.get(hit);
        return own ? withAdded(hit, own) : hit;
      }),
    };
  },
};
