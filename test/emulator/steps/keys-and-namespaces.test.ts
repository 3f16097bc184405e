// API keys and namespaces on the deployed stack: who may do what, how keys come and go, and what namespaces hold apart.
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json } from '../stack.ts';
import { adminClient, ask, clientOf, faultOf, makeKey, output, stack, until } from '../stack.ts';

const keys = '/v1/organizations/api-keys';
/** The promise is a minute: the gateway keeps an answer of the authorizer for half of it. */
const revocationMs = 60_000;

let admin: Client;
let namespaceId: string;
const made: string[] = [];

async function key(body: Record<string, unknown>): Promise<{ client: Client; id: string; whole: Json }> {
  const whole = await makeKey({ name: 'keys suite', ...body });
  return { client: clientOf(whole.key), id: whole.key_id, whole };
}

async function namespace(client: Client, name: string): Promise<Json> {
  const created = await client.call('POST', '/v1/namespaces', {
    namespace_name: `${name}-${Date.now().toString(36)}`,
  });
  made.push(created.namespace_id);
  return created;
}

/** Waits until a key is refused. @throws Error if it still works when the promise has run out */
const refusal = (client: Client) =>
  until(
    'the refusal of the key',
    async () => ((await client.ask('GET', '/v1/namespaces')).status === 401 ? true : undefined),
    {
      deadlineMs: revocationMs,
    },
  );

beforeAll(async () => {
  admin = await adminClient();
  namespaceId = (await namespace(admin, 'keys')).namespace_id;
});
afterAll(async () => {
  for (const id of made) await admin.ask('DELETE', `/v1/namespaces/${id}`);
});

describe('who gets in', () => {
  it('answers health and the API document without a key', async () => {
    expect((await ask('GET', '/v1/health')).status).toBe(200);
    const document = await ask('GET', '/v1/openapi.json');
    expect(document.status).toBe(200);
    expect(document.body.openapi).toMatch(/^3\.1\./);
  });

  it.each([
    ['no key', {}],
    ['an empty header', { Authorization: '' }],
    ['something that is no key', { Authorization: 'Bearer hello' }],
    ['a key with a wrong checksum', { Authorization: `Bearer grn_test_abcdefgh_${'a'.repeat(36)}` }],
    ['another scheme', { Authorization: 'Basic abc' }],
  ])('answers 401 in our envelope to a request with %s', async (_, headers) => {
    const reply = await ask('GET', '/v1/namespaces', { headers });
    expect(reply.status).toBe(401);
    expect(faultOf(reply)).toMatchObject({ type: 'UnauthorizedError', code: 'key_invalid' });
  });

  it('lets the bootstrap secret make keys and nothing else', async () => {
    const bootstrap = clientOf(stack.bootstrap_secret);
    expect((await bootstrap.ask('GET', keys)).status).toBe(200);
    expect(await bootstrap.refused(403, 'GET', '/v1/namespaces')).toMatchObject({ type: 'ForbiddenError' });
    expect(await bootstrap.refused(403, 'POST', '/v1/namespaces', { namespace_name: 'no' })).toMatchObject({
      type: 'ForbiddenError',
    });
  });

  it.each([
    ['read', { GET: 200, POST: 403, DELETE: 403, keys: 403 }],
    ['write', { GET: 403, POST: 200, DELETE: 403, keys: 403 }],
    ['delete', { GET: 403, POST: 403, DELETE: 404, keys: 403 }],
    ['admin', { GET: 200, POST: 200, DELETE: 404, keys: 200 }],
  ] as const)('gives a key with the permission "%s" that and no more', async (permission, statuses) => {
    const { client } = await key({ permissions: [permission] });
    const body = { name: `b-${permission}`, bucket_schema: { properties: { text: { type: 'text' } } } };
    const at = `/v1/namespaces/${namespaceId}/buckets`;
    const got = {
      GET: (await client.ask('GET', at)).status,
      POST: (await client.ask('POST', at, body)).status,
      DELETE: (await client.ask('DELETE', `${at}/bkt_${'0'.repeat(20)}`)).status,
      keys: (await client.ask('GET', keys)).status,
    };
    expect(got).toEqual(statuses);
  });

  it('keeps a key that is narrowed to a namespace out of every other one, as if they did not exist', async () => {
    const other = await namespace(admin, 'other');
    const { client } = await key({
      permissions: ['read', 'write'],
      scopes: { namespace_ids: [namespaceId] },
    });
    expect((await client.ask('GET', `/v1/namespaces/${namespaceId}`)).status).toBe(200);
    const foreign = await client.refused(404, 'GET', `/v1/namespaces/${other.namespace_id}`);
    const absent = await client.refused(404, 'GET', `/v1/namespaces/ns_${'0'.repeat(20)}`);
    expect(foreign.code).toBe(absent.code);
    expect((await client.call('GET', '/v1/namespaces')).results.map((one: Json) => one.namespace_id)).toEqual(
      [namespaceId],
    );
  });
});

describe('a key', () => {
  it('is shown whole once, and is not in the table in any form that could be used', async () => {
    const { whole, id } = await key({ permissions: ['read'] });
    expect(whole.key).toMatch(/^grn_(live|test)_[A-Za-z0-9]{8}_[A-Za-z0-9]{36}$/);
    const later = await admin.call('GET', `${keys}/${id}`);
    expect(later).toMatchObject({ key_id: id, key_prefix: whole.key.slice(0, 13), status: 'active' });
    expect(JSON.stringify(later)).not.toContain(whole.key);
    expect(JSON.stringify(await admin.call('GET', keys))).not.toContain(whole.key);
    expect(JSON.stringify(await storedKeyRows(id))).not.toContain(whole.key.split('_')[3]!);
  });

  // These wait for the gateway to forget a key, so they do it at the same time.
  it.concurrent('is refused within 60 seconds after it was revoked', async () => {
    const { client, id } = await key({ permissions: ['read'] });
    expect((await client.ask('GET', '/v1/namespaces')).status).toBe(200);
    await admin.call('DELETE', `${keys}/${id}`);
    await refusal(client);
    expect(await admin.call('GET', `${keys}/${id}`)).toMatchObject({ status: 'revoked' });
  });

  it.concurrent('is refused when its time is over', async () => {
    const { client } = await key({
      permissions: ['read'],
      expires_at: new Date(Date.now() + 3_000).toISOString(),
    });
    await refusal(client);
  });

  it.concurrent('is replaced by rotation: the new one works at once, the old one to the end of the overlap', async () => {
    const { client, id } = await key({ permissions: ['read'] });
    const kept = await admin.call('POST', `${keys}/${id}/rotate`, { overlap_seconds: 3600 });
    expect((await clientOf(kept.key).ask('GET', '/v1/namespaces')).status).toBe(200);
    expect((await client.ask('GET', '/v1/namespaces')).status).toBe(200);
    const next = await admin.call('POST', `${keys}/${kept.key_id}/rotate`);
    await refusal(clientOf(kept.key));
    expect((await clientOf(next.key).ask('GET', '/v1/namespaces')).status).toBe(200);
  });

  it('is refused at create with every fault of its body', async () => {
    const fault = await admin.refused(422, 'POST', keys, {
      permissions: ['fly'],
      expires_at: 'tomorrow',
      colour: 'red',
    });
    expect(fault.fields.join('\n')).toMatch(/permissions[\s\S]*expires_at|expires_at[\s\S]*permissions/);
    expect(fault.fields.join('\n')).toContain('colour');
  });
});

/** The rows of a key as they are stored. */
async function storedKeyRows(id: string): Promise<Json[]> {
  const table = new DynamoDBClient(stack.endpoint === undefined ? {} : { endpoint: stack.endpoint });
  const { Items = [] } = await table.send(new ScanCommand({ TableName: output('TableName') }));
  const rows = Items.filter((row) => JSON.stringify(row).includes(id));
  expect(rows.length).toBeGreaterThan(0);
  return rows;
}

describe('a namespace', () => {
  it('is made, read by id and by name, listed, changed and deleted', async () => {
    const created = await namespace(admin, 'life');
    const { namespace_id: id, namespace_name: name } = created;
    expect(created).toMatchObject({ namespace_id: expect.stringMatching(/^ns_[a-z0-9]{20}$/), name });
    expect(await admin.call('GET', `/v1/namespaces/${id}`)).toMatchObject({ namespace_id: id });
    expect(await admin.call('GET', `/v1/namespaces/${name}`)).toMatchObject({ namespace_id: id });
    expect(
      (await admin.call('GET', '/v1/namespaces?limit=100')).results.map((one: Json) => one.namespace_id),
    ).toContain(id);
    expect((await admin.call('POST', '/v1/namespaces/list', { search: name })).results).toEqual([
      expect.objectContaining({ namespace_id: id }),
    ]);
    expect(await admin.call('PATCH', `/v1/namespaces/${name}`, { description: 'changed' })).toMatchObject({
      description: 'changed',
    });
    await admin.call('DELETE', `/v1/namespaces/${id}`);
    expect((await admin.ask('GET', `/v1/namespaces/${id}`)).status).toBe(404);
    expect((await admin.ask('GET', `/v1/namespaces/${id}/buckets`)).status).toBe(404);
    expect((await admin.ask('DELETE', `/v1/namespaces/${id}`)).status).toBe(404);
  });

  it('cannot take the name of another, nor one that looks like an id', async () => {
    const { namespace_name } = await namespace(admin, 'taken');
    expect(await admin.refused(409, 'POST', '/v1/namespaces', { namespace_name })).toMatchObject({
      type: 'AlreadyExistsError',
    });
    expect(await admin.refused(422, 'POST', '/v1/namespaces', { namespace_name: 'ns_mine' })).toMatchObject({
      type: 'ValidationError',
    });
  });

  it('can be deleted with everything in it, and its name is free again', async () => {
    const { namespace_id, namespace_name } = await namespace(admin, 'full');
    const at = `/v1/namespaces/${namespace_id}`;
    const { bucket_id } = await admin.call('POST', `${at}/buckets`, {
      name: 'b',
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    await admin.call('POST', `${at}/buckets/${bucket_id}/objects`, {
      blobs: [{ property: 'text', type: 'text', data: 'gone soon' }],
    });
    await admin.call('DELETE', at);
    expect((await admin.ask('GET', `${at}/buckets/${bucket_id}`)).status).toBe(404);
    const again = await admin.call('POST', '/v1/namespaces', { namespace_name });
    made.push(again.namespace_id);
    expect(again.namespace_id).not.toBe(namespace_id);
    expect((await admin.call('GET', `/v1/namespaces/${namespace_name}/buckets`)).results).toEqual([]);
  });
});
