// Which route a path means: literal words before parameters, both forms of a path, and nothing by accident.
import { describe, expect, it } from 'vitest';
import { makeMatcher } from '../../../functions/core/http/match.ts';
import type { Route } from '../../../functions/core/http/route.ts';
import { clientForm } from '../../../functions/core/http/route.ts';
import { allRoutes } from '../../../functions/core/resources/contracts.ts';

const matcher = makeMatcher(allRoutes);
const filled = (path: string) => path.replaceAll(/\{([a-z_]+)\}/g, 'x-$1');
const found = (method: string, path: string) => {
  const match = matcher.find(method, path);
  return 'route' in match ? [match.route.operation, match.params] : match.allow;
};
const paramsOf = (path: string) =>
  Object.fromEntries([...path.matchAll(/\{([a-z_]+)\}/g)].map(([, name]) => [name, `x-${name}`]));

describe('every route', () => {
  it.each(allRoutes.map((route) => [route.method, route.path, route] as [string, string, Route]))(
    'is what %s %s means, in both forms',
    (method, path, route) => {
      expect(found(method, filled(path))).toEqual([route.operation, paramsOf(path)]);
      const form = clientForm(path);
      if (form !== undefined) expect(found(method, filled(form))).toEqual([route.operation, paramsOf(form)]);
    },
  );

  it('is found whatever the order of the table', () => {
    const reversed = makeMatcher(allRoutes.toReversed());
    for (const route of allRoutes) {
      const match = reversed.find(route.method, filled(route.path));
      expect('route' in match && match.route.operation).toBe(route.operation);
    }
  });
});

describe('a literal word', () => {
  const literal = allRoutes.filter((route) => {
    const parent = route.path.slice(0, route.path.lastIndexOf('/'));
    return allRoutes.some(
      (other) =>
        other.method === route.method &&
        other.path !== route.path &&
        other.path.startsWith(`${parent}/{`) &&
        !other.path.slice(parent.length + 1).includes('/'),
    );
  });

  it('stands beside a parameter in some paths, so that this means something', () => {
    expect(literal.filter((route) => !route.path.endsWith('}')).map((route) => route.operation)).not.toEqual(
      [],
    );
  });
});

describe('a path', () => {
  it.each([
    '',
    '/',
    '/v1',
    '/v1/',
    '/v1//namespaces',
    '/V1/namespaces',
    '/v1/namespaces/x/buckets/y/z/w/q',
    '/v1/namespaces//buckets',
  ])('%j means nothing', (path) => {
    const match = found('GET', path);
    expect(match).toEqual([]);
  });

  it('with slashes at its end means what it means without', () => {
    expect(found('GET', '/v1/namespaces///')).toEqual(found('GET', '/v1/namespaces'));
  });
});
