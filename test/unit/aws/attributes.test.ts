// Values of rows to DynamoDB's attributes and back: nothing is lost, and nothing that a user sends makes it throw.
import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import { marshall } from '@aws-sdk/util-dynamodb';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  fromAttribute,
  fromAttributes,
  rowOfImage,
  toAttribute,
  toAttributes,
} from '../../../functions/core/aws/attributes.ts';
import type { Attribute } from '../../../functions/core/store/table.ts';

describe('attributes', () => {
  it('bring back every JSON value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
        // JSON has no -0 on its way in: numbers keep their value, not that sign.
        expect(JSON.stringify(fromAttribute(toAttribute(value as Attribute)))).toBe(JSON.stringify(value));
      }),
      { numRuns: 500 },
    );
  });

  it('are those of the SDK wherever the SDK has some', () => {
    const safe = fc
      .jsonValue({ maxDepth: 3, stringUnit: 'grapheme' })
      .filter(
        (value) =>
          !/\d(e\+|\d{15})/.test(JSON.stringify(value)) &&
          !/e-1[3-9]\d|e-[23]\d\d/.test(JSON.stringify(value)) &&
          !JSON.stringify(value).includes('__proto__'),
      );
    fc.assert(
      fc.property(safe, (value) => {
        expect(toAttributes({ value: value as Attribute })).toEqual(
          JSON.parse(JSON.stringify(marshall({ value }))),
        );
      }),
    );
  });

  it.each([
    2 ** 53 + 2,
    -1e21,
    1e125,
    9.9e125,
    1e126,
    -1.7976931348623157e308,
    1e-130,
    1e-131,
    5e-324,
    0.1 + 0.2,
    Number.POSITIVE_INFINITY,
    Number.NaN,
  ])('keep the number %d', (number) => {
    expect(fromAttribute(toAttribute(number))).toBe(number);
  });

  it('write numbers that the service takes as numbers, others as a set of one text', () => {
    expect([toAttribute(1e21), toAttribute(-0), toAttribute(1e200), toAttribute(1e-200)]).toEqual([
      { N: '1e+21' },
      { N: '0' },
      { SS: ['1e+200'] },
      { SS: ['1e-200'] },
    ]);
  });

  it('keep bytes, and leave out what is undefined', () => {
    const bytes = Uint8Array.of(0, 255);
    expect(
      fromAttributes(toAttributes({ bytes, gone: undefined, deep: { gone: undefined, kept: null } })),
    ).toEqual({ bytes, deep: { kept: null } });
  });

  it('make own properties of every name', () => {
    const hostile = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2}') as Record<
      string,
      Attribute
    >;
    const back = fromAttributes(toAttributes(hostile));
    expect(Object.keys(back)).toEqual(['__proto__', 'constructor']);
    expect(Object.getPrototypeOf(back)).toBe(Object.prototype);
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  it.each([new Date(), new Map(), new Set(['x']), () => 1, Symbol('x'), 10n])('refuse %s', (value) => {
    expect(() => toAttribute(value as never)).toThrow(TypeError);
  });

  it('refuse a type that is never written', () => {
    expect(() => fromAttribute({ NS: ['1'] } as AttributeValue)).toThrow(/not ours/);
    expect(() => fromAttribute({ SS: ['1', '2'] } as AttributeValue)).toThrow(/not ours/);
  });

  it('read a row as the stream brings it', () => {
    expect(rowOfImage({ pk: { S: 'OUTBOX#1' }, sk: { S: 'x' }, n: { N: '3' } })).toEqual({
      pk: 'OUTBOX#1',
      sk: 'x',
      n: 3,
    });
  });
});
