// Conditions: what is accepted, what every fault says and where, what each operator means, and that hostile input ends.
import { describe, expect, test } from 'vitest';
import { allOf, conditionKey, fields } from '../../../functions/core/conditions/condition.ts';
import { ConditionError, type ConditionFault } from '../../../functions/core/conditions/errors.ts';
import { evaluate } from '../../../functions/core/conditions/evaluate.ts';
import { canonicalField, fieldValue, flattenFields } from '../../../functions/core/conditions/field.ts';
import { check, conditionLimits, parse, parseCondition } from '../../../functions/core/conditions/parse.ts';
import { tokensOf } from '../../../functions/core/conditions/text.ts';

const holds = (field: string, operator: string, value: unknown, document: unknown, case_sensitive = false) =>
  evaluate(parse({ field, operator, value, case_sensitive }), document);

function faults(input: unknown): readonly ConditionFault[] {
  const parsed = parseCondition(input);
  return parsed.ok ? [] : parsed.faults;
}

describe('trees', () => {
  test('the alert of the tutorial is one bare leaf over a field under metadata', () => {
    const condition = parse({ field: 'metadata.auto_topic', operator: 'eq', value: 'quantum' });
    expect(fields(condition)).toEqual(['auto_topic']);
    expect(evaluate(condition, { auto_topic: 'quantum' })).toBe(true);
    expect(evaluate(condition, { metadata: { auto_topic: 'Quantum' } })).toBe(true);
    expect(evaluate(condition, { auto_topic: 'biology' })).toBe(false);
  });

  test('the operator is eq unless given', () => {
    expect(evaluate(parse({ field: 'a', value: 1 }), { a: 1 })).toBe(true);
  });

  test('NOT takes a list, of which none may hold, or one node', () => {
    const a = { field: 'a', value: 1 };
    const b = { field: 'b', value: 1 };
    for (const [document, none] of [
      [{ a: 1 }, false],
      [{ b: 1 }, false],
      [{ c: 1 }, true],
    ] as const) {
      expect(evaluate(parse({ NOT: [a, b] }), document)).toBe(none);
    }
    expect(evaluate(parse({ NOT: a }), { a: 2 })).toBe(true);
    expect(evaluate(parse({ NOT: { NOT: a } }), { a: 1 })).toBe(true);
  });

  test('several groups in one object must all hold', () => {
    const tree = {
      AND: [{ field: 'a', value: 1 }],
      OR: [
        { field: 'b', value: 1 },
        { field: 'b', value: 2 },
      ],
      NOT: [{ field: 'c', value: 1 }],
    };
    expect(evaluate(parse(tree), { a: 1, b: 2 })).toBe(true);
    expect(evaluate(parse(tree), { a: 1, b: 2, c: 1 })).toBe(false);
    expect(evaluate(parse(tree), { a: 1, b: 3 })).toBe(false);
  });

  test('an empty object, AND or NOT always holds; an empty OR is refused', () => {
    for (const tree of [{}, { AND: [] }, { NOT: [] }, { case_sensitive: true }])
      expect(evaluate(parse(tree), {})).toBe(true);
    expect(faults({ OR: [] })).toMatchObject([{ type: 'condition_empty_or', path: ['OR'] }]);
  });

  test('the nearest case_sensitive up the tree decides, for all text operators', () => {
    const tree = (outer: boolean, inner?: boolean) =>
      parse({
        case_sensitive: outer,
        AND: [
          { OR: [{ field: 'a', value: 'x' }], ...(inner === undefined ? {} : { case_sensitive: inner }) },
        ],
      });
    expect(evaluate(tree(false), { a: 'X' })).toBe(true);
    expect(evaluate(tree(true), { a: 'X' })).toBe(false);
    expect(evaluate(tree(true, false), { a: 'X' })).toBe(true);
    expect(evaluate(parse({ field: 'a', value: 'x' }, { caseSensitive: true }), { a: 'X' })).toBe(false);
    for (const [operator, value] of [
      ['ne', 'xy'],
      ['in', ['xy']],
      ['contains', 'x'],
      ['starts_with', 'x'],
      ['ends_with', 'y'],
      ['regex', '^xy$'],
      ['text', 'xy'],
      ['gte', 'x'],
    ] as const) {
      expect(holds('a', operator, value, { a: 'XY' }), operator).toBe(operator !== 'ne');
      expect(holds('a', operator, value, { a: 'XY' }, true), operator).toBe(operator === 'ne');
    }
  });

  test('fields come once each, keys are equal for trees built alike and for nothing else', () => {
    const tree = {
      AND: [
        { field: 'a', value: 1 },
        {
          OR: [
            { field: 'payload.a', value: '1' },
            { field: 'b', operator: 'exists' },
          ],
        },
      ],
    };
    expect(fields(parse(tree))).toEqual(['a', 'b']);
    expect(conditionKey(parse(tree))).toBe(conditionKey(parse(structuredClone(tree))));
    const others = [
      { field: 'a', value: 1 },
      { field: 'a', value: '1' },
      { field: 'a', value: '1', case_sensitive: true },
      { NOT: { field: 'a', value: 1 } },
      { OR: [{ field: 'a', value: 1 }] },
    ];
    expect(new Set(others.map((other) => conditionKey(parse(other)))).size).toBe(others.length);
  });

  test('allOf joins parsed conditions', () => {
    const both = allOf([parse({ field: 'a', value: 1 }), parse({ field: 'b', value: 1 })]);
    expect([evaluate(both, { a: 1, b: 1 }), evaluate(both, { a: 1 }), evaluate(allOf([]), {})]).toEqual([
      true,
      false,
      true,
    ]);
  });
});

describe('missing fields and other types', () => {
  const matching = ['ne', 'nin'];
  test.each([
    ['eq', 'x'],
    ['ne', 'x'],
    ['gt', 1],
    ['gte', 'x'],
    ['lt', 1],
    ['lte', 'x'],
    ['in', ['x']],
    ['nin', ['x']],
    ['contains', 'x'],
    ['starts_with', 'x'],
    ['ends_with', 'x'],
    ['regex', 'x'],
    ['text', 'x'],
  ])('%s', (operator, value) => {
    const expected = matching.includes(operator);
    expect(holds('a', operator, value, {}), 'missing').toBe(expected);
    expect(holds('a', operator, value, { a: true }), 'another type').toBe(expected);
    expect(holds('a', operator, value, { a: null }), 'null').toBe(expected);
    expect(holds('a', operator, value, { a: { x: 'x' } }), 'an object').toBe(expected);
    expect(holds('a', operator, value, { a: [] }), 'an empty list').toBe(expected);
  });

  test('exists and is_null tell missing, null and present apart; without a value they mean true', () => {
    const table = [{}, { a: null }, { a: 0 }, { a: [] }, { a: [1, null] }, { a: { b: 1 } }, { a: {} }];
    expect(table.map((document) => holds('a', 'exists', true, document))).toEqual([
      false,
      true,
      true,
      true,
      true,
      true,
      true,
    ]);
    expect(table.map((document) => holds('a', 'exists', false, document))).toEqual([
      true,
      false,
      false,
      false,
      false,
      false,
      false,
    ]);
    expect(table.map((document) => holds('a', 'is_null', true, document))).toEqual([
      true,
      true,
      false,
      false,
      true,
      false,
      false,
    ]);
    expect(table.map((document) => holds('a', 'is_null', false, document))).toEqual([
      false,
      false,
      true,
      true,
      false,
      true,
      true,
    ]);
    expect(evaluate(parse({ field: 'a', operator: 'exists' }), { a: 0 })).toBe(true);
    expect(evaluate(parse({ field: 'a', operator: 'is_null' }), {})).toBe(true);
  });

  test('nothing is coerced', () => {
    expect(holds('a', 'eq', 1, { a: '1' })).toBe(false);
    expect(holds('a', 'eq', true, { a: 'true' })).toBe(false);
    expect(holds('a', 'eq', 0, { a: false })).toBe(false);
    expect(holds('a', 'gt', 9, { a: '10' })).toBe(false);
    expect(holds('a', 'lt', '9', { a: 10 })).toBe(false);
    expect(holds('a', 'in', [1, null], { a: '1' })).toBe(false);
    expect(holds('a', 'contains', '1', { a: 10 })).toBe(false);
  });

  test('evaluate is total over values that are no documents', () => {
    const condition = parse({
      OR: [
        { field: 'a', value: 1 },
        { field: 'a', operator: 'regex', value: '.' },
      ],
    });
    for (const value of [null, undefined, 1, 'a', [], [{ a: 1 }], true])
      expect(evaluate(condition, value)).toBe(false);
    let deep: unknown = { a: 1 };
    for (let i = 0; i < 20_000; i += 1) deep = { a: deep };
    expect(evaluate(condition, deep)).toBe(false);
    const circle: Record<string, unknown> = {};
    circle.a = circle;
    expect(evaluate(condition, circle)).toBe(false);
  });
});

describe('lists and texts', () => {
  test('any element of a list may match, and ne and nin hold if none does', () => {
    const document = { tags: ['red', 'Blue', 3] };
    expect(holds('tags', 'eq', 'blue', document)).toBe(true);
    expect(holds('tags', 'contains', 'lu', document)).toBe(true);
    expect(holds('tags', 'gt', 2, document)).toBe(true);
    expect(holds('tags', 'ne', 'red', document)).toBe(false);
    expect(holds('tags', 'nin', ['red', 'x'], document)).toBe(false);
    expect(holds('tags', 'nin', ['green'], document)).toBe(true);
  });

  test('case folding does not depend on the position of a letter', () => {
    expect(holds('a', 'contains', 'οδος', { a: 'ΟΔΟΣΩ' })).toBe(true);
    expect(holds('a', 'starts_with', 'ΣΑΣ', { a: 'σασι' })).toBe(true);
    expect(holds('a', 'eq', 'straße', { a: 'STRASSE' })).toBe(true);
    expect(holds('a', 'eq', 'ẞ', { a: 'ß' })).toBe(true);
    expect(holds('a', 'eq', 'Kelvin', { a: '\u212aelvin' })).toBe(true);
  });

  test('text finds every token in any order, in one element of a list', () => {
    expect(holds('a', 'text', 'Fox red', { a: 'The red, quick fox.' })).toBe(true);
    expect(holds('a', 'text', 'red fo', { a: 'red fox' })).toBe(false);
    expect(holds('a', 'text', 'red fox', { a: ['red', 'fox'] })).toBe(false);
    expect(holds('a', 'text', '量子', { a: '量子コンピュータ' })).toBe(true);
    expect([...tokensOf("it's 3.5 naïve 量子ab")]).toEqual(['it', 's', '3', '5', 'naïve', '量', '子', 'ab']);
  });

  test('regex finds a match anywhere, and a pattern that backtracks elsewhere is linear here', () => {
    expect(holds('a', 'regex', 'b+c', { a: 'aBBc' })).toBe(true);
    expect(holds('a', 'regex', '^b', { a: 'ab' })).toBe(false);
    // An engine that backtracks would need 2^50000 steps: the test would never end.
    expect(holds('a', 'regex', '^(a+)+$', { a: `${'a'.repeat(50_000)}!` })).toBe(false);
    expect(holds('a', 'regex', '(.*)*(.*)*(.*)*x$', { a: 'y'.repeat(50_000) })).toBe(false);
  });
});

describe('fields', () => {
  test('metadata.x, payload.x and x are one field, the root wins', () => {
    expect(
      ['x', 'metadata.x', 'payload.x', 'metadata.payload.x', 'metadata', 'metadata.'].map(canonicalField),
    ).toEqual(['x', 'x', 'x', 'x', 'metadata', 'metadata.']);
    expect(fieldValue({ x: 1, metadata: { x: 2, y: 3 }, payload: { z: 4 } }, 'metadata.x')).toBe(1);
    expect(fieldValue({ x: 1, metadata: { x: 2, y: 3 }, payload: { z: 4 } }, 'y')).toBe(3);
    expect(fieldValue({ x: 1, payload: { z: 4 } }, 'metadata.z')).toBe(4);
  });

  test('nested objects and lists of objects become dotted names', () => {
    expect(
      flattenFields({
        a: { b: { c: 1 } },
        p: [{ n: 'x' }, { n: 'y', k: [1, 2] }],
        e: {},
        l: [[1], [2, [3]]],
        u: undefined,
      }),
    ).toEqual(
      new Map<string, unknown>([
        ['a.b.c', 1],
        ['p.n', ['x', 'y']],
        ['p.k', [1, 2]],
        ['e', []],
        ['l', [1, 2, 3]],
      ]),
    );
  });

  test('our own fields and the names of the prototype chain are never read', () => {
    const document = JSON.parse(
      '{"_internal": {"x": 1}, "__proto__": {"x": 1}, "metadata": {"_internal": {"x": 1}}, "constructor": {"x": 1}, "a": {"prototype": {"x": 1}, "y": 1}}',
    );
    expect([...flattenFields(document).keys()]).toEqual(['a.y']);
    expect(fieldValue({}, 'toString')).toBeUndefined();
    expect(holds('toString', 'exists', true, {})).toBe(false);
  });

  test.each([
    ['_internal.lineage.batch_id', /_internal/],
    ['metadata._internal.x', /_internal/],
    ['_internal', /_internal/],
    ['a.__proto__.b', /__proto__/],
    ['constructor', /constructor/],
    ['a.prototype', /prototype/],
    ['', /empty/],
    ['a..b', /empty part/],
    ['.a', /empty part/],
    ['a'.repeat(257), /256 characters, got 257/],
  ])('%s is refused as a field', (field, message) => {
    expect(faults({ field, value: 1 })).toMatchObject([
      { type: 'condition_bad_field', path: ['field'], message: expect.stringMatching(message) },
    ]);
  });
});

describe('faults', () => {
  test('all of them come at once, each with its path', () => {
    const tree = {
      AND: [
        { field: 'a', operator: '==', value: 1 },
        {
          OR: [
            { field: '__proto__', value: 1 },
            { field: 'b', operator: 'in', value: ['x', { y: 1 }] },
          ],
        },
        { NOT: { field: 'c', operator: 'regex', value: '(' } },
        { value: 1, extra: true },
      ],
      case_sensitive: 'yes',
    };
    const found = faults(tree);
    expect(found.map(({ type, path }) => [type, path.join('.')])).toEqual([
      ['condition_bad_value', 'case_sensitive'],
      ['condition_unknown_operator', 'AND.0.operator'],
      ['condition_bad_field', 'AND.1.OR.0.field'],
      ['condition_bad_value', 'AND.1.OR.1.value.1'],
      ['condition_bad_pattern', 'AND.2.NOT.value'],
      ['extra_forbidden', 'AND.3.extra'],
      ['condition_no_field', 'AND.3'],
    ]);
    expect(found[1]!.fix).toBe('Write `eq`.');
    expect(() => parse(tree)).toThrow(ConditionError);
    expect(() => parse(tree)).toThrow(expect.objectContaining({ code: 'condition_invalid', faults: found }));
    expect(check(tree)).toEqual(found);
  });

  test.each<[string, unknown, string, (string | number)[], RegExp]>([
    ['null', null, 'condition_not_object', [], /got null/],
    ['a text', 'a', 'condition_not_object', [], /got a text/],
    ['a list', [{ field: 'a', value: 1 }], 'condition_not_object', [], /"AND"/],
    [
      'a group that is no list',
      { AND: { field: 'a', value: 1 } },
      'condition_bad_group',
      ['AND'],
      /list of nodes, got an object/,
    ],
    ['a lower-case group', { and: [] }, 'extra_forbidden', ['and'], /Write `AND`/],
    ['a group beside a leaf', { AND: [], field: 'a', value: 1 }, 'condition_mixed', [], /not both/],
    ['a leaf without value', { field: 'a' }, 'condition_no_value', [], /`eq` needs/],
    ['a list for eq', { field: 'a', value: [1] }, 'condition_bad_value', ['value'], /Use `in`/],
    ['an object for eq', { field: 'a', value: {} }, 'condition_bad_value', ['value'], /got an object/],
    [
      'one value for in',
      { field: 'a', operator: 'in', value: 1 },
      'condition_bad_value',
      ['value'],
      /into a list/,
    ],
    [
      'a boolean for gt',
      { field: 'a', operator: 'gt', value: true },
      'condition_bad_value',
      ['value'],
      /numbers or texts, got a boolean/,
    ],
    [
      'a number for contains',
      { field: 'a', operator: 'contains', value: 1 },
      'condition_bad_value',
      ['value'],
      /Use `eq` or `in`/,
    ],
    [
      'a text for exists',
      { field: 'a', operator: 'exists', value: 'true' },
      'condition_bad_value',
      ['value'],
      /true or false, got a text/,
    ],
    [
      'text without a word',
      { field: 'a', operator: 'text', value: '?!' },
      'condition_bad_value',
      ['value'],
      /at least one word/,
    ],
    [
      'a dynamic value',
      { field: 'a', value: { type: 'dynamic', field: 'x' } },
      'condition_unresolved_value',
      ['value'],
      /not resolved/,
    ],
    [
      'an operator of MongoDB',
      { field: 'a', operator: '$GTE', value: 1 },
      'condition_unknown_operator',
      ['operator'],
      /Write `gte`/,
    ],
    [
      'an upper-case operator',
      { field: 'a', operator: 'EQ', value: 1 },
      'condition_unknown_operator',
      ['operator'],
      /Write `eq`/,
    ],
    [
      'an unheard-of operator',
      { field: 'a', operator: 'near', value: 1 },
      'condition_unknown_operator',
      ['operator'],
      /eq, ne, gt/,
    ],
    [
      'a name of the prototype as operator',
      { field: 'a', operator: 'constructor', value: 1 },
      'condition_unknown_operator',
      ['operator'],
      /eq, ne, gt/,
    ],
    [
      'phrase',
      { field: 'a', operator: 'phrase', value: 'x' },
      'condition_unsupported_operator',
      ['operator'],
      /eq, ne, gt/,
    ],
    [
      'words',
      { field: 'a', operator: 'words', value: 'x' },
      'condition_unsupported_operator',
      ['operator'],
      /is_null, text/,
    ],
    [
      'geo_radius',
      { field: 'a', operator: 'geo_radius', value: {} },
      'condition_unsupported_operator',
      ['operator'],
      /eq, ne, gt/,
    ],
    [
      'look-around',
      { field: 'a', operator: 'regex', value: '(?=a)' },
      'condition_bad_pattern',
      ['value'],
      /no look-around/,
    ],
    [
      'a back-reference',
      { field: 'a', operator: 'regex', value: '(a)\\1' },
      'condition_bad_pattern',
      ['value'],
      /no back-references|look-around/,
    ],
    [
      'nested repeat counts',
      { field: 'a', operator: 'regex', value: '(a{500}){3}' },
      'condition_bad_pattern',
      ['value'],
      /repeat/,
    ],
    [
      'a pattern that compiles to too much',
      { field: 'a', operator: 'regex', value: '(a?){999}' },
      'condition_bad_pattern',
      ['value'],
      /too complex/,
    ],
  ])('%s', (_, input, type, path, message) => {
    const [fault, ...others] = faults(input);
    expect(others).toEqual([]);
    expect(fault).toMatchObject({ type, path });
    expect(`${fault!.message} ${fault!.fix ?? ''}`).toMatch(message);
  });

  test('templates are accepted only where a tree is checked and not yet used', () => {
    const tree = {
      AND: [
        { field: 'a', operator: 'gt', value: '{{INPUT.n}}' },
        { field: 'b', operator: 'in', value: ['{{INPUT.x}}'] },
        { field: 'c', operator: 'exists', value: '{{INPUT.c}}' },
        { field: 'd', value: { type: 'dynamic', field: 'inputs.d' } },
      ],
    };
    expect(check(tree, { unresolved: true })).toEqual([]);
    expect(check(tree)).toHaveLength(2);
    expect(check({ field: '', operator: 'gr', value: '{{INPUT.n}}' }, { unresolved: true })).toHaveLength(2);
  });
});

describe('limits', () => {
  const leaf = { field: 'a', value: 1 };
  const nested = (depth: number): unknown => (depth <= 1 ? leaf : { AND: [nested(depth - 1)] });
  const { depthMax, nodesMax, valuesMax, textLengthMax, patternLengthMax } = conditionLimits;

  test.each([
    ['depth', nested(depthMax), nested(depthMax + 1)],
    ['nodes', { OR: new Array(nodesMax - 1).fill(leaf) }, { OR: new Array(nodesMax).fill(leaf) }],
    [
      'values of in',
      { field: 'a', operator: 'in', value: new Array(valuesMax).fill(1) },
      { field: 'a', operator: 'in', value: new Array(valuesMax + 1).fill(1) },
    ],
    [
      'text',
      { field: 'a', value: 'x'.repeat(textLengthMax) },
      { field: 'a', value: 'x'.repeat(textLengthMax + 1) },
    ],
    [
      'pattern',
      { field: 'a', operator: 'regex', value: 'x'.repeat(patternLengthMax - 10) },
      { field: 'a', operator: 'regex', value: `[${'x'.repeat(patternLengthMax - 1)}]` },
    ],
  ])('%s: at the limit it passes, one above it is one fault', (_, at, above) => {
    expect(faults(at)).toEqual([]);
    expect(faults(above)).toHaveLength(1);
  });

  test('a tree far above the limits ends with one fault and without a stack overflow', () => {
    let deep: unknown = leaf;
    for (let i = 0; i < 100_000; i += 1) deep = { NOT: deep };
    expect(faults(deep)).toHaveLength(1);
    expect(faults({ AND: new Array(200_000).fill({ nonsense: 1 }) }).length).toBeLessThanOrEqual(
      nodesMax + 1,
    );
  });

  test('long hostile texts in messages are cut', () => {
    const found = faults({ field: 'a', operator: 'x'.repeat(100_000), value: 1, ['y'.repeat(100_000)]: 1 });
    for (const { message, fix } of found) expect(message.length + (fix?.length ?? 0)).toBeLessThan(500);
  });
});
