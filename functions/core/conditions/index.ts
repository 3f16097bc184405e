// The condition tree of filters, alerts and lists: parse it, check it, decide with it.
export {
  allOf,
  type CompareNode,
  type Condition,
  conditionKey,
  fields,
  type GroupNode,
  type Operator,
  operators,
  type PresenceNode,
} from './condition.ts';
export { ConditionError, type ConditionFault } from './errors.ts';
export { evaluate, type FieldReader, matches, readerOf } from './evaluate.ts';
export {
  canonicalField,
  type Fields,
  type FieldValue,
  fieldFault,
  fieldValue,
  flattenFields,
  type Scalar,
} from './field.ts';
export {
  type CheckOptions,
  check,
  conditionLimits,
  type ParsedCondition,
  type ParseOptions,
  parse,
  parseCondition,
} from './parse.ts';
export { toTree } from './to-tree.ts';
