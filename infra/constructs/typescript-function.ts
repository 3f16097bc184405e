// A Lambda in TypeScript: runtime, bundle, logs, traces and environment are decided here and nowhere else.
import { Stack } from 'aws-cdk-lib';
import type * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import { Construct } from 'constructs';
import type { EnvironmentOf, LambdaName } from '../../functions/core/env.ts';
import type { StageSettings } from '../stage.ts';
import { bundleOf } from './bundle.ts';
import { functionParts } from './function-parts.ts';

export const nodeRuntime: lambda.Runtime = lambda.Runtime.NODEJS_24_X;

export interface TypeScriptFunctionProps<L extends LambdaName> {
  /** The folder under `functions/`, whose `index.ts` exports `handler`. */
  readonly lambda: L;
  readonly settings: StageSettings;
  /** Exactly the values that the Lambda declares in `core/env.ts`; one missing does not compile. */
  readonly environment: EnvironmentOf<L>;
}

export class TypeScriptFunction<L extends LambdaName = LambdaName> extends Construct {
  readonly function: lambda.Function;
  /** May write its own logs and traces; everything else is added by the stack, see `rights.ts`. */
  readonly role: iam.Role;

  constructor(scope: Construct, id: string, props: TypeScriptFunctionProps<L>) {
    super(scope, id);
    const { role, properties } = functionParts(this, props.lambda, props.settings);
    this.role = role;
    this.function = new lambda.Function(this, 'Function', {
      ...properties,
      runtime: nodeRuntime,
      architecture: lambda.Architecture.ARM_64,
      handler: 'index.handler',
      code: Stack.of(this).bundlingRequired
        ? lambda.Code.fromAsset(bundleOf(props.lambda))
        : lambda.Code.fromInline('// Synthesised without bundling.'),
      environment: { ...props.environment },
      tracing: lambda.Tracing.ACTIVE,
    });
  }
}
