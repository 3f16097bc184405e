// Puts the stacks together, by what each needs of the others; also what template tests build.
import type { App } from 'aws-cdk-lib';
import { Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks, ServerlessChecks } from 'cdk-nag';
import { acknowledge } from './acknowledgements.ts';
import { ApiStack } from './stacks/api-stack.ts';
import { DataStack } from './stacks/data-stack.ts';
import { DeliveryStack } from './stacks/delivery-stack.ts';
import type { GranaryStacks } from './stacks/granary-stacks.ts';
import { ObservabilityStack } from './stacks/observability-stack.ts';
import { ProcessingStack } from './stacks/processing-stack.ts';
import type { StageSettings } from './stage.ts';

/** Adds all stacks of a stage to the app, and the rules that fail its synth. */
export function addGranary(app: App, settings: StageSettings): GranaryStacks {
  const data = new DataStack(app, 'Data', settings);
  const delivery = new DeliveryStack(app, 'Delivery', { settings, data });
  const processing = new ProcessingStack(app, 'Processing', { settings, data, delivery });
  const api = new ApiStack(app, 'Api', { settings, data, processing });
  const stacks = { data, delivery, processing, api };
  const all = settings.observed
    ? { ...stacks, observability: new ObservabilityStack(app, 'Observability', { settings, ...stacks }) }
    : stacks;
  if (settings.observed) {
    // The emulator's stage has neither logs nor alarms to check.
    Validations.of(app).addPlugins(new AwsSolutionsChecks(app), new ServerlessChecks(app));
    acknowledge(all, settings);
  }
  return all;
}
