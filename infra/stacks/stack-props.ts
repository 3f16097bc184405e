// What all stacks share: the name, the tags, and no account or region, so that a synth asks nobody.
import type { StackProps } from 'aws-cdk-lib';
import type { StageSettings } from '../stage.ts';

/** @param id construct id such as `Data`; the stack is then `granary-<stage>-data`. */
export function stackProps(id: string, settings: StageSettings): StackProps {
  return {
    stackName: `granary-${settings.stage}-${id.toLowerCase()}`,
    description: `Granary, stage ${settings.stage}: ${id.toLowerCase()}`,
    tags: { application: 'granary', stage: settings.stage },
    terminationProtection: settings.keepData,
    // CloudFormation takes 1 MB; indented, the gateway's template is twice as long as what it says.
    suppressTemplateIndentation: true,
  };
}
