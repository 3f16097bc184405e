// Filters of retrievers: condition trees whose values may be templates or dynamic values until a run resolves them.
import { allOf as all, type Condition, check, evaluate, parseCondition } from '../conditions/index.ts';
import { type Fault, isObject, type Path, throwFaults, under } from './faults.ts';
import { templateRoots } from './template.ts';

/** A parsed condition without templates, as the index and the documents are asked. */
export type Filter = Condition;

/** Own entries mapped; `__proto__` stays an own key, for the template check to refuse. */
function mapEntries(
  tree: Record<string, unknown>,
  map: (value: unknown) => unknown,
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, map(value)]));
}

/**
 * Turns the client's dynamic values into templates, so that one mechanism is left: `{"type": "dynamic", "field":
 * "inputs.user"}` becomes `"{{INPUT.user}}"`. A path without a known root means an input.
 */
export function dynamicToTemplates(tree: unknown): unknown {
  if (Array.isArray(tree)) return tree.map(dynamicToTemplates);
  if (!isObject(tree)) return tree;
  if (tree.type === 'dynamic' && typeof tree.field === 'string') {
    const [head = '', ...rest] = tree.field.split('.');
    const word = /^inputs$/i.test(head) ? 'INPUT' : head.toUpperCase();
    const known = rest.length > 0 && templateRoots.some((root) => root === word);
    return known ? `{{${word}.${rest.join('.')}}}` : `{{INPUT.${tree.field}}}`;
  }
  return mapEntries(tree, dynamicToTemplates);
}

/** The faults of a tree whose values may still be templates: fields, operators, nesting, literal values. */
export function checkFilter(tree: unknown, path: Path): Fault[] {
  return under(path, check(tree, { unresolved: true }));
}

/**
 * Parses a tree whose templates are resolved.
 *
 * @param path where it stands in the request, for the faults
 * @throws AppError retriever_input_invalid
 */
export function parseResolved(tree: unknown, path: Path): Filter {
  const parsed = parseCondition(tree);
  if (parsed.ok) return parsed.condition;
  throwFaults('retriever_input_invalid', under(path, parsed.faults));
  throw new Error('a condition without faults was not parsed');
}

/** All of the filters at once; undefined if there is none. */
export function allOf(...filters: readonly (Filter | undefined)[]): Filter | undefined {
  const nodes = filters.filter((filter) => filter !== undefined);
  return nodes.length > 1 ? all(nodes) : nodes[0];
}

/** Whether a document passes. Total: a missing field or a value of another type is no match. */
export function passes(filter: Filter, document: Readonly<Record<string, unknown>>): boolean {
  return evaluate(filter, document);
}
