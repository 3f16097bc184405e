// The vector backends of a stage: how the Lambdas reach them, and what each may do there.
import { Stack } from 'aws-cdk-lib';
import type * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type { DataStack } from '../stacks/data-stack.ts';
import { allowInvoke, allowVectorIndexes, type VectorAccess } from './rights.ts';

export interface VectorBackends {
  readonly data: DataStack;
  /** The function that runs LanceDB, where the stage has it. */
  readonly lance: lambda.IFunction | undefined;
}

/** The value of `VECTOR_BACKENDS`, which core/aws/backends.ts reads. */
export function vectorBackendsValue({ data, lance }: VectorBackends): string {
  const { vectors } = data;
  return Stack.of(data).toJsonString({
    ...(vectors ? { s3_vectors: { bucket: vectors.bucketName } } : {}),
    ...(lance ? { lancedb: { function: lance.functionName } } : {}),
  });
}

/** Lets a role ask, keep or remove copies, whichever backends the stage has. */
export function allowVectorBackends(
  role: iam.IRole,
  { data, lance }: VectorBackends,
  access: VectorAccess,
): void {
  if (data.vectors) allowVectorIndexes(role, data.vectors.bucketArn, access);
  if (lance) allowInvoke(role, lance);
}
