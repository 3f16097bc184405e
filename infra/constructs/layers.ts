// The compiled Python packages as Lambda layers, as `npm run layers` left them under `.local/layers`.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Annotations, Stack } from 'aws-cdk-lib';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import { projectFolder } from './bundle.ts';
import { pythonRuntime } from './python-function.ts';

/** Folders under `layers/`. */
export type LayerName = 'python-science' | 'python-cluster';

/** Holds the folder `python/` once the layer has been built. @see layers/build.ts */
export function builtLayerFolder(name: LayerName, architecture: lambda.Architecture): string {
  return join(projectFolder, '.local', 'layers', `${name}-${architecture.name}`);
}

/** @returns the layer; one that is not built is a placeholder, and the synth says so. */
export function pythonLayer(
  scope: Construct,
  id: string,
  name: LayerName,
  architecture: lambda.Architecture,
): lambda.LayerVersion {
  const built = builtLayerFolder(name, architecture);
  const usable = Stack.of(scope).bundlingRequired && existsSync(join(built, 'built.json'));
  if (!usable && Stack.of(scope).bundlingRequired) {
    Annotations.of(scope).addWarningV2(
      `granary:layer-${name}`,
      `the layer ${name} (${architecture.name}) is not built, so a placeholder stands in for it: run "npm run layers" before a deployment`,
    );
  }
  return new lambda.LayerVersion(scope, id, {
    description: `Granary: layers/${name}/requirements.txt for Python 3.13, ${architecture.name}`,
    compatibleRuntimes: [pythonRuntime],
    compatibleArchitectures: [architecture],
    code: lambda.Code.fromAsset(usable ? built : join(projectFolder, 'layers', 'placeholder')),
  });
}
