// The order of values of one field, where values of several types meet.
import type { Scalar } from '../conditions/field.ts';

const rankOf = (value: Scalar) =>
  value === null ? 3 : typeof value === 'number' ? 0 : typeof value === 'string' ? 1 : 2;

/** As lists sort: numbers, texts by UTF-16 units, booleans; null, which lists take as missing, last. */
export function compareScalars(a: Scalar, b: Scalar): number {
  return rankOf(a) - rankOf(b) || (a! < b! ? -1 : a! > b! ? 1 : 0);
}
