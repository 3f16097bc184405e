// Facts that have two spellings on the wire, the tutorial's and the client's: one of them is enough, both must agree.
import type * as z from 'zod';

/** Reports at `path` that it says something else than `other`, which means the same. */
export function refuseDifferent(ctx: z.RefinementCtx, path: string, other: string): void {
  ctx.addIssue({
    code: 'custom',
    path: [path],
    message: `"${other}" and "${path}" mean the same and differ`,
    params: { fix: 'send one of them' },
  });
}

/** Refuses a body in which `path` and `other` are both given with different values. */
export function agree<Name extends string>(
  ctx: z.RefinementCtx,
  body: Readonly<Partial<Record<Name, unknown>>>,
  path: Name,
  other: Name,
): void {
  const [value, twin] = [body[path], body[other]];
  if (value === undefined || value === null || twin === undefined || twin === null) return;
  if (JSON.stringify(value) !== JSON.stringify(twin)) refuseDifferent(ctx, path, other);
}
