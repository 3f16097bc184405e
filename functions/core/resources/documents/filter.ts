// Filters of requests about documents: parsed with every fault at its place, and unknown fields named.
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, fieldFault, fields as fieldsOf } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { unknownNames } from '../../vectors/select-rows.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';

/** The one name of a field that a body names. @throws AppError request_invalid for one that nobody may read */
export function readField(field: string, location: readonly (string | number)[]): string {
  const name = canonicalField(field);
  const message = fieldFault(name);
  if (message === undefined) return name;
  throw invalid('request_invalid', [{ type: 'wrong_value', location: ['body', ...location], message }]);
}

/** Tells the caller which of the filter's fields, and of other canonical names, no document has. */
export function warnOfUnknown(
  ctx: NsCtx,
  snapshot: Snapshot,
  filter: Condition | undefined,
  names: readonly string[] = [],
): void {
  const inFilter = filter ? fieldsOf(filter) : [];
  for (const field of unknownNames(snapshot, inFilter))
    ctx.warnings.push(`No document has the field "${field}" of the filter.`);
  for (const field of unknownNames(snapshot, names))
    if (!inFilter.includes(field)) ctx.warnings.push(`No document has the field "${field}".`);
}
