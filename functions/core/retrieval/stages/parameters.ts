// Building blocks of stage parameters: strict objects, and numbers and words that may be templates.
import * as z from 'zod';
import { type Fault, kindOf, type Path, throwFaults } from '../faults.ts';
import { isExactTemplate } from '../template.ts';

/** A strict object whose faults list the accepted keys. */
export function strict<Shape extends z.ZodRawShape>(shape: Shape) {
  const accepted = `accepted are ${Object.keys(shape).join(', ')}`;
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? accepted : undefined),
  });
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  readonly integer: boolean;
}

const describe = ({ min, max, integer }: NumberRange) => {
  const bounds = [min === undefined ? '' : `from ${min}`, max === undefined ? '' : `to ${max}`]
    .join(' ')
    .trim();
  return `${integer ? 'a whole number' : 'a number'} ${bounds}`.trim();
};

function numberFault(value: unknown, range: NumberRange): string | undefined {
  const { min = -Infinity, max = Infinity, integer } = range;
  if (typeof value !== 'number') return `expected ${describe(range)}, got ${kindOf(value)}`;
  if (!Number.isFinite(value) || (integer && !Number.isInteger(value)) || value < min || value > max) {
    return `expected ${describe(range)}, got ${value}`;
  }
  return undefined;
}

/** A number in the range, or a string that is exactly one template. */
export function numberOrTemplate(range: NumberRange) {
  return z
    .unknown()
    .transform((value, ctx): number | string => {
      if (typeof value === 'string' && isExactTemplate(value)) return value;
      const message = numberFault(value, range);
      if (message === undefined) return value as number;
      ctx.issues.push({ code: 'custom', message: `${message} (or one template)`, input: value });
      return z.NEVER;
    })
    .meta({
      description: `${describe(range)}, or one template`,
      type: [range.integer ? 'integer' : 'number', 'string'],
      ...(range.min === undefined ? {} : { minimum: range.min }),
      ...(range.max === undefined ? {} : { maximum: range.max }),
    });
}

/** What a number-or-template came to in this run. @throws AppError retriever_input_invalid outside the range */
export function resolvedNumber(value: unknown, range: NumberRange, path: Path): number {
  const message = numberFault(value, range);
  if (message !== undefined) throwFaults('retriever_input_invalid', [{ type: 'value_error', path, message }]);
  return value as number;
}

/** Adds a fault to a zod transform; `path` is relative to the value at hand. */
export function addFault(ctx: z.core.$RefinementCtx, fault: Fault, input: unknown): void {
  const params = { type: fault.type, ...(fault.fix === undefined ? {} : { fix: fault.fix }) };
  ctx.issues.push({ code: 'custom', message: fault.message, path: [...fault.path], params, input });
}
