// Templates: grammar, types, refusals; a corpus of hostile texts.
import { describe, expect, it } from 'vitest';
import {
  checkTemplates,
  compileTemplate,
  isExactTemplate,
  resolve,
} from '../../../functions/core/retrieval/template.ts';

const scope = {
  INPUT: {
    query: 'Quantum',
    n: 3,
    list: [1, { a: 'x' }],
    nothing: null,
    flag: false,
    'a-b': 'dash',
    o: { k: 'v' },
  },
  CONTEXT: { namespace_id: 'ns_1' },
};
const value = (text: unknown) => {
  const { value: resolved, faults } = resolve(text, scope);
  expect(faults).toEqual([]);
  return resolved;
};
const faultTypes = (tree: unknown) => resolve(tree, scope).faults.map((fault) => fault.type);

describe('resolving', () => {
  it('keeps the type of a value when the string is exactly one template', () => {
    expect(value('{{INPUT.n}}')).toBe(3);
    expect(value('{{ INPUT.list }}')).toEqual([1, { a: 'x' }]);
    expect(value('{{INPUT.flag}}')).toBe(false);
    expect(value('{{INPUT.nothing}}')).toBeNull();
    expect(value(' {{INPUT.n}}')).toBe(' 3');
  });

  it('writes values into text: objects as JSON, null as nothing', () => {
    expect(value('a {{INPUT.query}}, {{INPUT.o}}, [{{INPUT.nothing}}] {{INPUT.n}}')).toBe(
      'a Quantum, {"k":"v"}, [] 3',
    );
  });

  it('takes the root in any case and paths with dots, positions and quoted names', () => {
    expect(value('{{input.list[1].a}}')).toBe('x');
    expect(value('{{Input.list.1.a}}')).toBe('x');
    expect(value(`{{INPUT["a-b"]}}{{INPUT['o'].k}}{{INPUT.a-b}}`)).toBe('dashvdash');
    expect(value('{{context.namespace_id}}')).toBe('ns_1');
  });

  it('applies the filters default, lower, upper, tojson and length', () => {
    expect(value('{{INPUT.absent | default("news")}}')).toBe('news');
    expect(value('{{INPUT.nothing|default(7)}}')).toBe(7);
    expect(value("{{INPUT.absent | default('it') | upper}}")).toBe('IT');
    expect(value('{{INPUT.query | default("x") | lower}}')).toBe('quantum');
    expect(value('{{INPUT.o | tojson}}')).toBe('{"k":"v"}');
    expect(value('{{INPUT.list | length}}')).toBe(2);
    expect(resolve('{{INPUT.q|length}}', { INPUT: { q: '😀a' } }).value).toBe(2);
    expect(value('{{INPUT.absent | default(null)}}')).toBeNull();
    expect(value('{{INPUT.absent | default("a\\"b")}}')).toBe('a"b');
  });

  it('never scans what a template yields', () => {
    const hostile = {
      INPUT: { q: '{{SECRET.key}} {% if %}', key: '{{INPUT.q}}' },
      SECRET: { key: 'hunter2' },
    };
    expect(resolve('{{INPUT.q}}', hostile).value).toBe('{{SECRET.key}} {% if %}');
    expect(resolve('<{{INPUT.key}}>', hostile).value).toBe('<{{INPUT.q}}>');
    expect(resolve({ a: ['{{INPUT.q}}'] }, hostile)).toEqual({
      value: { a: ['{{SECRET.key}} {% if %}'] },
      faults: [],
    });
  });

  it('reports a variable without a value, with the way to it, and treats a missing document field as null', () => {
    const { faults } = resolve({ a: [{ b: '{{INPUT.user.name}}' }] }, scope);
    expect(faults).toMatchObject([{ type: 'template_unknown_variable', path: ['a', 0, 'b'] }]);
    expect(faults[0]?.fix).toContain('inputs.user.name');
    expect(resolve('{{DOC.x}}', { DOC: {} })).toEqual({ value: null, faults: [] });
  });

  it('reports a filter on a value of the wrong type', () => {
    expect(faultTypes('{{INPUT.n | lower}}')).toEqual(['template_type']);
    expect(faultTypes('{{INPUT.n | length}}')).toEqual(['template_type']);
  });

  it('leaves other values and strings without braces as they are', () => {
    const tree = { a: [1, true, null, 'plain } text {'], b: { c: '' } };
    expect(value(tree)).toEqual(tree);
  });

  it('bounds what templates can yield, so that one long input cannot be multiplied', () => {
    const tree = Array.from({ length: 100 }, () => '{{INPUT.q}}{{INPUT.q}}');
    const { faults } = resolve(tree, { INPUT: { q: 'x'.repeat(30_000) } });
    expect(faults[0]?.type).toBe('template_too_large');
  });
});

describe('refusals', () => {
  const corpus: [string, string][] = [
    ['{{query}}', 'template_unknown_root'],
    ['{{inputs.query}}', 'template_unknown_root'],
    ['{{user.name}}', 'template_unknown_root'],
    ['{{INPUT}}', 'template_syntax'],
    ['{{INPUT.}}', 'template_syntax'],
    ['{{INPUT..x}}', 'template_syntax'],
    ['{{}}', 'template_syntax'],
    ['{{ }}', 'template_syntax'],
    ['{{INPUT.x', 'template_syntax'],
    ['{{{{INPUT.x}}}}', 'template_syntax'],
    ['{{INPUT.x | nope}}', 'template_unknown_filter'],
    ['{{INPUT.x | default}}', 'template_syntax'],
    ['{{INPUT.x | default()}}', 'template_syntax'],
    ['{{INPUT.x | default(INPUT.y)}}', 'template_syntax'],
    ['{{INPUT.x | default("a}}', 'template_syntax'],
    ['{{INPUT.x | lower("a")}}', 'template_syntax'],
    ['{{INPUT.x |}}', 'template_syntax'],
    ['{{INPUT.x + 1}}', 'template_syntax'],
    ['{{INPUT.x()}}', 'template_syntax'],
    ['{{INPUT[x]}}', 'template_syntax'],
    ['{{INPUT[0}}', 'template_syntax'],
    ['{{INPUT.x y}}', 'template_syntax'],
    ['{{INPUT.__proto__}}', 'template_forbidden'],
    ['{{INPUT.constructor.name}}', 'template_forbidden'],
    ['{{INPUT["prototype"]}}', 'template_forbidden'],
    ["{{INPUT['__proto__'].polluted}}", 'template_forbidden'],
    ['{{__proto__.x}}', 'template_unknown_root'],
    ['{{constructor.constructor("return 1")()}}', 'template_unknown_root'],
    ['{% for x in y %}', 'template_forbidden'],
    ['a {%', 'template_forbidden'],
    ['{{INPUT.x}} {% raw %}', 'template_forbidden'],
    ['{{7*7}}', 'template_unknown_root'],
    ['{{"a".x}}', 'template_syntax'],
    ['{{INPUT.x|default(1e999)}}', 'template_syntax'],
    [`{{INPUT.${'a'.repeat(2000)}}}`, 'template_syntax'],
  ];
  it.each(corpus)('refuses %s', (text, type) => {
    expect(checkTemplates({ text }).faults).toMatchObject([{ type, path: ['text'] }]);
    expect(resolve({ text }, scope).faults).toMatchObject([{ type, path: ['text'] }]);
  });

  it('says how to write what was probably meant', () => {
    expect(compileTemplate('{{query}}').faults[0]?.fix).toBe('write {{INPUT.query}}');
    expect(compileTemplate('{{inputs.query}}').faults[0]?.fix).toBe('write {{INPUT.query}}');
  });

  it('refuses reserved names as keys of a tree and never touches a prototype', () => {
    const tree = JSON.parse('{"a": {"__proto__": {"polluted": true}}}') as unknown;
    expect(checkTemplates(tree).faults).toMatchObject([
      { type: 'template_forbidden', path: ['a', '__proto__'] },
    ]);
    const { value: copy, faults } = resolve(tree, scope);
    expect(faults).toHaveLength(1);
    expect((copy as { a: { polluted?: boolean } }).a.polluted).toBeUndefined();
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it.each(['toString', 'hasOwnProperty', 'valueOf', 'length'])(
    'does not follow the inherited name %s',
    (name) => {
      expect(faultTypes(`{{INPUT.${name}}}`)).toEqual(['template_unknown_variable']);
      expect(faultTypes(`{{INPUT.list.${name}}}`)).toEqual(['template_unknown_variable']);
      expect(faultTypes(`{{INPUT.query.${name}}}`)).toEqual(['template_unknown_variable']);
    },
  );

  it('refuses roots that have no values in a place, and names those that have', () => {
    const { faults } = checkTemplates({ q: '{{DOC.x}}' }, ['INPUT', 'CONTEXT']);
    expect(faults).toMatchObject([{ type: 'template_root_not_here', path: ['q'] }]);
    expect(faults[0]?.message).toContain('INPUT, CONTEXT');
  });

  it('refuses trees that are too deep instead of overflowing the stack', () => {
    let tree: unknown = '{{INPUT.n}}';
    for (let depth = 0; depth < 5000; depth += 1) tree = [tree];
    expect(checkTemplates(tree).faults).toMatchObject([{ type: 'too_deep' }]);
    expect(faultTypes(tree)).toEqual(['too_deep']);
  });
});

describe('checking', () => {
  it('lists what is referenced, where, and whether a default covers it', () => {
    const { references, faults } = checkTemplates({
      a: '{{INPUT.q}} {{CONTEXT.z}}',
      b: ['{{INPUT.k | default(5)}}'],
    });
    expect(faults).toEqual([]);
    expect(references).toEqual([
      { root: 'INPUT', name: 'q', path: ['a'], has_default: false },
      { root: 'CONTEXT', name: 'z', path: ['a'], has_default: false },
      { root: 'INPUT', name: 'k', path: ['b', 0], has_default: true },
    ]);
  });

  it('knows strings that are exactly one template', () => {
    expect(isExactTemplate('{{INPUT.k}}')).toBe(true);
    for (const text of ['x{{INPUT.k}}', '{{INPUT.k}}{{INPUT.k}}', '{{INPUT}}', 'k', '{{INPUT.k}} ']) {
      expect(isExactTemplate(text)).toBe(false);
    }
  });
});
