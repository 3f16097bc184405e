// Templates under random and hostile trees: safe, total, linear, and equal to a naive replacement.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkTemplates, compileTemplate, resolve } from '../../../functions/core/retrieval/template.ts';

/** Texts in which braces, roots and reserved names are frequent. */
const hostileText = fc
  .array(
    fc.constantFrom(
      '{{',
      '}}',
      '{',
      '}',
      '{%',
      'INPUT',
      '.',
      'x',
      '|',
      ' ',
      'default(',
      '"',
      "'",
      ')',
      '__proto__',
      '[',
      ']',
      '0',
      'é',
      '\\',
    ),
    { maxLength: 30 },
  )
  .map((parts) => parts.join(''));

describe('templates', () => {
  it('never throw, whatever the text, and either resolve or say why not', () => {
    fc.assert(
      fc.property(hostileText, fc.jsonValue(), (text, x) => {
        const { value, faults } = resolve({ text }, { INPUT: { x } });
        const checked = checkTemplates({ text });
        // What the check refuses is refused by a run, and what it accepts can only lack a value or a type.
        if (checked.faults.length > 0)
          expect(faults.map(({ type }) => type)).toEqual(checked.faults.map(({ type }) => type));
        else for (const { type } of faults) expect(type).toMatch(/^template_(unknown_variable|type)$/);
        if (!text.includes('{{') && !text.includes('{%')) expect(value).toEqual({ text });
      }),
      { numRuns: 500 },
    );
  });

  it('replace exactly as a naive split and join does', () => {
    const name = fc.constantFrom('a', 'b_1', 'long-name');
    const plain = fc.string({ maxLength: 12 }).filter((text) => !/[{}]/.test(text));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(plain, name), { maxLength: 8 }),
        plain,
        fc.string(),
        fc.integer(),
        (pairs, end, a, b) => {
          const inputs: Record<string, unknown> = { a, b_1: b, 'long-name': [a, { b }] };
          const text = pairs.map(([before, key]) => `${before}{{ input.${key} }}`).join('') + end;
          const written = (key: string) =>
            typeof inputs[key] === 'object' ? JSON.stringify(inputs[key]) : String(inputs[key]);
          const exact = pairs.length === 1 && pairs[0]![0] === '' && end === '';
          const expected = exact
            ? inputs[pairs[0]![1]]
            : pairs.map(([before, key]) => before + written(key)).join('') + end;
          expect(resolve(text, { INPUT: inputs })).toEqual({ value: expected, faults: [] });
        },
      ),
      { numRuns: 300 },
    );
  });

  it('give a value back unchanged and unscanned, of any type', () => {
    fc.assert(
      fc.property(fc.oneof(fc.jsonValue(), hostileText), (x) => {
        const { value, faults } = resolve(['{{INPUT.x}}'], { INPUT: { x } });
        expect(faults).toEqual([]);
        expect((value as unknown[])[0]).toBe(x);
      }),
      { numRuns: 300 },
    );
  });

  it('copy trees without templates, and share nothing mutable with the original', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (tree) => {
        const text = JSON.stringify(tree);
        fc.pre(
          !/\{\{|\{%|__proto__|constructor|prototype/.test(JSON.stringify(tree)) && !text.includes('{{'),
        );
        const { value, faults } = resolve(tree, {});
        expect(faults).toEqual([]);
        expect(value).toEqual(tree);
        if (typeof tree === 'object' && tree !== null) expect(value).not.toBe(tree);
      }),
      { numRuns: 200 },
    );
  });

  it('reach own properties only, however the path is made', () => {
    const inherited = [
      'toString',
      'valueOf',
      'hasOwnProperty',
      'length',
      'map',
      '__defineGetter__',
      'isPrototypeOf',
    ];
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...inherited, 'x', '0'), { minLength: 1, maxLength: 4 }),
        (steps) => {
          const scope = { INPUT: { x: ['y'] } };
          const { value } = resolve(`{{INPUT.${steps.join('.')}}}`, scope);
          expect(typeof value).not.toBe('function');
          expect(typeof value).not.toBe('number');
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('the scanner is linear', () => {
  // Characters looked at, counted by a string whose searches are counted, instead of a clock.
  const visited = (text: string): number => {
    let count = 0;
    const original = { indexOf: String.prototype.indexOf, slice: String.prototype.slice };
    String.prototype.indexOf = function indexOf(this: string, needle: string, from = 0) {
      const at = original.indexOf.call(this, needle, from);
      if (String(this).length === text.length) count += (at < 0 ? text.length : at) - from + 1;
      return at;
    };
    String.prototype.slice = function slice(this: string, start?: number, end?: number) {
      const part = original.slice.call(this, start, end);
      if (String(this).length === text.length) count += part.length;
      return part;
    };
    try {
      compileTemplate(text);
    } finally {
      String.prototype.indexOf = original.indexOf;
      String.prototype.slice = original.slice;
    }
    return count;
  };

  it.each([
    ['opening braces', '{{'],
    ['opening and closing braces', '{{}}'],
    ['spaces inside', '{{ '],
    ['unclosed expressions', '{{INPUT.x '],
    ['closed expressions', '{{INPUT.x}}'],
    ['single braces', '{ '],
    ['closing braces', '}}'],
    ['filters', '{{INPUT.x|lower|'],
    ['quotes', '{{INPUT.x|default("'],
  ])('100 kB of %s cost a small multiple of their length', (_name, unit) => {
    const text = unit.repeat(Math.ceil(100_000 / unit.length));
    expect(visited(text)).toBeLessThanOrEqual(5 * text.length + 1000);
    expect(visited(`${text}}}`)).toBeLessThanOrEqual(5 * text.length + 1000);
  });
});
