// The parsed condition tree: what its nodes are, which fields it reads, and its identity for caches and cursors.
import type { Scalar } from './field.ts';
import type { NumberSet } from './number-set.ts';

/** Operators that can be used, in the order in which messages list them. */
export const operators = [
  'eq',
  'ne',
  'gt',
  'gte',
  'lt',
  'lte',
  'in',
  'nin',
  'contains',
  'starts_with',
  'ends_with',
  'regex',
  'exists',
  'is_null',
  'text',
] as const;

export type Operator = (typeof operators)[number];

/** All, any or none of the nodes hold. An empty `all` or `none` always holds. */
export interface GroupNode {
  readonly kind: 'all' | 'any' | 'none';
  readonly nodes: readonly Condition[];
}

/**
 * Compares the value of a field. It holds if any element of the field passes `test`, or, when `negated` (`ne`,
 * `nin`), if none does, which includes a missing field.
 */
export interface CompareNode {
  readonly kind: 'compare';
  readonly field: string;
  readonly operator: Exclude<Operator, 'exists' | 'is_null'>;
  readonly value: Scalar | readonly Scalar[];
  readonly caseSensitive: boolean;
  readonly negated: boolean;
  /** The numbers that pass `test`, which is defined by it: columns of numbers are compared without a call a row. */
  readonly numbers: NumberSet;
  /** Decides on one scalar; pure and total, so that the index may ask it once per distinct value. */
  readonly test: (value: Scalar) => boolean;
}

/**
 * Whether a field is there (`exists`), or is missing or null (`is_null`; in a list, if an element is null).
 *
 * A field also exists if only fields below it do: `a` when there is an `a.b`.
 */
export interface PresenceNode {
  readonly kind: 'presence';
  readonly field: string;
  readonly operator: 'exists' | 'is_null';
  readonly value: boolean;
}

/** A checked condition tree. Its fields are canonical, its patterns compiled. Made only by `parse`. */
export type Condition = GroupNode | CompareNode | PresenceNode;

/** The condition that holds where all of `conditions` do; without any it always holds. */
export function allOf(conditions: readonly Condition[]): Condition {
  return conditions.length === 1 ? conditions[0]! : { kind: 'all', nodes: conditions };
}

/** The fields that a condition reads, canonical, without duplicates, in the order of the tree. */
export function fields(condition: Condition): string[] {
  const found = new Set<string>();
  const visit = (node: Condition): void => {
    if (node.kind === 'compare' || node.kind === 'presence') found.add(node.field);
    else for (const inner of node.nodes) visit(inner);
  };
  visit(condition);
  return [...found];
}

/** A text that is equal for two conditions exactly if they are built alike: a key for caches and cursors. */
export function conditionKey(condition: Condition): string {
  const plain = (node: Condition): unknown => {
    if (node.kind === 'compare') return [node.operator, node.field, node.value, node.caseSensitive];
    if (node.kind === 'presence') return [node.operator, node.field, node.value];
    return [node.kind, ...node.nodes.map(plain)];
  };
  return JSON.stringify(plain(condition));
}
