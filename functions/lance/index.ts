// The Lambda that runs LanceDB over the index bucket. Deployed only where the stage says so, from `.local/lance`.
import type { ArrowModule, LanceModule } from './lance-module.ts';
import { makeLance } from './operations.ts';

const bucket = process.env.INDEX_BUCKET;
if (!bucket)
  throw new Error('the Lambda "lance" lacks INDEX_BUCKET (bucket of index segments and manifests)');

/** Installed beside the bundle and not part of it, so no bundler may follow the names. */
const load = async <T>(name: string): Promise<T> => (await import(name)) as T;

export const handler = makeLance(
  { lancedb: await load<LanceModule>('@lancedb/lancedb'), arrow: await load<ArrowModule>('apache-arrow') },
  { root: `s3://${bucket}` },
);
