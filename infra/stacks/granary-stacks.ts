// The stacks of a stage, for what looks at all of them: acknowledgements of the rules, and template tests.
import type { ApiStack } from './api-stack.ts';
import type { DataStack } from './data-stack.ts';
import type { DeliveryStack } from './delivery-stack.ts';
import type { ObservabilityStack } from './observability-stack.ts';
import type { ProcessingStack } from './processing-stack.ts';

export interface GranaryStacks {
  readonly data: DataStack;
  readonly delivery: DeliveryStack;
  readonly processing: ProcessingStack;
  readonly api: ApiStack;
  /** Where the stage is observed. */
  readonly observability?: ObservabilityStack;
}
