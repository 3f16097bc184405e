// Pages of documents end before the answer is larger than a Lambda may give.
import { expect, it } from 'vitest';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import { jobFor, makeWorld, runBatch } from '../batches/world.ts';

/** What a Lambda may answer to a request. */
const replyBytesMax = 6_000_000;

it.each([
  ['with vectors', 2_048, 'a', '&return_vectors=true'],
  ['of many-byte characters', 4, '字'.repeat(3_000), ''],
])(
  'a page of documents %s stays below the limit, and the cursor leads to the rest',
  async (_, dims, text, flags) => {
    const world = await makeWorld();
    await world.addPlugin('wide', [{ name: 'wide_embedding', dims }]);
    await world.addCollection('all', ['wide']);
    await world.addObjects(Array.from({ length: 400 }, (_unused, i) => `${i} ${text}`));
    const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const seen = new Set<string>();
    let cursor = '';
    for (let pages = 0; pages < 20; pages++) {
      const path = `/v1/namespaces/{ns}/collections/all/documents?limit=1000${flags}${cursor}`;
      const { status, body } = await world.call('GET', path);
      expect(status).toBe(200);
      expect(Buffer.byteLength(JSON.stringify(body))).toBeLessThan(replyBytesMax);
      for (const { document_id } of body.results) seen.add(document_id);
      if (!body.pagination.next_cursor) break;
      cursor = `&cursor=${encodeURIComponent(body.pagination.next_cursor)}`;
    }
    expect(seen.size).toBe(400);
  },
);
