// Requests that only read begin before their namespace has been checked; nothing of that may show.
import { describe, expect, it } from 'vitest';
import { makeApp, makeTestPorts } from '../app.ts';
import { expectError } from '../expect.ts';
import { makeLibrary, searchStages } from '../retrievers/library.ts';

const bucketBody = { name: 'articles', bucket_schema: { properties: { text: { type: 'text' } } } };

describe('a namespace of somebody else', () => {
  it('answers a read of what is there, of what is not there, and of a random namespace alike', async () => {
    const ports = makeTestPorts();
    const theirs = await makeApp({ ports });
    const { body: bucket } = await theirs.call('POST', '/v1/namespaces/{ns}/buckets', bucketBody);
    const mine = await makeApp({ ports });
    const random = `ns_${'0'.repeat(20)}`;
    for (const [namespace, id] of [
      [theirs.namespace, bucket.bucket_id],
      [theirs.namespace, 'bkt_00000000000000000000'],
      [random, bucket.bucket_id],
    ]) {
      const reply = await mine.call('GET', `/v1/namespaces/${namespace}/buckets/${id}`);
      expectError(reply, 'namespace_not_found');
      expect(reply.body.error.message).toBe(`No namespace "${namespace}".`);
    }
  });

  it('runs none of its plugins', async () => {
    const library = await makeLibrary();
    await library.publish([{ text: 'a quantum of seed' }]);
    const { body: made } = await library.post('retrievers', { name: 'text_search', stages: searchStages() });
    const path = `/v1/namespaces/${library.namespace}/retrievers/${made.retriever_id}/execute`;
    const body = { input: { query: 'quantum' } };
    const stranger = library.as({ ...library.principal, orgId: 'org_stranger', keyId: 'strange1' });
    expectError(await stranger.call('POST', path, body), 'namespace_not_found');
    const narrowed = library.as({ ...library.principal, namespaceIds: [`ns_${'0'.repeat(20)}`] });
    expectError(await narrowed.call('POST', path, body), 'namespace_not_found');
    expect(library.embedded()).toEqual([]);
    // The owner's own search does run it, so the test would see a call.
    expect((await library.call('POST', path, body)).status).toBe(200);
    expect(library.embedded()).toEqual([['quantum']]);
  });
});
