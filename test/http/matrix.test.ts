// Every route of the table against every wrong caller: no key, no permission, another tenant's id at each place of its
// path. Made from the table, so a new route is in it by being a route.
import { beforeAll, describe, expect, it } from 'vitest';
import type { Permission, Route } from '../../functions/core/http/route.ts';
import { clientForm, isNamespaced, parameterNames } from '../../functions/core/http/route.ts';
import { idPrefixes } from '../../functions/core/ids.ts';
import { allRoutes } from '../../functions/core/resources/contracts.ts';
import { allHandlers } from '../../functions/core/resources/handlers.ts';
import type { App } from './app.ts';
import { makeApp } from './app.ts';
import type { Everything } from './everything.ts';
import { fakeValidator, makeEverything } from './everything.ts';
import { expectError, expectSameRefusal, withoutIds } from './expect.ts';

/** A body that the route takes, so that a refusal is about the caller: its example, or one from here, or none. */
const bodies: Readonly<Record<string, unknown>> = {
  createWebhook: { webhook_name: 'w', url: 'https://example.com/', events: ['batch.failed'] },
  organizationCreateWebhook: { webhook_name: 'w', url: 'https://example.com/', events: ['batch.failed'] },
  createObjects: { objects: [{}] },
  patchDocument: { metadata: { a: 1 } },
  createBatch: { object_ids: ['obj_0123456789abcdefghij'] },
  addBatchObjects: { object_ids: ['obj_0123456789abcdefghij'] },
  executeRetrieverBatch: { queries: [{ inputs: { query: 'x' } }] },
  executeTaxonomy: { documents: [{ text: 'x' }] },
};

function bodyOf(route: Route): unknown {
  if (!route.body) return undefined;
  const candidates = [bodies[route.operation], route.example?.body, {}];
  const body = candidates.find(
    (candidate) => candidate !== undefined && route.body!.safeParse(candidate).success,
  );
  if (body === undefined)
    throw new Error(
      `no body fits ${route.operation}: give the route an example, or add one to test/http/matrix.test.ts`,
    );
  return body;
}

/** Query parameters without which a route does not begin. */
const queries: Readonly<Record<string, string>> = {
  replayWebhook: '?since=2025-01-01T00:00:00Z',
  organizationReplayWebhook: '?since=2025-01-01T00:00:00Z',
};

/** The thing that a route's parameter names: webhooks and uploads of two kinds share their parameter's name. */
function thing(route: Route, parameter: string): keyof Everything {
  if (parameter === 'upload' && route.path.includes('/plugins/')) return 'pluginUpload';
  if (route.path.startsWith('/v1/organizations/webhooks'))
    return parameter === 'webhook' ? 'organizationWebhook' : 'organizationDelivery';
  return parameter as keyof Everything;
}

/** An id of the right form that names nothing. */
function randomLike(id: string): string {
  if (id.startsWith('wh_')) return 'wh_0000000000000000';
  const prefix = Object.values(idPrefixes).find((one) => id.startsWith(one));
  return prefix === undefined ? 'none_embed_1_0_0' : `${prefix}00000000000000000000`;
}

const fill = (path: string, ids: Readonly<Record<string, string>>) =>
  path.replaceAll(/\{([a-z_]+)\}/g, (_, name: string) => encodeURIComponent(ids[name]!));
const name = (route: Route) => `${route.method} ${route.path}`;

let app: App;
let own: Everything;
/** The same things in another namespace of the organisation, and in another organisation. */
let beside: Everything;
let theirs: Everything;
let besideNamespace: string;

beforeAll(async () => {
  app = await makeApp({ validator: fakeValidator });
  own = await makeEverything(app);
  const other = await makeApp({ ports: app.ports });
  theirs = await makeEverything(other);
  // A second namespace of the first organisation, reached by the same key.
  besideNamespace = (await app.call('POST', '/v1/namespaces', { name: 'beside' })).body.namespace_id;
  const neighbour: App = {
    ...app,
    namespace: besideNamespace,
    ctx: { ...app.ctx, ns: app.ctx.org.in(besideNamespace) },
    call: (method, path, body, headers) =>
      app.call(method, path.replaceAll('{ns}', besideNamespace), body, headers),
  };
  beside = await makeEverything(neighbour);
});

const idsOf = (route: Route, things: Everything) =>
  Object.fromEntries(
    parameterNames(route.path).map((parameter) => [parameter, things[thing(route, parameter)]]),
  );

function send(route: Route, who: Pick<App, 'call'>, ids: Readonly<Record<string, string>>) {
  return who.call(route.method, fill(route.path, ids) + (queries[route.operation] ?? ''), bodyOf(route));
}

describe('the table of routes', () => {
  it('has a handler for each route and a route for each handler', () => {
    expect(Object.keys(allHandlers).sort()).toEqual(allRoutes.map((route) => route.operation).sort());
  });

  it('has each method of a path once, in both forms of the path', () => {
    const seen = new Map<string, string>();
    for (const route of allRoutes) {
      for (const path of [route.path, clientForm(route.path)]) {
        if (path === undefined) continue;
        const key = `${route.method} ${path.replaceAll(/\{[a-z_]+\}/g, '{}')}`;
        const known = seen.get(key);
        expect(
          known === undefined || known === route.operation,
          `${key}: ${known} and ${route.operation}`,
        ).toBe(true);
        seen.set(key, route.operation);
      }
    }
  });

  it('asks for "read" where nothing changes, "delete" where something goes, and more only for keys and the organisation', () => {
    for (const route of allRoutes) {
      if (route.permission === 'none') expect(route.path).toMatch(/^\/v1\/(health|openapi\.json)$/);
      if (route.path.startsWith('/v1/organizations/'))
        expect(['admin', 'bootstrap']).toContain(route.permission);
      else if (route.method === 'GET') expect(['read', 'none'], name(route)).toContain(route.permission);
      if (route.method === 'DELETE' && !route.path.startsWith('/v1/organizations/'))
        expect(route.permission, name(route)).toBe('delete');
      if (['PUT', 'PATCH'].includes(route.method) && !route.path.startsWith('/v1/organizations/'))
        expect(route.permission, name(route)).toBe('write');
    }
  });

  it('covers several hundred cases', () => {
    expect(allRoutes.length).toBeGreaterThan(100);
    expect(
      allRoutes.reduce((sum, route) => sum + 2 + 2 * parameterNames(route.path).length, 0),
    ).toBeGreaterThan(300);
  });
});

const guarded = allRoutes.filter((route) => route.permission !== 'none');

describe('without a key', () => {
  it.each(guarded.map((route) => [name(route), route] as const))(
    '%s is 401, whatever it names',
    async (_, route) => {
      const nobody = app.as(undefined);
      const mine = await send(route, nobody, idsOf(route, own));
      expectError(mine, 'key_invalid');
      const random = await send(
        route,
        nobody,
        Object.fromEntries(parameterNames(route.path).map((parameter) => [parameter, 'nothing'])),
      );
      expect(withoutIds(random)).toEqual(withoutIds(mine));
    },
  );
});

describe('without the permission', () => {
  const others: Record<Exclude<Permission, 'none'>, ('read' | 'write' | 'delete')[]> = {
    read: ['write', 'delete'],
    write: ['read', 'delete'],
    delete: ['read', 'write'],
    admin: ['read', 'write', 'delete'],
    bootstrap: ['read', 'write', 'delete'],
  };

  it.each(guarded.map((route) => [name(route), route] as const))(
    '%s is 403, whatever it names',
    async (_, route) => {
      const weak = app.as({
        ...app.principal,
        permissions: others[route.permission as Exclude<Permission, 'none'>],
      });
      const mine = await send(route, weak, idsOf(route, own));
      expectError(mine, 'key_not_permitted');
      const random = await send(
        route,
        weak,
        Object.fromEntries(parameterNames(route.path).map((parameter) => [parameter, 'nothing'])),
      );
      expect(withoutIds(random)).toEqual(withoutIds(mine));
    },
  );
});

const places = guarded.flatMap((route) =>
  parameterNames(route.path).map((parameter, at) => [name(route), parameter, route, at] as const),
);

describe("another tenant's id", () => {
  /** Own ids up to the place, the id under test there, and nothing behind it. */
  function idsWith(route: Route, at: number, id: string): Record<string, string> {
    const names = parameterNames(route.path);
    return Object.fromEntries(
      names.map((parameter, i) => [
        parameter,
        i < at ? own[thing(route, parameter)] : i === at ? id : randomLike(own[thing(route, parameter)]),
      ]),
    );
  }

  it.each(places)(
    '%s: {%s} of another organisation is 404, like a random one',
    async (_, parameter, route, at) => {
      const foreign = theirs[thing(route, parameter)];
      if (foreign === own[thing(route, parameter)]) return expectOwnCopy(route, parameter);
      const random = randomLike(foreign);
      expectSameRefusal(
        await send(route, app, idsWith(route, at, foreign)),
        foreign,
        await send(route, app, idsWith(route, at, random)),
        random,
      );
    },
  );

  it.each(places.filter(([, parameter, route]) => isNamespaced(route.path) && parameter !== 'namespace'))(
    '%s: {%s} of another namespace is 404, like a random one',
    async (_, parameter, route, at) => {
      const foreign = beside[thing(route, parameter)];
      if (foreign === own[thing(route, parameter)]) return expectOwnCopy(route, parameter);
      const random = randomLike(foreign);
      expectSameRefusal(
        await send(route, app, idsWith(route, at, foreign)),
        foreign,
        await send(route, app, idsWith(route, at, random)),
        random,
      );
    },
  );

  /** Ids that a name makes (plugins) are the same everywhere: each namespace has its own thing under it. */
  function expectOwnCopy(_route: Route, parameter: string): void {
    expect(parameter).toBe('plugin');
  }

  it.each(guarded.filter((route) => isNamespaced(route.path)).map((route) => [name(route), route] as const))(
    '%s: a key for another namespace is 404, like a random one',
    async (_, route) => {
      const narrow = app.as({
        ...app.principal,
        permissions: ['read', 'write', 'delete'],
        namespaceIds: [besideNamespace],
      });
      const random = 'ns_00000000000000000000';
      expectSameRefusal(
        await send(route, narrow, idsOf(route, own)),
        own.namespace,
        await send(route, narrow, { ...idsOf(route, own), namespace: random }),
        random,
      );
    },
  );
});

describe('what another tenant owns', () => {
  it('is all still there, unchanged, after every request above', async () => {
    const other = app.as({
      orgId: app.ports.table
        .dump()
        .find((row) => row.sk === `NS#${theirs.namespace}`)!
        .pk.replace('ORG#', ''),
      keyId: 'theirs',
      permissions: ['admin'],
    });
    const paths = [
      ...[
        'buckets/{bucket}',
        'buckets/{bucket}/objects/{object}',
        'buckets/{bucket}/uploads/{upload}',
        'buckets/{bucket}/batches/{batch}',
        'collections/{collection}',
        'collections/{collection}/documents/{document}',
        'plugins/{plugin}',
        'retrievers/{retriever}',
        'taxonomies/{taxonomy}',
        'clusters/{cluster}',
        'alerts/{alert}',
        'webhooks/{webhook}',
        'webhooks/{webhook}/deliveries/{delivery}',
      ].map((tail) => `/v1/namespaces/{namespace}/${tail}`),
      '/v1/tasks/{task}',
      '/v1/organizations/api-keys/{key}',
    ];
    for (const path of paths) {
      const reply = await other.call('GET', fill(path, theirs));
      expect(reply.status, path).toBe(200);
    }
  });
});
