// The suite of vector backends over segments alone, over Amazon S3 Vectors as a fake server, and over LanceDB: the real
// package where it is installed for tests, always a fake of it as well.
import { describe, expect, it } from 'vitest';
import { LanceBackend } from '../../functions/core/aws/lance.ts';
import { S3VectorsBackend } from '../../functions/core/aws/s3-vectors.ts';
import { isLanceInstalled, startLance } from '../fixtures/lance-fake.ts';
import { S3VectorsServer } from '../fixtures/s3-vectors-server.ts';
import { randomRows, vectorBackendSuite, World } from './vector-backend-suite.ts';

vectorBackendSuite('segments only', { name: 'segments', make: async () => ({ stop: () => undefined }) });

const overS3Vectors = (overlooks?: (key: string) => boolean) => ({
  name: 's3_vectors' as const,
  make: async () => {
    const bucket = 'granary-test-vectors';
    const server = await S3VectorsServer.start({ bucket, ...(overlooks ? { overlooks } : {}) });
    const backend = new S3VectorsBackend(bucket, {
      endpoint: server.endpoint,
      region: 'eu-central-1',
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
      maxAttempts: 1,
    });
    return { backend, stop: () => server.stop() };
  },
});

vectorBackendSuite('Amazon S3 Vectors (a fake server of its protocol, not the service)', overS3Vectors());

describe('a backend that overlooks rows', () => {
  it('costs hits that are among the best, never a wrong one, a wrong score or a row that is new', async () => {
    const world = await World.make(
      overS3Vectors((key) => /[37]$/.test(key)),
      { dims: 8 },
    );
    try {
      await world.put(randomRows(1_000, 8));
      await world.sync();
      await world.put(randomRows(50, 8, 3, 'late'));
      const queries = Object.values(randomRows(8, 8, 77)).map(({ vector }) => vector);
      const result = await world.search({ queries, k: 20 });
      expect(result).toMatchObject({ exact: false, backend: 's3_vectors' });
      world.check(result, queries, 20);
      let found = 0;
      for (const [q, query] of queries.entries()) {
        const ids = new Set(result.matches[q]!.map(({ id }) => id));
        for (const { id } of world.reference(query, 20)) {
          if (ids.has(id)) found += 1;
          else expect(id).toMatch(/^doc_.*[37]$/);
        }
      }
      expect(found).toBeLessThan(160);
      expect(found).toBeGreaterThan(100);
    } finally {
      await world.stop();
    }
  });
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
