// The Lambda of taxonomies: a run over what is there, turn by turn, and the step that follows the commit of a batch.
import { makePorts } from '../core/aws/ports.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import type { TaxonomyEvent } from '../core/resources/taxonomies/workflow.ts';
import { taxonomyStep } from '../core/resources/taxonomies/workflow.ts';

const ports = makePorts('taxonomy', readEnvironment('taxonomy'));

export const handler = (event: TaxonomyEvent): Promise<unknown> =>
  taxonomyStep(workflowContext(ports, event), event);
