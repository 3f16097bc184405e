// Stage attribute_filter: keeps the documents that fulfil a condition; as the first stage it selects them.
import * as z from 'zod';
import { isObject, kindOf } from '../faults.ts';
import { allOf, checkFilter, dynamicToTemplates, parseResolved, passes } from '../filter.ts';
import type { FacetField } from '../ports.ts';
import { checkTemplates } from '../template.ts';
import { facetsSchema } from './facets-parameter.ts';
import { addFault, strict } from './parameters.ts';
import type { Hit, Stage } from './stage.ts';

export interface AttributeFilterParameters {
  /** A condition tree; values may be templates. */
  readonly conditions: Readonly<Record<string, unknown>>;
  /** Counted over the documents that are kept. */
  readonly facets?: readonly FacetField[] | undefined;
}

const leafKeys = ['field', 'operator', 'value'];
const groupKeys = ['AND', 'OR', 'NOT'];

const parameters = strict({
  conditions: z.unknown().optional(),
  filters: z.unknown().optional(),
  field: z.string().optional(),
  operator: z.string().optional(),
  value: z.unknown().optional(),
  AND: z.unknown().optional(),
  OR: z.unknown().optional(),
  NOT: z.unknown().optional(),
  case_sensitive: z.boolean().optional(),
  case_insensitive: z.boolean().optional(),
  facets: facetsSchema.optional(),
  // How many documents a vendor's stage looks at per step; it changes no result.
  batch_size: z.int().min(1).max(1000).optional(),
})
  .transform((given, ctx): AttributeFilterParameters => {
    const forms: { name: string; tree: unknown }[] = [];
    if (given.conditions !== undefined) forms.push({ name: 'conditions', tree: given.conditions });
    if (given.filters !== undefined) forms.push({ name: 'filters', tree: given.filters });
    const here = (keys: readonly string[]) =>
      Object.fromEntries(
        Object.entries(given).filter(([key, value]) => keys.includes(key) && value !== undefined),
      );
    if (leafKeys.some((key) => key in here(leafKeys))) forms.push({ name: 'field', tree: here(leafKeys) });
    if (groupKeys.some((key) => key in here(groupKeys))) {
      forms.push({ name: Object.keys(here(groupKeys)).join(', '), tree: here(groupKeys) });
    }
    const [first, second] = forms;
    const refuse = (message: string, fix: string) => {
      addFault(ctx, { type: 'value_error', path: [], message, fix }, given);
      return z.NEVER;
    };
    const form = '{"conditions": {"field": "status", "operator": "eq", "value": "active"}}';
    if (!first) return refuse('the stage has no condition', `write ${form}`);
    if (second && JSON.stringify(first.tree) !== JSON.stringify(second.tree)) {
      return refuse(
        `"${first.name}" and "${second.name}" are two conditions`,
        'join them by {"AND": […]} in one',
      );
    }
    const tree = dynamicToTemplates(first.tree);
    if (!isObject(tree))
      return refuse(`the condition must be an object, got ${kindOf(tree)}`, `write ${form}`);
    const sensitive = caseOf(given);
    if (sensitive === 'both') {
      return refuse('case_sensitive and case_insensitive contradict each other', 'give one of them');
    }
    return {
      conditions: sensitive === undefined ? tree : { AND: [tree], case_sensitive: sensitive },
      ...(given.facets === undefined ? {} : { facets: given.facets }),
    };
  })
  .meta({
    description:
      'A condition: {field, operator, value}, or a tree in `conditions` (also accepted as `filters`)',
  });

function caseOf(given: { case_sensitive?: boolean | undefined; case_insensitive?: boolean | undefined }) {
  const { case_sensitive, case_insensitive } = given;
  if (case_insensitive === undefined) return case_sensitive;
  return case_sensitive === case_insensitive ? ('both' as const) : !case_insensitive;
}

export const attributeFilter: Stage<AttributeFilterParameters> = {
  stage_id: 'attribute_filter',
  description:
    'Keeps the documents that fulfil a condition on their fields; before any search it selects them.',
  category: 'filter',
  icon: 'filter',
  parameters,
  canStart: true,
  roots: (first) => ['INPUT', 'CONTEXT', 'STAGE', 'SECRET', ...(first ? [] : (['DOC'] as const))],
  check: ({ conditions }) => checkFilter(conditions, ['conditions']),
  featureUris: () => [],
  outputMax: (_parameters, input) => input,
  async run(ctx, { conditions, facets }, input) {
    const path = [...ctx.path, 'conditions'];
    const perDocument = checkTemplates(conditions).references.some(({ root }) => root === 'DOC');
    if (input.kind === 'selection' && !perDocument) {
      const own = parseResolved(ctx.resolve(conditions, ['conditions']), path);
      const filter = allOf(input.filter, own);
      const counted = allOf(ctx.requestFilter, filter);
      await ctx.facets(facets, { scopes: [counted ? { filter: counted } : {}] });
      return filter ? { ...input, filter } : input;
    }
    const hits = await ctx.withDocuments(await ctx.materialise(input));
    const fixed = perDocument ? undefined : parseResolved(ctx.resolve(conditions, ['conditions']), path);
    const kept: Hit[] = [];
    for (const hit of hits) {
      if (!hit.document) continue;
      const filter =
        fixed ?? parseResolved(ctx.resolve(conditions, ['conditions'], { DOC: hit.document }), path);
      if (passes(filter, hit.document)) kept.push(hit);
    }
    await ctx.facets(facets, { scopes: [{}], include: kept });
    return { kind: 'hits', hits: kept };
  },
};
