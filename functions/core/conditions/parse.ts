// Turns a filter as it came over the wire into a checked condition tree, or lists everything that is wrong with it.
import { RE2JS } from 're2js';
import { type CompareNode, type Condition, type Operator, operators } from './condition.ts';
import { ConditionError, type ConditionFault } from './errors.ts';
import { canonicalField, fieldFault, type Scalar } from './field.ts';
import { NumberSet } from './number-set.ts';
import { foldCase, tokensOf } from './text.ts';

/** Limits of one condition tree; each is refused one above. */
export const conditionLimits = {
  /** Groups inside groups. Two JSON levels each, so this is the depth limit of a request body (32). */
  depthMax: 16,
  /** Groups and leaves together. */
  nodesMax: 300,
  /** Values of one `in` or `nin`. */
  valuesMax: 1_000,
  /** UTF-16 units of a text value. */
  textLengthMax: 16_384,
  /** UTF-16 units of a `regex` pattern. */
  patternLengthMax: 1_000,
  /** Instructions of a compiled pattern: matching costs at most text length times this. */
  patternSizeMax: 1_000,
} as const;

export interface ParseOptions {
  /** Letter case counts unless the tree says otherwise. @default false */
  readonly caseSensitive?: boolean;
  /** For trees that this program wrote: conditions of several requests in one may be larger than any one may be. */
  readonly unlimited?: boolean;
}

export interface CheckOptions extends ParseOptions {
  /**
   * Accept values that are only known when a retriever runs, `{{INPUT.x}}` and `{"type": "dynamic", ...}`, and do
   * not look into them.
   */
  readonly unresolved?: boolean;
}

export type ParsedCondition =
  | { readonly ok: true; readonly condition: Condition }
  | { readonly ok: false; readonly faults: readonly ConditionFault[] };

type Path = readonly (string | number)[];

/** Operators that the client knows and that are not built. */
const unbuilt = new Set(['phrase', 'words', 'geo_radius', 'geo_bounding_box', 'geo_polygon']);

/** What people write when they mean one of ours. */
const otherSpellings: Readonly<Record<string, Operator>> = {
  '=': 'eq',
  '==': 'eq',
  equals: 'eq',
  $eq: 'eq',
  '!=': 'ne',
  '<>': 'ne',
  neq: 'ne',
  not_equals: 'ne',
  $ne: 'ne',
  '>': 'gt',
  $gt: 'gt',
  '>=': 'gte',
  ge: 'gte',
  $gte: 'gte',
  '<': 'lt',
  $lt: 'lt',
  '<=': 'lte',
  le: 'lte',
  $lte: 'lte',
  $in: 'in',
  any: 'in',
  not_in: 'nin',
  $nin: 'nin',
  like: 'contains',
  startswith: 'starts_with',
  prefix: 'starts_with',
  endswith: 'ends_with',
  suffix: 'ends_with',
  matches: 'regex',
  $regex: 'regex',
  $exists: 'exists',
  isnull: 'is_null',
  match: 'text',
};

const groupKinds = { AND: 'all', OR: 'any', NOT: 'none' } as const;
const groupKeys = Object.keys(groupKinds) as (keyof typeof groupKinds)[];
const groupAccepted = ['AND', 'OR', 'NOT', 'case_sensitive'];
const leafAccepted = ['field', 'operator', 'value', 'case_sensitive'];
const leafSpellings: Readonly<Record<string, string>> = {
  op: 'operator',
  key: 'field',
  path: 'field',
  name: 'field',
  values: 'value',
  and: 'AND',
  or: 'OR',
  not: 'NOT',
  $and: 'AND',
  $or: 'OR',
  $not: 'NOT',
  must: 'AND',
  should: 'OR',
  must_not: 'NOT',
  caseSensitive: 'case_sensitive',
};

/**
 * Parses a filter: `{"AND" | "OR" | "NOT": [node...], "case_sensitive"}` or one `{field, operator, value}`.
 *
 * `{}` holds for every document, as does an empty AND or NOT. Several groups in one object must all hold. Letter
 * case does not count unless `case_sensitive` says so; the nearest one up the tree decides. Template values must
 * have been resolved before.
 *
 * @param input any parsed JSON
 * @throws ConditionError with every fault and its path from the root of `input`
 * @see api rules, section 5
 */
export function parse(input: unknown, options: ParseOptions = {}): Condition {
  const parsed = parseCondition(input, options);
  if (!parsed.ok) throw new ConditionError(parsed.faults);
  return parsed.condition;
}

/** As `parse`, for callers that put the faults under a path of their own: gives them back instead of throwing. */
export function parseCondition(input: unknown, options: ParseOptions = {}): ParsedCondition {
  const parser = new Parser(false, options.unlimited ?? false);
  const condition = parser.node(input, [], 1, options.caseSensitive ?? false);
  if (parser.faults.length > 0 || condition === undefined) return { ok: false, faults: parser.faults };
  return { ok: true, condition };
}

/**
 * The faults of a filter that is only stored now and parsed later, empty if there are none.
 *
 * With `unresolved` it accepts values that are templates; such a tree can be checked, never evaluated.
 */
export function check(input: unknown, options: CheckOptions = {}): ConditionFault[] {
  const parser = new Parser(options.unresolved ?? false);
  parser.node(input, [], 1, options.caseSensitive ?? false);
  return parser.faults;
}

class Parser {
  readonly faults: ConditionFault[] = [];
  readonly #unresolved: boolean;
  #nodes = 0;
  #tooMany = false;

  readonly #unlimited: boolean;

  constructor(unresolved: boolean, unlimited = false) {
    this.#unresolved = unresolved;
    this.#unlimited = unlimited;
  }

  #fault(type: string, path: Path, message: string, fix?: string): undefined {
    this.faults.push(fix === undefined ? { type, path, message } : { type, path, message, fix });
  }

  node(input: unknown, path: Path, depth: number, inherited: boolean): Condition | undefined {
    if (this.#tooMany) return undefined;
    this.#nodes += 1;
    if (this.#nodes > conditionLimits.nodesMax && !this.#unlimited) {
      this.#tooMany = true;
      const message = `A condition may have ${conditionLimits.nodesMax} nodes; this one has more.`;
      return this.#fault('condition_too_large', path, message, 'Use `in` with a list of values.');
    }
    if (depth > conditionLimits.depthMax && !this.#unlimited) {
      const message = `A condition may be nested ${conditionLimits.depthMax} deep; this one is deeper.`;
      return this.#fault('condition_too_deep', path, message);
    }
    if (Array.isArray(input)) {
      return this.#fault(
        'condition_not_object',
        path,
        'A condition is an object, got a list.',
        'Write {"AND": [...]} if all of the list must hold.',
      );
    }
    if (typeof input !== 'object' || input === null) {
      return this.#fault(
        'condition_not_object',
        path,
        `A condition is an object, got ${kindOf(input)}.`,
        'Write {"field": ..., "operator": ..., "value": ...} or {"AND": [...]}.',
      );
    }
    const object = input as Readonly<Record<string, unknown>>;
    const caseSensitive = this.#caseSensitive(object, path, inherited);
    const isLeaf = ['field', 'operator', 'value'].some((key) => Object.hasOwn(object, key));
    const isGroup = groupKeys.some((key) => Object.hasOwn(object, key));
    if (isLeaf && isGroup) {
      return this.#fault(
        'condition_mixed',
        path,
        'A node is either a group (AND, OR, NOT) or one comparison (field, operator, value), not both.',
        'Put the comparison into the list of the group.',
      );
    }
    const accepted = isLeaf
      ? leafAccepted
      : isGroup
        ? groupAccepted
        : [...groupAccepted, ...leafAccepted.slice(0, 3)];
    this.#unknownKeys(object, path, accepted);
    return isLeaf ? this.#leaf(object, path, caseSensitive) : this.#group(object, path, depth, caseSensitive);
  }

  #caseSensitive(object: Readonly<Record<string, unknown>>, path: Path, inherited: boolean): boolean {
    if (!Object.hasOwn(object, 'case_sensitive')) return inherited;
    const given = object.case_sensitive;
    if (typeof given === 'boolean') return given;
    const message = `\`case_sensitive\` is true or false, got ${kindOf(given)}.`;
    this.#fault('condition_bad_value', [...path, 'case_sensitive'], message);
    return inherited;
  }

  #unknownKeys(object: Readonly<Record<string, unknown>>, path: Path, accepted: readonly string[]): void {
    for (const key of Object.keys(object)) {
      if (accepted.includes(key)) continue;
      const meant = Object.hasOwn(leafSpellings, key) ? leafSpellings[key] : undefined;
      const fix =
        meant !== undefined && accepted.includes(meant)
          ? `Write \`${meant}\`.`
          : `Accepted keys: ${accepted.join(', ')}.`;
      this.#fault('extra_forbidden', [...path, key], `\`${shown(key)}\` is not a key of a condition.`, fix);
    }
  }

  #group(
    object: Readonly<Record<string, unknown>>,
    path: Path,
    depth: number,
    caseSensitive: boolean,
  ): Condition | undefined {
    const groups: Condition[] = [];
    for (const key of groupKeys) {
      if (!Object.hasOwn(object, key)) continue;
      const given = object[key];
      const at = [...path, key];
      let nodes: (Condition | undefined)[];
      if (Array.isArray(given)) {
        if (key === 'OR' && given.length === 0) {
          this.#fault(
            'condition_empty_or',
            at,
            '`OR` needs at least one node: an empty one could never hold.',
          );
        }
        nodes = [];
        for (let i = 0; i < given.length && !this.#tooMany; i += 1) {
          nodes.push(this.node(given[i], [...at, i], depth + 1, caseSensitive));
        }
      } else if (key === 'NOT' && typeof given === 'object' && given !== null) {
        nodes = [this.node(given, at, depth + 1, caseSensitive)];
      } else {
        const form = key === 'NOT' ? 'a list of nodes or one node' : 'a list of nodes';
        this.#fault('condition_bad_group', at, `\`${key}\` is ${form}, got ${kindOf(given)}.`);
        continue;
      }
      groups.push({ kind: groupKinds[key], nodes: nodes.filter((node) => node !== undefined) });
    }
    return groups.length === 1 ? groups[0] : { kind: 'all', nodes: groups };
  }

  #leaf(
    object: Readonly<Record<string, unknown>>,
    path: Path,
    caseSensitive: boolean,
  ): Condition | undefined {
    const field = this.#field(object, path);
    const operator = this.#operator(object, path);
    if (operator === undefined) return undefined;
    const at = [...path, 'value'];
    const given = object.value;
    const isGiven = Object.hasOwn(object, 'value') && given !== undefined;

    if (isDynamic(given) || isTemplate(given)) {
      if (this.#unresolved) return undefined;
      if (isDynamic(given)) {
        const message = 'The dynamic value was not resolved: nothing here supplies it.';
        return this.#fault('condition_unresolved_value', at, message);
      }
    }
    if (operator === 'exists' || operator === 'is_null') {
      if (isGiven && typeof given !== 'boolean') {
        return this.#fault(
          'condition_bad_value',
          at,
          `\`${operator}\` takes true or false, got ${kindOf(given)}.`,
        );
      }
      if (field === undefined) return undefined;
      return { kind: 'presence', field, operator, value: isGiven ? (given as boolean) : true };
    }
    if (!isGiven) {
      return this.#fault('condition_no_value', path, `\`${operator}\` needs a \`value\`.`, 'Add `value`.');
    }
    const compare = this.#compare(operator, given, at, caseSensitive);
    if (compare === undefined || field === undefined) return undefined;
    return { kind: 'compare', field, operator, caseSensitive, negated: isNegated(operator), ...compare };
  }

  #field(object: Readonly<Record<string, unknown>>, path: Path): string | undefined {
    if (!Object.hasOwn(object, 'field')) {
      return this.#fault('condition_no_field', path, 'The comparison names no `field`.', 'Add `field`.');
    }
    const given = object.field;
    const at = [...path, 'field'];
    if (typeof given !== 'string') {
      return this.#fault(
        'condition_bad_field',
        at,
        `\`field\` is a text such as "category", got ${kindOf(given)}.`,
      );
    }
    const field = canonicalField(given);
    const fault = fieldFault(field);
    if (fault !== undefined) return this.#fault('condition_bad_field', at, fault);
    return field;
  }

  #operator(object: Readonly<Record<string, unknown>>, path: Path): Operator | undefined {
    if (!Object.hasOwn(object, 'operator')) return 'eq';
    const given = object.operator;
    const at = [...path, 'operator'];
    if (typeof given === 'string') {
      const known = operators.find((operator) => operator === given);
      if (known !== undefined) return known;
      if (unbuilt.has(given) || given.startsWith('geo_')) {
        const message = `The operator \`${shown(given)}\` is not supported.`;
        return this.#fault('condition_unsupported_operator', at, message, supported);
      }
      const lower = given.toLowerCase();
      const meant =
        operators.find((operator) => operator === lower) ??
        (Object.hasOwn(otherSpellings, lower) ? otherSpellings[lower] : undefined);
      const fix = meant === undefined ? supported : `Write \`${meant}\`.`;
      return this.#fault('condition_unknown_operator', at, `There is no operator \`${shown(given)}\`.`, fix);
    }
    return this.#fault(
      'condition_unknown_operator',
      at,
      `\`operator\` is a text, got ${kindOf(given)}.`,
      supported,
    );
  }

  #compare(
    operator: CompareNode['operator'],
    given: unknown,
    at: Path,
    caseSensitive: boolean,
  ): Pick<CompareNode, 'value' | 'numbers' | 'test'> | undefined {
    switch (operator) {
      case 'eq':
      case 'ne': {
        if (Array.isArray(given)) {
          const fix =
            operator === 'eq'
              ? 'Use `in` for any of several values.'
              : 'Use `nin` for none of several values.';
          return this.#fault('condition_bad_value', at, `\`${operator}\` takes one value, got a list.`, fix);
        }
        const value = this.#scalar(operator, given, at);
        if (value === undefined) return undefined;
        const numbers = NumberSet.of(typeof value === 'number' ? [value] : []);
        return { value, ...scalarTest(numbers, equalTest(value, caseSensitive)) };
      }
      case 'in':
      case 'nin': {
        if (!Array.isArray(given)) {
          const message = `\`${operator}\` takes a list of values, got ${kindOf(given)}.`;
          return this.#fault('condition_bad_value', at, message, 'Put the value into a list: [value].');
        }
        if (given.length > conditionLimits.valuesMax) {
          const message = `\`${operator}\` takes ${conditionLimits.valuesMax} values, got ${given.length}.`;
          return this.#fault('condition_too_large', at, message);
        }
        const values = given.map((element, i) => this.#scalar(operator, element, [...at, i]));
        if (values.includes(undefined)) return undefined;
        const wanted = values as Scalar[];
        const numbers = NumberSet.of(wanted.filter((element) => typeof element === 'number'));
        return { value: wanted, ...scalarTest(numbers, memberTest(wanted, caseSensitive)) };
      }
      case 'gt':
      case 'gte':
      case 'lt':
      case 'lte': {
        if (typeof given !== 'number' && typeof given !== 'string') {
          const message = `\`${operator}\` compares numbers or texts, got ${kindOf(given)}.`;
          return this.#fault('condition_bad_value', at, message);
        }
        const value = this.#scalar(operator, given, at);
        if (value === undefined) return undefined;
        if (typeof value === 'number') {
          return { value, ...scalarTest(NumberSet.beside(operator, value), () => false) };
        }
        const test = orderTest(operator, value as string, caseSensitive);
        return { value, ...scalarTest(NumberSet.none, test) };
      }
      case 'contains':
      case 'starts_with':
      case 'ends_with':
      case 'text':
      case 'regex':
        return this.#textual(operator, given, at, caseSensitive);
    }
  }

  #textual(
    operator: 'contains' | 'starts_with' | 'ends_with' | 'text' | 'regex',
    given: unknown,
    at: Path,
    caseSensitive: boolean,
  ): Pick<CompareNode, 'value' | 'numbers' | 'test'> | undefined {
    if (typeof given !== 'string') {
      const message = `\`${operator}\` takes a text, got ${kindOf(given)}.`;
      const fix =
        operator === 'contains' ? 'Use `eq` or `in`: on a list field any element may match.' : undefined;
      return this.#fault('condition_bad_value', at, message, fix);
    }
    if (operator === 'regex') return this.#regex(given, at, caseSensitive);
    if (this.#scalar(operator, given, at) === undefined) return undefined;
    const fold = caseSensitive ? (text: string) => text : foldCase;
    const wanted = fold(given);
    if (operator === 'text') {
      const words = tokensOf(wanted);
      if (words.size === 0) {
        return this.#fault('condition_bad_value', at, '`text` needs at least one word to look for.');
      }
      return { value: given, ...textTest((text) => hasAll(tokensOf(fold(text)), words)) };
    }
    if (operator === 'contains') {
      return { value: given, ...textTest((text) => fold(text).includes(wanted)) };
    }
    if (operator === 'starts_with') {
      return { value: given, ...textTest((text) => fold(text).startsWith(wanted)) };
    }
    return { value: given, ...textTest((text) => fold(text).endsWith(wanted)) };
  }

  #regex(
    given: string,
    at: Path,
    caseSensitive: boolean,
  ): Pick<CompareNode, 'value' | 'numbers' | 'test'> | undefined {
    if (given.length > conditionLimits.patternLengthMax) {
      const message = `A pattern may have ${conditionLimits.patternLengthMax} characters, got ${given.length}.`;
      return this.#fault('condition_bad_pattern', at, message);
    }
    let pattern: RE2JS;
    try {
      pattern = RE2JS.compile(given, caseSensitive ? 0 : RE2JS.CASE_INSENSITIVE);
    } catch (error) {
      // The engine names what it stumbled over; our own `(?i)` prefix does not belong to the user's text.
      const reason = error instanceof Error ? error.message.replace('`(?i)', '`') : String(error);
      const fix = 'RE2 syntax: no look-around and no back-references.';
      return this.#fault('condition_bad_pattern', at, `The pattern cannot be used: ${shown(reason)}.`, fix);
    }
    if (pattern.programSize() > conditionLimits.patternSizeMax) {
      const message = 'The pattern is too complex.';
      return this.#fault(
        'condition_bad_pattern',
        at,
        message,
        'Use smaller repeat counts and fewer alternatives.',
      );
    }
    return { value: given, ...textTest((text) => pattern.test(text)) };
  }

  #scalar(operator: Operator, given: unknown, at: Path): Scalar | undefined {
    if (typeof given === 'string') {
      if (given.length <= conditionLimits.textLengthMax) return given;
      const message = `A text to compare with may have ${conditionLimits.textLengthMax} characters, got ${given.length}.`;
      return this.#fault('condition_too_large', at, message);
    }
    if (given === null || typeof given === 'boolean') return given;
    if (typeof given === 'number' && Number.isFinite(given)) return given;
    const message = `\`${operator}\` compares with a text, a number, true, false or null, got ${kindOf(given)}.`;
    return this.#fault('condition_bad_value', at, message);
  }
}

const supported = `Supported operators: ${operators.join(', ')}.`;

function hasAll(tokens: ReadonlySet<string>, wanted: ReadonlySet<string>): boolean {
  for (const word of wanted) if (!tokens.has(word)) return false;
  return true;
}

function isNegated(operator: Operator): boolean {
  return operator === 'ne' || operator === 'nin';
}

type ScalarTest = Pick<CompareNode, 'numbers' | 'test'>;

/** A test whose answer on numbers is the set, and on everything else `others`: numbers have no second definition. */
function scalarTest(numbers: NumberSet, others: (value: Exclude<Scalar, number>) => boolean): ScalarTest {
  return { numbers, test: (value) => (typeof value === 'number' ? numbers.has(value) : others(value)) };
}

function textTest(holds: (text: string) => boolean): ScalarTest {
  return scalarTest(NumberSet.none, (value) => typeof value === 'string' && holds(value));
}

type NoNumber = (value: Exclude<Scalar, number>) => boolean;

function equalTest(wanted: Scalar, caseSensitive: boolean): NoNumber {
  if (typeof wanted !== 'string' || caseSensitive) return (value) => value === wanted;
  const folded = foldCase(wanted);
  return (value) => typeof value === 'string' && foldCase(value) === folded;
}

function memberTest(wanted: readonly Scalar[], caseSensitive: boolean): NoNumber {
  const fold = (value: Scalar) => (typeof value === 'string' && !caseSensitive ? foldCase(value) : value);
  const members = new Set(wanted.map(fold));
  return (value) => members.has(fold(value));
}

function orderTest(operator: 'gt' | 'gte' | 'lt' | 'lte', bound: string, caseSensitive: boolean): NoNumber {
  const fold = (text: string) => (caseSensitive ? text : foldCase(text));
  const folded = fold(bound);
  const holds = {
    gt: (text: string) => text > folded,
    gte: (text: string) => text >= folded,
    lt: (text: string) => text < folded,
    lte: (text: string) => text <= folded,
  }[operator];
  return (value) => typeof value === 'string' && holds(fold(value));
}

function isDynamic(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    'type' in value &&
    value.type === 'dynamic'
  );
}

/** Whether a value, or an element of a list of values, holds a template. */
function isTemplate(value: unknown): boolean {
  if (Array.isArray(value))
    return value.some((element) => typeof element === 'string' && element.includes('{{'));
  return typeof value === 'string' && value.includes('{{');
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'number' && !Number.isFinite(value)) return 'a number that is not finite';
  return (
    { string: 'a text', number: 'a number', boolean: 'a boolean', object: 'an object' }[
      typeof value as string
    ] ?? typeof value
  );
}

/** User text inside a message, cut to a length that a message can bear. */
function shown(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 100)}...`;
}
