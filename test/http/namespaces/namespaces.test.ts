// Namespaces: the whole life of one, from its first name to its 404.
import { describe, expect, it } from 'vitest';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

async function make(app: App, name: string): Promise<string> {
  const reply = await app.call('POST', '/v1/namespaces', { namespace_name: name });
  expect([reply.status, reply.body.error]).toEqual([200, undefined]);
  return reply.body.namespace_id;
}

describe('200', () => {
  it('create takes both spellings of the name and answers both', async () => {
    const app = await makeApp();
    for (const [body, name] of [
      [{ namespace_name: 'a' }, 'a'],
      [{ name: 'b' }, 'b'],
      [{ name: 'c', namespace_name: 'c' }, 'c'],
    ] as const) {
      const reply = await app.call('POST', '/v1/namespaces', body);
      expect(reply.status).toBe(200);
      expect(reply.body).toMatchObject({
        namespace_name: name,
        name,
        namespace_type: 'standard',
        description: null,
        metadata: {},
        version: 1,
      });
      expect(reply.body.namespace_id).toMatch(/^ns_[a-z0-9]{20}$/);
      expect(reply.headers.ETag).toBe('"1"');
    }
  });

  it('create says that extractors and indexes of clients are not needed', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/namespaces', {
      name: 'x',
      feature_extractors: [{ feature_extractor_name: 'text' }],
      payload_indexes: [],
    });
    expect(reply.status).toBe(200);
    expect(reply.body.warnings).toEqual([expect.stringContaining('feature_extractors')]);
  });

  it('get finds it by id and by name', async () => {
    const app = await makeApp();
    const id = await make(app, 'news.room-1');
    const byId = await app.call('GET', `/v1/namespaces/${id}`);
    const byName = await app.call('GET', '/v1/namespaces/news.room-1');
    expect(byName.body).toEqual(byId.body);
    expect(byId.headers.ETag).toBe('"1"');
  });

  it('change keeps what is left out and frees the old name', async () => {
    const app = await makeApp();
    const id = await make(app, 'before');
    const changed = await app.call('PATCH', `/v1/namespaces/${id}`, {
      description: 'about',
      metadata: { team: 'a' },
    });
    expect(changed.body).toMatchObject({
      name: 'before',
      description: 'about',
      metadata: { team: 'a' },
      version: 2,
    });
    const renamed = await app.call('PUT', '/v1/namespaces/before', { name: 'after' });
    expect(renamed.body).toMatchObject({ namespace_id: id, name: 'after', description: 'about', version: 3 });
    expectError(await app.call('GET', '/v1/namespaces/before'), 'namespace_not_found');
    expect(await make(app, 'before')).not.toBe(id);
    expect(
      (await app.call('PATCH', `/v1/namespaces/${id}`, { description: null })).body.description,
    ).toBeNull();
  });

  it('delete makes it a 404 at once, frees its name and asks for its content to be removed', async () => {
    const app = await makeApp();
    const id = await make(app, 'gone');
    const reply = await app.call('DELETE', '/v1/namespaces/gone');
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ success: true, namespace_id: id });
    for (const path of [`/v1/namespaces/${id}`, '/v1/namespaces/gone', `/v1/namespaces/${id}/buckets`]) {
      expectError(await app.call('GET', path), 'namespace_not_found');
    }
    const jobs = app.ports.table
      .dump()
      .filter((row) => row.pk.startsWith('OUTBOX#'))
      .map((row) => JSON.parse(String(row.message)));
    expect(jobs).toContainEqual({
      to: 'jobs',
      job: {
        kind: 'namespace_delete',
        org_id: app.principal.orgId,
        namespace_id: id,
        request_id: reply.headers['X-Request-Id'],
      },
    });
    expect(await make(app, 'gone')).not.toBe(id);
  });

  it('lists newest first, page by page, each namespace once', async () => {
    const app = await makeApp();
    const ids: string[] = [app.namespace];
    for (let i = 0; i < 6; i++) {
      app.ports.clock.advance(5);
      ids.unshift(await make(app, `n${i}`));
    }
    const seen: string[] = [];
    let cursor = '';
    do {
      const page = await app.call(
        'GET',
        `/v1/namespaces?limit=3${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`,
      );
      expect(page.body.pagination).toMatchObject({ total: 7, page_size: 3, total_pages: 3 });
      seen.push(...page.body.results.map((n: { namespace_id: string }) => n.namespace_id));
      cursor = page.body.pagination.next_cursor;
    } while (cursor);
    expect(seen).toEqual(ids);
    const second = await app.call('GET', '/v1/namespaces?page=2&page_size=3');
    expect(second.body.results.map((n: { namespace_id: string }) => n.namespace_id)).toEqual(ids.slice(3, 6));
    expect(second.body.pagination).toMatchObject({ page: 2, next_page: '3', previous_page: '1' });
  });

  it('lists by search, filter and order', async () => {
    const app = await makeApp();
    await app.call('POST', '/v1/namespaces', { name: 'alpha', metadata: { tier: 2 } });
    await app.call('POST', '/v1/namespaces', { name: 'beta', metadata: { tier: 1 } });
    const names = async (body: unknown) =>
      (await app.call('POST', '/v1/namespaces/list', body)).body.results.map((n: { name: string }) => n.name);
    expect(await names({ search: 'ALP' })).toEqual(['alpha']);
    expect(await names({ search: 'b*a' })).toEqual(['beta']);
    expect(
      await names({
        filters: { field: 'metadata.tier', operator: 'gte', value: 1 },
        sort: { field: 'metadata.tier' },
      }),
    ).toEqual(['beta', 'alpha']);
    expect(await names({ sort: { field: 'name', direction: 'desc' } })).toEqual(['main', 'beta', 'alpha']);
    expect(await names(undefined)).toHaveLength(3);
  });
});

describe('400', () => {
  it('a cursor that was changed, made up, or given out for another list or another caller is refused', async () => {
    const app = await makeApp();
    await make(app, 'second');
    const { next_cursor: cursor } = (await app.call('GET', '/v1/namespaces?limit=1')).body.pagination;
    const stranger = await makeApp({ ports: app.ports });
    const [payload, mac] = cursor.split('.');
    const use = (who: Pick<App, 'call'>, value: string, more = '') =>
      who.call('GET', `/v1/namespaces?limit=1&cursor=${encodeURIComponent(value)}${more}`);
    expect((await use(app, cursor)).status).toBe(200);
    // The same cursor with another position, under the old seal.
    const inside = Buffer.from(payload!, 'base64url').toString();
    const moved = `${Buffer.from(inside.replace(/1]$/, '0]')).toString('base64url')}.${mac}`;
    expect(moved).not.toBe(cursor);
    for (const bad of [
      'x',
      `${payload}.`,
      `${payload}.${mac}A`,
      `${payload}A.${mac}`,
      moved,
      `${Buffer.from('[9999999999,"x",1]').toString('base64url')}.${mac}`,
    ]) {
      expectError(await use(app, bad), 'request_bad_cursor');
    }
    expectError(await use(app, cursor, '&search=a'), 'request_bad_cursor');
    expectError(await use(stranger, cursor), 'request_bad_cursor');
    expectError(
      await app.call('GET', `/v1/organizations/api-keys?cursor=${encodeURIComponent(cursor)}`),
      'request_bad_cursor',
    );
    app.ports.clock.advance(24 * 3_600_000 + 1_000);
    expectError(await use(app, cursor), 'request_bad_cursor');
  });

  it('an If-Match that is no version is refused', async () => {
    const app = await makeApp();
    for (const header of ['abc', '"x"', '1.5', '-1', '"1', '1"2']) {
      const reply = await app.call(
        'PATCH',
        '/v1/namespaces/{ns}',
        { description: 'x' },
        { 'If-Match': header },
      );
      if (header === '"1') expect([200, 400]).toContain(reply.status);
      else expectError(reply, 'request_bad_header');
    }
  });
});

describe('401 and 403', () => {
  it('need a key, and the permission of the operation', async () => {
    const app = await makeApp();
    expectError(await app.as(undefined).call('GET', '/v1/namespaces'), 'key_invalid');
    const reader = app.as({ ...app.principal, permissions: ['read'] });
    expect((await reader.call('POST', '/v1/namespaces/list', {})).status).toBe(200);
    expectError(await reader.call('POST', '/v1/namespaces', { name: 'x' }), 'key_not_permitted');
    expectError(await reader.call('PATCH', '/v1/namespaces/{ns}', {}), 'key_not_permitted');
    expectError(await reader.call('DELETE', '/v1/namespaces/{ns}'), 'key_not_permitted');
  });

  it('an organisation has 20 namespaces at most; deleting one makes room', async () => {
    const app = await makeApp();
    for (let i = 1; i < 20; i++) await make(app, `n${i}`);
    expectError(await app.call('POST', '/v1/namespaces', { name: 'one-more' }), 'quota_exceeded');
    await app.call('DELETE', '/v1/namespaces/n1');
    expect((await app.call('POST', '/v1/namespaces', { name: 'one-more' })).status).toBe(200);
  });
});

describe('404', () => {
  it("another organisation's id and name are refused like random ones, by every operation", async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    await make(stranger, 'theirs');
    const random = 'ns_0123456789abcdefghij';
    for (const [method, body] of [
      ['GET', undefined],
      ['PUT', { name: 'x' }],
      ['PATCH', { description: 'x' }],
      ['DELETE', undefined],
    ] as const) {
      expectSameRefusal(
        await app.call(method, `/v1/namespaces/${stranger.namespace}`, body),
        stranger.namespace,
        await app.call(method, `/v1/namespaces/${random}`, body),
        random,
      );
      expectSameRefusal(
        await app.call(method, '/v1/namespaces/theirs', body),
        'theirs',
        await app.call(method, '/v1/namespaces/nobodys', body),
        'nobodys',
      );
    }
    expect((await stranger.call('GET', '/v1/namespaces')).body.total).toBe(2);
  });

  it('a second delete is 404', async () => {
    const app = await makeApp();
    await make(app, 'gone');
    expect((await app.call('DELETE', '/v1/namespaces/gone')).status).toBe(200);
    expectError(await app.call('DELETE', '/v1/namespaces/gone'), 'namespace_not_found');
  });

  it('no name reaches into the keys of other rows', async () => {
    const app = await makeApp();
    for (const name of ['NS%23x', '%23', 'a%23b', '%25', 'main%00', '..', 'KEY%23']) {
      expectError(
        await app.call('GET', `/v1/namespaces/${name}`),
        name === '..' ? 'route_not_found' : 'namespace_not_found',
      );
    }
  });
});

describe('409 and 412', () => {
  it('a name that is taken is refused, at create and at rename, also for two at once', async () => {
    const app = await makeApp();
    await make(app, 'taken');
    expectError(await app.call('POST', '/v1/namespaces', { name: 'taken' }), 'namespace_name_taken');
    expectError(await app.call('PATCH', '/v1/namespaces/{ns}', { name: 'taken' }), 'namespace_name_taken');
    const replies = await Promise.all(
      Array.from({ length: 8 }, () => app.call('POST', '/v1/namespaces', { name: 'raced' })),
    );
    expect(replies.map((reply) => reply.status).sort()).toEqual([200, 409, 409, 409, 409, 409, 409, 409]);
  });

  it('another organisation may use the same name', async () => {
    const app = await makeApp();
    await make(app, 'shared');
    const stranger = await makeApp({ ports: app.ports });
    expect((await stranger.call('POST', '/v1/namespaces', { name: 'shared' })).status).toBe(200);
  });

  it('If-Match with an old version is 412 and changes nothing; the current one and * pass', async () => {
    const app = await makeApp();
    const change = (description: string, header: string) =>
      app.call('PATCH', '/v1/namespaces/{ns}', { description }, { 'If-Match': header });
    expect((await change('one', '"1"')).status).toBe(200);
    const stale = await change('two', '"1"');
    expectError(stale, 'request_stale');
    expect(stale.body.error.details.current_version).toBe(2);
    expect((await app.call('GET', '/v1/namespaces/{ns}')).body.description).toBe('one');
    expect((await change('two', 'W/"2"')).status).toBe(200);
    expect((await change('three', '*')).status).toBe(200);
  });
});

describe('422', () => {
  it.each([
    [{}, ['body.namespace_name: missing']],
    [{ name: '' }, ['body.name: invalid_format']],
    [{ name: 'has space' }, ['body.name: invalid_format']],
    [{ name: 'x'.repeat(101) }, ['body.name: invalid_format']],
    [{ name: 'ns_abc' }, ['body.name: wrong_value']],
    [{ name: 7 }, ['body.name: wrong_type']],
    [{ name: 'a', namespace_name: 'b' }, ['body.name: wrong_value']],
    [{ name: 'a', description: 'x'.repeat(1001) }, ['body.description: too_big']],
    [{ name: 'a', metadata: [] }, ['body.metadata: wrong_type']],
    [{ name: 'a', namespace_id: 'ns_00000000000000000000' }, ['body.namespace_id: extra_forbidden']],
    [{ name: 'a', namespace_type: 'premium' }, ['body.namespace_type: wrong_value']],
  ])('%j', async (body, expected) => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/namespaces', body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(expected);
  });

  it.each([
    'limit=0',
    'limit=1001',
    'limit=x',
    'offset=-1',
    'offset=10001',
    'page=0',
    'include_total=perhaps',
    'sort=name',
  ])('?%s', async (query) => {
    const app = await makeApp();
    const reply = await app.call('GET', `/v1/namespaces?${query}`);
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors[0].location).toEqual(['query', query.split('=')[0]]);
  });

  it('a filter that is wrong is named with its place', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/namespaces/list', {
      filters: { AND: [{ field: 'name', operator: 'like', value: 'x' }] },
    });
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors[0].location.slice(0, 2)).toEqual(['body', 'filters']);
  });
});

describe('403', () => {
  it('a key that is narrowed to some namespaces makes no others, which it could not see', async () => {
    const app = await makeApp();
    const narrow = app.as({
      ...app.principal,
      permissions: ['read', 'write'],
      namespaceIds: [app.namespace],
    });
    expectError(
      await narrow.call('POST', '/v1/namespaces', { namespace_name: 'other' }),
      'key_not_permitted',
    );
    expect((await app.call('GET', '/v1/namespaces')).body.total_count).toBe(1);
  });
});
