// The suite of vector backends over segments alone, over Amazon S3 Vectors as a fake server, and over LanceDB: the real
// package where it is installed for tests, always a fake of it as well.
import { describe, it } from 'vitest';
import { LanceBackend } from '../../functions/core/aws/lance.ts';
import { S3VectorsBackend } from '../../functions/core/aws/s3-vectors.ts';
import { isLanceInstalled, startLance } from '../fixtures/lance-fake.ts';
import { S3VectorsServer } from '../fixtures/s3-vectors-server.ts';
import { vectorBackendSuite } from './vector-backend-suite.ts';

vectorBackendSuite('segments only', { name: 'segments', make: async () => ({ stop: () => undefined }) });

vectorBackendSuite('Amazon S3 Vectors (a fake server of its protocol, not the service)', {
  name: 's3_vectors',
  make: async () => {
    const bucket = 'granary-test-vectors';
    const server = await S3VectorsServer.start({ bucket });
    const backend = new S3VectorsBackend(bucket, {
      endpoint: server.endpoint,
      region: 'eu-central-1',
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
      maxAttempts: 1,
    });
    return { backend, stop: () => server.stop() };
  },
});

const overLance = (kind: 'real' | 'fake') => async () => {
  const lance = startLance(kind);
  return { backend: new LanceBackend(lance.caller), stop: () => lance.stop() };
};

vectorBackendSuite('LanceDB (a fake of the package)', { name: 'lancedb', make: overLance('fake') });

if (isLanceInstalled) {
  vectorBackendSuite('LanceDB (the real package)', { name: 'lancedb', make: overLance('real') });
} else {
  describe('vectors in LanceDB (the real package)', () => {
    it.skip('is not installed: "npm run lance -- --tests" installs it', () => undefined);
  });
}
