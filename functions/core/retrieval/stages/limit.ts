// Stage limit: a part of the documents, in the order that they have.
import { numberOrTemplate, resolvedNumber, strict } from './parameters.ts';
import { hitsMax, type Stage } from './stage.ts';

const limitRange = { min: 1, max: 10_000, integer: true };
const offsetRange = { min: 0, max: 10_000, integer: true };

export interface LimitParameters {
  readonly limit: number | string;
  readonly offset: number | string;
}

export const limit: Stage<LimitParameters> = {
  stage_id: 'limit',
  description: 'Keeps at most `limit` documents, after skipping `offset`.',
  category: 'reduce',
  icon: 'scissors',
  parameters: strict({
    limit: numberOrTemplate(limitRange).default(10),
    offset: numberOrTemplate(offsetRange).default(0),
  }),
  canStart: false,
  roots: () => ['INPUT', 'CONTEXT', 'STAGE', 'SECRET'],
  check: () => [],
  featureUris: () => [],
  outputMax: ({ limit: own }, input) => {
    const max = typeof own === 'number' ? own : limitRange.max;
    return input === null ? max : Math.min(max, input);
  },
  async run(ctx, parameters, input) {
    const take = resolvedNumber(ctx.resolve(parameters.limit, ['limit']), limitRange, [...ctx.path, 'limit']);
    const skip = resolvedNumber(ctx.resolve(parameters.offset, ['offset']), offsetRange, [
      ...ctx.path,
      'offset',
    ]);
    if (input.kind === 'hits') return { kind: 'hits', hits: input.hits.slice(skip, skip + take) };
    if (take > hitsMax) ctx.warn(`A list without a search ends after ${hitsMax} documents.`);
    const { hits } = await ctx.list({
      ...(input.filter ? { filter: input.filter } : {}),
      sort: input.sort,
      offset: skip,
      limit: Math.min(take, hitsMax),
    });
    return { kind: 'hits', hits };
  },
};
