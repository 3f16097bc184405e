// A Lambda in Python: runtime, code asset, layers and logs are decided here and nowhere else.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Stack } from 'aws-cdk-lib';
import type * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import { Construct } from 'constructs';
import type { FolderName, Sizing, StageSettings } from '../stage.ts';
import { projectFolder } from './bundle.ts';
import { functionParts } from './function-parts.ts';

export const pythonRuntime: lambda.Runtime = lambda.Runtime.PYTHON_3_13;

export interface PythonFunctionProps {
  /** The folder under `functions/`, whose `handler.py` defines `handler`. */
  readonly folder: Extract<FolderName, 'plugin-validator' | 'plugin-runner' | 'clusterer'>;
  readonly settings: StageSettings;
  /** Plugins bring wheels for x86-64; what has no native packages may be arm64. */
  readonly architecture: lambda.Architecture;
  /** @default that of the stage */
  readonly size?: Sizing[FolderName];
  /** @default none */
  readonly layer?: lambda.ILayerVersion;
  /** @default no traces, so that the role has no right but to write logs */
  readonly traced?: boolean;
  /** Further properties of the function, such as network and tenancy. */
  readonly more?: Partial<lambda.FunctionProps>;
}

export class PythonFunction extends Construct {
  readonly function: lambda.Function;
  readonly role: iam.Role;

  constructor(scope: Construct, id: string, props: PythonFunctionProps) {
    super(scope, id);
    const { role, properties } = functionParts(this, props.folder, props.settings, props.size);
    this.role = role;
    this.function = new lambda.Function(this, 'Function', {
      ...properties,
      runtime: pythonRuntime,
      architecture: props.architecture,
      handler: 'handler.handler',
      code: codeOf(this, props.folder),
      tracing: props.traced ? lambda.Tracing.ACTIVE : lambda.Tracing.DISABLED,
      ...(props.layer ? { layers: [props.layer] } : {}),
      ...props.more,
    });
  }
}

function codeOf(scope: Construct, folder: string): lambda.Code {
  if (!Stack.of(scope).bundlingRequired) return lambda.Code.fromInline('# Synthesised without bundling.');
  const path = join(projectFolder, 'functions', folder);
  if (!existsSync(join(path, 'handler.py'))) {
    throw new Error(`functions/${folder}/handler.py is missing; it must define "handler(event, context)"`);
  }
  return lambda.Code.fromAsset(path, {
    exclude: ['**/__pycache__', '**/*.pyc', 'pyproject.toml', 'requirements*.txt', '*.md'],
  });
}
