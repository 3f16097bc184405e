// The functions that run users' code: no right but their own logs, an environment per tenant, no traces (that would be
// a right).
import * as lambda from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import type { Sizing, StageSettings } from '../stage.ts';
import type { IsolatedNetwork } from './isolated-network.ts';
import { pythonLayer } from './layers.ts';
import { PythonFunction } from './python-function.ts';

/** The same code in functions that differ in what surrounds it; `core/resources/plugins/run.ts` chooses. */
export interface Runners {
  readonly standard: PythonFunction;
  /** Has a way to the Internet, and no network of ours. */
  readonly egress: PythonFunction | undefined;
  /** Has the memory for plugins of the class `large`, and CPU with it. */
  readonly large: PythonFunction | undefined;
}

const largeMemoryMb = 5_308;

export function runnersOf({ standard, egress, large }: Runners): PythonFunction[] {
  return [standard, egress, large].filter((runner) => runner !== undefined);
}

/** @param network where those live that may not talk to anybody */
export function makeRunners(
  scope: Construct,
  settings: StageSettings,
  network: IsolatedNetwork | undefined,
): Runners {
  // Plugins bring wheels for x86-64.
  const architecture = lambda.Architecture.X86_64;
  const layer = settings.layers
    ? { layer: pythonLayer(scope, 'SciencePackages', 'python-science', architecture) }
    : {};
  const size = settings.sizing['plugin-runner'];
  const make = (
    id: string,
    within: IsolatedNetwork | undefined,
    { ownSize = size, hasEgress = false }: { ownSize?: Sizing['plugin-runner']; hasEgress?: boolean } = {},
  ) => {
    const runner = new PythonFunction(scope, id, {
      folder: 'plugin-runner',
      settings,
      architecture,
      size: ownSize,
      ...layer,
      more: {
        ...(settings.tenancy ? { tenancyConfig: lambda.TenancyConfig.PER_TENANT } : {}),
        ...(within ? within.functionProps() : {}),
        // Elsewhere the worker itself refuses the network, as far as the kernel helps.
        ...(hasEgress ? { environment: { PLUGIN_EGRESS: 'on' } } : {}),
      },
    });
    within?.keepFromCode(runner, runner.role, runner.function.functionArn);
    return runner;
  };
  return {
    standard: make('PluginRunner', network),
    egress: settings.runnerEgress ? make('PluginRunnerEgress', undefined, { hasEgress: true }) : undefined,
    large: settings.runnerLarge
      ? make('PluginRunnerLarge', network, { ownSize: { ...size, memoryMb: largeMemoryMb } })
      : undefined,
  };
}
