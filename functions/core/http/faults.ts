// Turns zod's issues into the faults that callers read: every wrong field with its path, and how to write it right.
import type * as z from 'zod';
import type { FieldFault } from '../errors.ts';

type Issue = z.core.$ZodIssue;

function received(input: unknown): string {
  if (input === null) return 'null';
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object') return 'an object';
  if (typeof input === 'string') return `the string ${JSON.stringify(input.slice(0, 60))}`;
  return `${typeof input} ${String(input).slice(0, 60)}`;
}

const article: Record<string, string> = {
  array: 'a list',
  object: 'an object',
  record: 'an object',
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const part of path) {
    if (value === null || typeof value !== 'object') return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

/** Keys that a schema accepts at a path, for the message about an unknown one. */
function acceptedKeys(schema: z.ZodType | undefined, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  const unwrap = (node: unknown): unknown => {
    let inner = node as { def?: { innerType?: unknown; in?: unknown; getter?: () => unknown; type?: string } } | undefined;
    for (let i = 0; i < 10 && inner?.def; i++) {
      if (inner.def.innerType) inner = inner.def.innerType as typeof inner;
      else if (inner.def.type === 'pipe' && inner.def.in) inner = inner.def.in as typeof inner;
      else if (inner.def.getter) inner = inner.def.getter() as typeof inner;
      else break;
    }
    return inner;
  };
  for (const part of path) {
    const node = unwrap(at) as { shape?: Record<string, unknown>; element?: unknown; def?: { valueType?: unknown } };
    at = typeof part === 'number' ? node?.element : (node?.shape?.[String(part)] ?? node?.def?.valueType);
  }
  const node = unwrap(at) as { shape?: Record<string, unknown> } | undefined;
  return Object.keys(node?.shape ?? {});
}

function fault(issue: Issue, where: string, input: unknown, schema: z.ZodType | undefined): FieldFault[] {
  const path = issue.path.map((p) => (typeof p === 'number' ? p : String(p)));
  const location = [where, ...path];
  switch (issue.code) {
    case 'unrecognized_keys': {
      const accepted = acceptedKeys(schema, issue.path);
      return issue.keys.map((key) => ({
        type: 'extra_forbidden',
        location: [...location, key],
        message: `unknown key "${key.slice(0, 60)}"`,
        ...(accepted.length > 0 ? { fix: `accepted keys: ${accepted.join(', ')}` } : {}),
      }));
    }
    case 'invalid_type': {
      const value = valueAt(input, issue.path);
      const wanted = article[issue.expected] ?? issue.expected;
      return [
        value === undefined
          ? { type: 'missing', location, message: `required, ${wanted} is expected` }
          : { type: 'wrong_type', location, message: `must be ${wanted}, got ${received(value)}` },
      ];
    }
    case 'invalid_union': {
      // The branch that came closest says most: the one with the fewest complaints, deepest first.
      const branches = issue.errors.filter((e) => e.length > 0);
      const best = branches.toSorted((a, b) => a.length - b.length || depth(b) - depth(a))[0];
      if (!best) return [{ type: 'wrong_value', location, message: issue.message }];
      return best.flatMap((inner) => fault({ ...inner, path: [...issue.path, ...inner.path] } as Issue, where, input, undefined));
    }
    case 'invalid_value':
      return [
        {
          type: valueAt(input, issue.path) === undefined ? 'missing' : 'wrong_value',
          location,
          message: `must be one of ${issue.values.map((v) => JSON.stringify(v)).join(', ')}, got ${received(valueAt(input, issue.path))}`,
        },
      ];
    case 'custom': {
      const params = (issue.params ?? {}) as { type?: string; fix?: string };
      return [
        {
          type: params.type ?? 'wrong_value',
          location,
          message: issue.message,
          ...(params.fix === undefined ? {} : { fix: params.fix }),
        },
      ];
    }
    default:
      return [{ type: issue.code, location, message: issue.message }];
  }
}

function depth(issues: readonly Issue[]): number {
  return Math.max(0, ...issues.map((i) => i.path.length));
}

/**
 * All faults of a value that a schema refused.
 *
 * Contracts add `type` and `fix` to their own issues by `ctx.addIssue({ code: 'custom', message, params: { type, fix } })`.
 *
 * @param where `body`, `query` or `path`: the first part of each location.
 */
export function toFaults(error: z.ZodError, where: string, input: unknown, schema?: z.ZodType): FieldFault[] {
  return error.issues.flatMap((issue) => fault(issue, where, input, schema));
}
