// A condition as JSON again, to be sent to another function of this program.
import type { Condition } from './condition.ts';

/**
 * The tree that `parse` makes the same condition of: `conditionKey` of both is equal.
 *
 * Parse it with `unlimited`; it may be larger than what a request may hold.
 */
export function toTree(condition: Condition): unknown {
  switch (condition.kind) {
    case 'all':
      return { AND: condition.nodes.map(toTree) };
    case 'none':
      return { NOT: condition.nodes.map(toTree) };
    case 'any':
      // An empty OR, which never holds, cannot be written; that an empty AND does not hold can.
      return condition.nodes.length > 0 ? { OR: condition.nodes.map(toTree) } : { NOT: [{ AND: [] }] };
    case 'compare': {
      const { field, operator, value, caseSensitive } = condition;
      return { field, operator, value, case_sensitive: caseSensitive };
    }
    case 'presence': {
      const { field, operator, value } = condition;
      return { field, operator, value };
    }
  }
}
