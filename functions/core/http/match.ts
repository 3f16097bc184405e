// Finds the route of a concrete path. The gateway matches canonical paths itself; this serves the client form, which
// comes through one greedy resource, and the tests, which have no gateway.
import type { Method, Route } from './route.ts';
import { clientForm } from './route.ts';

export interface Match {
  readonly route: Route;
  /** Decoded path parameters by name. */
  readonly params: Readonly<Record<string, string>>;
}

interface Pattern {
  readonly segments: readonly string[];
  readonly routes: Map<Method, Route>;
}

export interface Matcher {
  /** @returns the match, or the methods that the path does have (empty: no such path). */
  find(method: string, path: string): Match | { readonly allow: readonly Method[] };
}

/** Literal segments before parameters, position by position: else `list` would be taken for a bucket's name. */
function moreLiteral(a: Pattern, b: Pattern): number {
  for (let i = 0; i < Math.min(a.segments.length, b.segments.length); i++) {
    const difference = Number(a.segments[i]!.startsWith('{')) - Number(b.segments[i]!.startsWith('{'));
    if (difference !== 0) return difference;
  }
  return 0;
}

/**
 * The text that a path segment stands for.
 *
 * Gateways differ in whether they decode it first, and a name may hold a `%` of its own: what is no escape is taken
 * as it stands.
 */
export function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function makeMatcher(routes: readonly Route[]): Matcher {
  const bySize = new Map<number, Pattern[]>();
  for (const route of routes) {
    for (const path of [route.path, clientForm(route.path)]) {
      if (path === undefined) continue;
      const segments = path.split('/').slice(1);
      const patterns = bySize.get(segments.length) ?? [];
      bySize.set(segments.length, patterns);
      const shape = segments.map((s) => (s.startsWith('{') ? '{}' : s)).join('/');
      let pattern = patterns.find(
        (p) => p.segments.map((s) => (s.startsWith('{') ? '{}' : s)).join('/') === shape,
      );
      if (!pattern) {
        pattern = { segments, routes: new Map() };
        patterns.push(pattern);
      }
      // A canonical route wins over a client form of the same shape; contracts are tested not to clash otherwise.
      if (!pattern.routes.has(route.method) || path === route.path) pattern.routes.set(route.method, route);
    }
  }
  for (const patterns of bySize.values()) patterns.sort(moreLiteral);

  return {
    find(method, path) {
      const segments = path.replace(/\/+$/, '').split('/').slice(1);
      const allow = new Set<Method>();
      for (const pattern of bySize.get(segments.length) ?? []) {
        const fits = pattern.segments.every((s, i) =>
          s.startsWith('{') ? segments[i] !== '' : s === segments[i],
        );
        if (!fits) continue;
        const route = pattern.routes.get(method as Method);
        if (!route) {
          for (const name of pattern.routes.keys()) allow.add(name);
          continue;
        }
        const params: Record<string, string> = {};
        for (const [i, name] of pattern.segments.entries()) {
          if (!name.startsWith('{')) continue;
          params[name.slice(1, -1)] = decodeSegment(segments[i]!);
        }
        return { route, params };
      }
      return { allow: [...allow] };
    },
  };
}
