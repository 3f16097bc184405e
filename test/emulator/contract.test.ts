// The stores over DynamoDB and S3 keep the contracts that the ones in memory keep: the same suites, a deployed table and
// deployed buckets.
import { S3Client } from '@aws-sdk/client-s3';
import { describe, it } from 'vitest';
import { DynamoTable } from '../../functions/core/aws/dynamo.ts';
import { S3Blobs } from '../../functions/core/aws/s3.ts';
import { inNamespace, makeContext } from '../../functions/core/context.ts';
import { newId } from '../../functions/core/ids.ts';
import { blobsSuite } from '../contract/blobs/suite.ts';
import { groupCommitSuite } from '../contract/group-commit-suite.ts';
import { tableSuite } from '../contract/table/suite.ts';
import { vectorIndexSuite } from '../contract/vector-index-suite.ts';
import { makeTestPorts } from '../http/app.ts';

if (process.env.GRANARY_TEST_OUTPUTS === undefined) {
  const reason = 'GRANARY_TEST_OUTPUTS names no deployed stack; run `npm run test:emulator`';
  console.warn(`stores over DynamoDB and S3 are not tested: ${reason}`);
  describe('stores over DynamoDB and S3', () => {
    it.skip(reason, () => {});
  });
} else {
  const { output, stack } = await import('./stack.ts');
  const table = new DynamoTable(output('TableName'));
  // The emulator takes presigned URLs of its own functions' key alone, as a Lambda there would sign them.
  const client =
    stack.endpoint === undefined
      ? undefined
      : new S3Client({
          credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
          requestChecksumCalculation: 'WHEN_REQUIRED',
        });
  const [blobs, archives] = ['BlobBucketName', 'ArchiveBucketName'].map(
    (name) => new S3Blobs(output(name), client),
  ) as [S3Blobs, S3Blobs];
  tableSuite({ name: 'DynamoDB', make: async () => table, runs: 15 });
  blobsSuite({ name: 'S3', make: async () => blobs, makeOther: async () => archives, fetch });
  const makeNamespace = async () => {
    const ports = { ...makeTestPorts(), table, index: new S3Blobs(output('IndexBucketName')) };
    const ctx = makeContext(
      ports,
      { orgId: newId('organization'), keyId: 'key', permissions: ['admin'] },
      'contract',
    );
    return inNamespace(ctx, newId('namespace'));
  };
  vectorIndexSuite('DynamoDB and S3', makeNamespace, { compacts: true });
  groupCommitSuite('DynamoDB and S3', makeNamespace);
}
