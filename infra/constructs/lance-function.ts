// The Lambda that runs LanceDB over the index bucket, from what `npm run lance` left under `.local/lance`.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Stack } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as s3 from 'aws-cdk-lib/aws-s3';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import { projectFolder } from './bundle.ts';
import { functionParts } from './function-parts.ts';
import { nodeRuntime } from './typescript-function.ts';

/** Building the structures of a large table needs both. */
const size = { memoryMb: 3008, timeoutSeconds: 900 };

/** Folders of namespaces in the index bucket, as core/backends/lancedb.ts names them. */
const folders = '*/lance';

export class LanceFunction extends Construct {
  readonly function: lambda.Function;
  readonly role: iam.Role;

  /** @throws Error if the stage bundles code and the package is not installed */
  constructor(scope: Construct, id: string, props: { settings: StageSettings; index: s3.IBucket }) {
    super(scope, id);
    const { settings, index } = props;
    const { role, properties } = functionParts(this, 'lance', settings, size);
    this.role = role;
    // Only below the folders of its own: segments and manifests are none of its business.
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['s3:GetObject', 's3:PutObject', 's3:DeleteObject', 's3:AbortMultipartUpload'],
        resources: [index.arnForObjects(`${folders}/*`)],
      }),
    );
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['s3:ListBucket'],
        resources: [index.bucketArn],
        conditions: { StringLike: { 's3:prefix': [folders, `${folders}/*`] } },
      }),
    );
    this.function = new lambda.Function(this, 'Function', {
      ...properties,
      runtime: nodeRuntime,
      // The package's binary, and what `npm run lance` installs, is for this machine.
      architecture: lambda.Architecture.X86_64,
      handler: 'index.handler',
      code: codeOf(this),
      environment: { INDEX_BUCKET: index.bucketName },
      tracing: lambda.Tracing.ACTIVE,
    });
  }
}

function codeOf(scope: Construct): lambda.Code {
  if (!Stack.of(scope).bundlingRequired) return lambda.Code.fromInline('// Synthesised without bundling.');
  const folder = join(projectFolder, '.local', 'lance');
  if (!existsSync(join(folder, 'built.json'))) {
    throw new Error(
      'the stage sets lancedb: true, and LanceDB is not installed: run "npm run lance" before a deployment (215 MB from the package registry)',
    );
  }
  return lambda.Code.fromAsset(folder, { exclude: ['package-lock.json', 'built.json'] });
}
