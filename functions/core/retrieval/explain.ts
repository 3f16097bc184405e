// What a retriever would do, without doing it: the stages in order, bounds on what they pass on, what is pushed down.
import type { RetrieverDefinition } from './definition.ts';
import { findStage } from './stages/index.ts';

export interface StagePlan {
  readonly stage_index: number;
  readonly stage_name: string;
  readonly stage_type: string;
  readonly stage_id: string;
  /** As stored, with its templates. */
  readonly parameters: unknown;
  /** Upper bounds; null = as many as the collections hold, where that is not known. */
  readonly estimated_input: number | null;
  readonly estimated_output: number | null;
  readonly estimated_efficiency: number | null;
  readonly cache_likely: false;
  readonly optimization_notes: readonly string[];
  readonly warnings: readonly string[];
}

export interface Plan {
  readonly execution_plan: readonly StagePlan[];
  readonly total_estimated_stages: number;
  readonly feature_uris: readonly string[];
}

/**
 * Plans a run.
 *
 * @param rows how many documents the collections hold, if the caller knows
 */
export function explainRetriever(
  definition: Pick<RetrieverDefinition, 'stages' | 'feature_uris'>,
  rows: number | null = null,
): Plan {
  let flowing = rows;
  let inIndex = true;
  const execution_plan = definition.stages.map(
    ({ stage_name, stage_type, config }, stage_index): StagePlan => {
      const stage = findStage(config.stage_id);
      if (!stage) throw new Error(`the stored stage ${config.stage_id} does not exist`);
      const estimated_input = flowing;
      const estimated_output = stage.outputMax(config.parameters, flowing);
      const optimization_notes: string[] = [];
      const warnings: string[] = [];
      const next = definition.stages[stage_index + 1]?.config.stage_id;
      if (config.stage_id === 'feature_search') {
        if (!inIndex) optimization_notes.push('searches only among the documents of the stage before');
        inIndex = false;
      } else if (config.stage_id === 'limit') {
        if (inIndex) optimization_notes.push('the index lists only as many documents');
        inIndex = false;
      } else if (inIndex) {
        const into = next === 'feature_search' ? 'the search' : 'the list of documents';
        optimization_notes.push(`handed to the index as a part of ${into}`);
        if (stage.category === 'sort' && next === 'feature_search') {
          warnings.push('a search gives its own order, so this order has no effect');
        }
      } else {
        optimization_notes.push('reads the documents that the stage before passed on');
      }
      flowing = estimated_output;
      return {
        stage_index,
        stage_name,
        stage_type,
        stage_id: config.stage_id,
        parameters: config.parameters,
        estimated_input,
        estimated_output,
        estimated_efficiency:
          estimated_input && estimated_output !== null ? estimated_output / estimated_input : null,
        cache_likely: false,
        optimization_notes,
        warnings,
      };
    },
  );
  return {
    execution_plan,
    total_estimated_stages: execution_plan.length,
    feature_uris: definition.feature_uris,
  };
}
