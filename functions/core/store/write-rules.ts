// What a write names and what its conditions mean, as plain functions: the table in memory and group commits use them.
import type { Condition, Item, Key, Write } from './table.ts';

/** The one row that a write is about. */
export const keyOf = (write: Write): Key =>
  'put' in write
    ? write.put
    : 'update' in write
      ? write.update
      : 'delete' in write
        ? write.delete
        : write.check;

/** Whether a condition holds of an item (undefined: there is none), as the table decides it. */
export function holds(condition: Condition, item: Item | undefined): boolean {
  if ('absent' in condition) return item === undefined;
  if ('present' in condition) return item !== undefined;
  if ('anyOf' in condition) return condition.anyOf.some((c) => holds(c, item));
  if ('allOf' in condition) return condition.allOf.every((c) => holds(c, item));
  const value = item?.[condition.attribute];
  if ('missing' in condition) return value === undefined;
  if ('eq' in condition) return value === condition.eq;
  if ('ne' in condition) return value !== condition.ne;
  if ('in' in condition) return condition.in.includes(value as string | number);
  const bound = 'lt' in condition ? condition.lt : condition.gt;
  if (typeof value !== typeof bound) return false;
  return 'lt' in condition ? (value as string) < (bound as string) : (value as string) > (bound as string);
}
