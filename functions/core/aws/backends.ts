// The vector backends of a stage, from the environment value that names them.
import { LambdaClient } from '@aws-sdk/client-lambda';
import * as z from 'zod';
import type { BackendPorts } from '../backends/registry.ts';
import { LambdaCaller } from './invoke.ts';
import { LanceBackend } from './lance.ts';
import { S3VectorsBackend } from './s3-vectors.ts';

/** What `VECTOR_BACKENDS` holds; infra/constructs/vector-backends.ts writes it. */
const VectorBackends = z.strictObject({
  s3_vectors: z.strictObject({ bucket: z.string().min(3) }).optional(),
  lancedb: z.strictObject({ function: z.string().min(1) }).optional(),
});

/** Indexing a large table takes as long as a Lambda may run. */
const lanceTimeoutMs = 910_000;

function lanceCaller(name: string): LambdaCaller {
  const requestHandler = { requestTimeout: lanceTimeoutMs, connectionTimeout: 5_000 };
  return new LambdaCaller(name, false, new LambdaClient({ maxAttempts: 2, requestHandler }));
}

/** @throws Error if the value is not what infra writes */
export function makeBackends(value: string): BackendPorts {
  const { s3_vectors, lancedb } = VectorBackends.parse(JSON.parse(value));
  return {
    ...(s3_vectors ? { s3_vectors: new S3VectorsBackend(s3_vectors.bucket) } : {}),
    ...(lancedb ? { lancedb: new LanceBackend(lanceCaller(lancedb.function)) } : {}),
  };
}
