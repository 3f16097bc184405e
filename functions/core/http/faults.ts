// Turns zod's issues into the faults that callers read: every wrong field with its path, and how to write it right.
import type * as z from 'zod';
import type { FieldFault } from '../errors.ts';
import { issueText, unionText, valueAt } from '../issue-text.ts';

type Issue = z.core.$ZodIssue;

/** Keys that a schema accepts at a path, for the message about an unknown one. */
function acceptedKeys(schema: z.ZodType | undefined, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  const unwrap = (node: unknown): unknown => {
    let inner = node as
      | { def?: { innerType?: unknown; in?: unknown; getter?: () => unknown; type?: string } }
      | undefined;
    for (let i = 0; i < 10 && inner?.def; i++) {
      if (inner.def.innerType) inner = inner.def.innerType as typeof inner;
      else if (inner.def.type === 'pipe' && inner.def.in) inner = inner.def.in as typeof inner;
      else if (inner.def.getter) inner = inner.def.getter() as typeof inner;
      else break;
    }
    return inner;
  };
  for (const part of path) {
    const node = unwrap(at) as {
      shape?: Record<string, unknown>;
      element?: unknown;
      def?: { valueType?: unknown };
    };
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
      return [
        { type: value === undefined ? 'missing' : 'wrong_type', location, message: issueText(issue, value) },
      ];
    }
    case 'invalid_union': {
      // The branch that came closest says most: the one with the fewest complaints, deepest first.
      const branches = issue.errors.filter((e) => e.length > 0);
      const value = valueAt(input, issue.path);
      const whole = branches.length > 0 ? unionText(branches, value) : undefined;
      if (whole !== undefined)
        return [{ type: value === undefined ? 'missing' : 'wrong_value', location, message: whole }];
      const best = branches.toSorted((a, b) => a.length - b.length || depth(b) - depth(a))[0];
      if (!best) return [{ type: 'wrong_value', location, message: issue.message }];
      return best.flatMap((inner) =>
        fault({ ...inner, path: [...issue.path, ...inner.path] } as Issue, where, input, undefined),
      );
    }
    case 'invalid_value': {
      const value = valueAt(input, issue.path);
      return [
        { type: value === undefined ? 'missing' : 'wrong_value', location, message: issueText(issue, value) },
      ];
    }
    case 'invalid_key': {
      // The key is what is wrong, so it is the value that the inner issues speak of.
      const key = issue.path.at(-1);
      return issue.issues.flatMap((inner) =>
        fault({ ...inner, path: [] } as Issue, where, key, undefined).map((one) => ({ ...one, location })),
      );
    }
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
      return [{ type: issue.code, location, message: issueText(issue, valueAt(input, issue.path)) }];
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
