// Parameter `facets` of the stages that select documents: fields whose values are counted over everything selected.
import * as z from 'zod';
import { canonicalField, fieldFault } from '../../conditions/index.ts';
import type { FacetField } from '../ports.ts';
import { hasTemplate } from '../template.ts';
import { addFault, strict } from './parameters.ts';

/** Fields of one stage. */
export const facetFieldsMax = 20;
/** Values of one field. */
export const facetValuesMax = 1000;

const facetSchema = strict({
  key: z.string().superRefine((key, ctx) => {
    const message = hasTemplate(key) ? 'templates are not possible here' : fieldFault(canonicalField(key));
    if (message !== undefined) addFault(ctx, { type: 'value_error', path: [], message }, key);
  }),
  limit: z.int().min(1).max(facetValuesMax).nullish(),
  // Counts are always exact; whoever asks for less gets that too.
  exact: z.boolean().nullish(),
}).transform(({ key, limit }): FacetField => ({ key, limit: limit ?? 10 }));

export const facetsSchema = z
  .array(facetSchema)
  .min(1)
  .max(facetFieldsMax)
  .superRefine((fields, ctx) => {
    const seen = new Set<string>();
    for (const [index, { key }] of fields.entries()) {
      const name = canonicalField(key);
      if (seen.has(name)) {
        const message = `the field ${JSON.stringify(name)} is counted already`;
        addFault(ctx, { type: 'value_error', path: [index, 'key'], message }, key);
      }
      seen.add(name);
    }
  })
  .meta({
    description:
      'Fields whose values are counted, exactly and over every document that the filters let through: the answer has them in `facets`',
  });
