// What holds for every request, whatever it asks for: ids, errors in both forms, paths, methods, namespaces.
import { describe, expect, it } from 'vitest';
import { makeDispatcher } from '../../../functions/core/http/dispatch.ts';
import { makeApp, makeTestPorts } from '../app.ts';
import { expectError } from '../expect.ts';

describe('the request id', () => {
  it('is taken from the request when it is well formed', async () => {
    const app = await makeApp();
    const reply = await app.call('GET', '/v1/namespaces', undefined, { 'X-Request-Id': 'job_17-a' });
    expect(reply.headers['X-Request-Id']).toBe('job_17-a');
  });

  it.each(['', 'a b', 'x'.repeat(65), 'line\nfeed', 'ü'])('is made anew for %j', async (given) => {
    const app = await makeApp();
    const reply = await app.call('GET', '/v1/namespaces', undefined, { 'x-request-id': given });
    expect(reply.headers['X-Request-Id']).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  });

  it('reaches the audit row of a change', async () => {
    const app = await makeApp();
    await app.call(
      'POST',
      '/v1/namespaces/{ns}/buckets',
      { name: 'b', bucket_schema: { properties: { t: { type: 'text' } } } },
      { 'X-Request-Id': 'audited-1' },
    );
    const rows = app.ports.table
      .dump()
      .filter((row) => row.pk === `AUD#${app.principal.orgId}` && row.action === 'bucket.create');
    expect(rows.map((row) => row.request_id)).toEqual(['audited-1']);
  });
});

describe('an error', () => {
  it('comes as RFC 9457 to those who accept it, with the same facts', async () => {
    const app = await makeApp();
    const plain = await app.call('GET', '/v1/namespaces/nowhere', undefined, { 'X-Request-Id': 'r1' });
    const problem = await app.call('GET', '/v1/namespaces/nowhere', undefined, {
      'X-Request-Id': 'r1',
      Accept: 'application/problem+json',
    });
    expectError(plain, 'namespace_not_found');
    expect(plain.headers['Content-Type']).toBe('application/json');
    expect(problem.status).toBe(404);
    expect(problem.headers['Content-Type']).toBe('application/problem+json');
    expect(problem.body).toEqual({
      type: 'urn:granary:error:namespace_not_found',
      title: 'There is no such namespace, or it is not yours.',
      status: 404,
      detail: plain.body.error.message,
      ...plain.body.error.details,
    });
  });

  it('of ours says nothing of what went wrong inside, and the log says it all', async () => {
    const ports = makeTestPorts();
    const app = await makeApp({ ports });
    ports.table.query = () =>
      Promise.reject(new Error('secret table granary-prod at arn:aws:dynamodb:eu-west-1:1:table/x'));
    const reply = await app.call('GET', '/v1/namespaces');
    expectError(reply, 'internal_error');
    expect(JSON.stringify(reply)).not.toContain('granary-prod');
    expect(JSON.stringify(ports.logged)).toContain('granary-prod');
  });

  it('of a reply that breaks its contract is an error in tests, not an answer', async () => {
    const ports = makeTestPorts();
    const { allRoutes } = await import('../../../functions/core/resources/contracts.ts');
    const wrong = makeDispatcher(allRoutes, { getHealth: async () => ({ status: 'fine' }) }, ports, {
      checkReplies: true,
    });
    const reply = await wrong({
      httpMethod: 'GET',
      path: '/v1/health',
      resource: '',
      headers: {},
      queryStringParameters: null,
      pathParameters: null,
      body: null,
    } as never);
    expect(reply.statusCode).toBe(500);
  });
});

describe('paths and methods', () => {
  it('a trailing slash is ignored', async () => {
    const app = await makeApp();
    expect((await app.call('GET', '/v1/namespaces/{ns}/buckets/')).status).toBe(200);
    expect((await app.call('GET', '/v1/namespaces/{ns}/')).body.namespace_id).toBe(app.namespace);
  });

  it('an unknown path is 404, whatever stands in it', async () => {
    const app = await makeApp();
    for (const path of [
      '/v1/nothing',
      '/v2/namespaces',
      '/v1/namespaces/{ns}/nothing/x',
      '/v1/namespaces/{ns}/buckets/a/b/c/d',
    ]) {
      expectError(await app.call('GET', path), 'route_not_found');
    }
  });

  it('a segment that is no sound escape is a name like any other, which nothing has', async () => {
    const app = await makeApp();
    for (const segment of ['%E0%A4%A', '%', '%zz', '100%']) {
      expectError(await app.call('GET', `/v1/namespaces/${segment}/buckets`), 'namespace_not_found');
      expectError(await app.call('GET', `/v1/namespaces/{ns}/buckets/${segment}`), 'bucket_not_found');
    }
  });

  it('a method that a path does not have is 405 with those that it has', async () => {
    const app = await makeApp();
    const reply = await app.call('DELETE', '/v1/namespaces/{ns}/buckets');
    expectError(reply, 'route_method_not_allowed');
    expect(reply.headers.Allow!.split(', ').sort()).toEqual(['GET', 'POST']);
    expect((await app.call('PUT', '/v1/buckets', undefined, { 'X-Namespace': app.namespace })).status).toBe(
      405,
    );
    for (const method of ['OPTIONS', 'HEAD', 'TRACE'])
      expect((await app.call(method, '/v1/namespaces')).status).toBe(405);
  });

  it('a literal segment wins over a parameter: "list" is never taken for a bucket', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/namespaces/{ns}/buckets/list', {});
    expect(reply.body.results).toEqual([]);
  });

  it('encoded characters of a name arrive decoded', async () => {
    const app = await makeApp();
    const reply = await app.call('GET', '/v1/namespaces/{ns}/buckets/a%2Fb%20c');
    expectError(reply, 'bucket_not_found');
    expect(reply.body.error.message).toContain('a/b c');
  });

  it('a query parameter that the path does not have is named', async () => {
    const app = await makeApp();
    const reply = await app.call('GET', '/v1/namespaces/{ns}?verbose=1');
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors[0].location).toEqual(['query', 'verbose']);
  });
});

describe('the namespace of a request', () => {
  it('is found by id and by name, in the path and in X-Namespace', async () => {
    const app = await makeApp();
    for (const name of [app.namespace, 'main']) {
      expect((await app.call('GET', `/v1/namespaces/${name}/buckets`)).status).toBe(200);
      expect((await app.call('GET', '/v1/buckets', undefined, { 'X-Namespace': name })).status).toBe(200);
      expect((await app.call('GET', '/v1/buckets', undefined, { 'x-namespace': name })).status).toBe(200);
    }
  });

  it('may be named twice when both names mean the same one', async () => {
    const app = await makeApp();
    expect(
      (await app.call('GET', '/v1/namespaces/{ns}/buckets', undefined, { 'X-Namespace': 'main' })).status,
    ).toBe(200);
  });

  it('is 400 when path and header differ, also when the other does not exist', async () => {
    const app = await makeApp();
    const other = (await app.call('POST', '/v1/namespaces', { namespace_name: 'other' })).body.namespace_id;
    for (const header of [other, 'other', 'ns_00000000000000000000', 'nowhere']) {
      expectError(
        await app.call('GET', '/v1/namespaces/{ns}/buckets', undefined, { 'X-Namespace': header }),
        'request_namespace_differs',
      );
    }
  });

  it('is 400 when nobody names one', async () => {
    const app = await makeApp();
    expectError(await app.call('GET', '/v1/buckets'), 'request_namespace_missing');
    expectError(
      await app.call('GET', '/v1/buckets', undefined, { 'X-Namespace': '' }),
      'request_namespace_missing',
    );
  });

  it('is 404 when it does not exist, is deleted, or belongs to another organisation', async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    const gone = (await app.call('POST', '/v1/namespaces', { namespace_name: 'gone' })).body.namespace_id;
    await app.call('DELETE', `/v1/namespaces/${gone}`);
    for (const id of ['ns_00000000000000000000', 'nowhere', gone, 'gone', stranger.namespace]) {
      expectError(await app.call('GET', `/v1/namespaces/${id}/buckets`), 'namespace_not_found');
      expectError(
        await app.call('GET', '/v1/buckets', undefined, { 'X-Namespace': id }),
        'namespace_not_found',
      );
    }
  });

  it('is 404 for a key that is narrowed to others', async () => {
    const app = await makeApp();
    const other = (await app.call('POST', '/v1/namespaces', { namespace_name: 'other' })).body.namespace_id;
    const narrow = app.as({ ...app.principal, permissions: ['read', 'write'], namespaceIds: [other] });
    expect((await narrow.call('GET', `/v1/namespaces/${other}/buckets`)).status).toBe(200);
    expectError(await narrow.call('GET', '/v1/namespaces/{ns}/buckets'), 'namespace_not_found');
    expectError(await narrow.call('GET', '/v1/namespaces/main/buckets'), 'namespace_not_found');
    expectError(await narrow.call('GET', '/v1/namespaces/{ns}'), 'namespace_not_found');
    expect(
      (await narrow.call('GET', '/v1/namespaces')).body.results.map(
        (n: { namespace_id: string }) => n.namespace_id,
      ),
    ).toEqual([other]);
  });
});

describe('permissions', () => {
  it('without a key: one and the same 401 everywhere', async () => {
    const app = await makeApp();
    const nobody = app.as(undefined);
    const replies = [
      await nobody.call('GET', '/v1/namespaces'),
      await nobody.call('POST', '/v1/namespaces/{ns}/buckets', {}),
      await nobody.call('DELETE', '/v1/namespaces/nowhere'),
    ];
    for (const reply of replies) expectError(reply, 'key_invalid');
  });

  it('a missing permission is 403 and says which; it is checked before the body is read', async () => {
    const app = await makeApp();
    const reader = app.as({ ...app.principal, permissions: ['read'] });
    const reply = await reader.call('POST', '/v1/namespaces/{ns}/buckets', 'not json at all');
    expectError(reply, 'key_not_permitted');
    expect(reply.body.error.details.needed).toBe('write');
    expect((await reader.call('POST', '/v1/namespaces/{ns}/buckets/list', {})).status).toBe(200);
    expectError(
      await app
        .as({ ...app.principal, permissions: ['read', 'write'] })
        .call('DELETE', '/v1/namespaces/{ns}'),
      'key_not_permitted',
    );
  });

  it('the bootstrap key may manage keys and nothing else', async () => {
    const app = await makeApp();
    const first = app.as({ orgId: app.principal.orgId, keyId: 'bootstrap', permissions: [] });
    expect((await first.call('GET', '/v1/organizations/api-keys')).status).toBe(200);
    expectError(await first.call('GET', '/v1/namespaces'), 'key_bootstrap_only');
    expectError(await first.call('GET', '/v1/namespaces/{ns}/buckets'), 'key_bootstrap_only');
  });
});
