// The stages that retrievers can use: to add one, write its file and put it into this list.
import * as z from 'zod';
import { attributeFilter } from './attribute-filter.ts';
import { featureSearch } from './feature-search.ts';
import { limit } from './limit.ts';
import { sort, sortAttribute, sortRelevance } from './sort.ts';
import type { Stage } from './stage.ts';
import { taxonomyEnrich } from './taxonomy-enrich.ts';

// Each stage only ever gets the parameters that its own schema made.
// biome-ignore lint/suspicious/noExplicitAny: a list of stages with different parameters
const all: readonly Stage<any>[] = [
  featureSearch,
  attributeFilter,
  sort,
  sortRelevance,
  sortAttribute,
  limit,
  taxonomyEnrich,
];

const byId: ReadonlyMap<string, Stage> = new Map(all.map((stage) => [stage.stage_id, stage]));

/** The ids of all stages, in the order in which they are listed. */
export const stageIds: readonly string[] = all.map((stage) => stage.stage_id);

/** The stage of an id, undefined if there is none. */
export function findStage(stageId: string): Stage | undefined {
  return byId.get(stageId);
}

/** What `GET /v1/retrievers/stages` lists. */
export interface StageDefinition {
  readonly stage_id: string;
  readonly description: string;
  readonly category: Stage['category'];
  readonly icon: string;
  /** JSON Schema of the parameters as they are written. */
  readonly parameter_schema: unknown;
}

export function stageDefinitions(): StageDefinition[] {
  return all.map(({ stage_id, description, category, icon, parameters }) => ({
    stage_id,
    description,
    category,
    icon,
    parameter_schema: z.toJSONSchema(parameters, { io: 'input', unrepresentable: 'any' }),
  }));
}
