// The API's list of algorithms and parameters: equal to the clusterer's, and what it says about wrong ones.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  algorithmFaults,
  algorithmNames,
  algorithmParameters,
  wanted,
} from '../../../functions/core/resources/clusters/algorithms.ts';

const at = { name: ['body', 'algorithm', 'name'], params: ['body', 'algorithm', 'params'] };

describe('algorithms', () => {
  it('are those that the clusterer has, with the same parameters, ranges and defaults', () => {
    const theirs = JSON.parse(
      readFileSync(
        new URL('../../../functions/clusterer/algorithms/parameters.json', import.meta.url),
        'utf8',
      ),
    );
    expect(algorithmParameters).toEqual(theirs);
  });

  it('take every default, and refuse each parameter one step outside its range with the range', () => {
    for (const name of algorithmNames) {
      for (const [parameter, rule] of Object.entries(algorithmParameters[name]!)) {
        const faults = (value: unknown) => algorithmFaults(name, { [parameter]: value }, at);
        expect(faults(rule.default)).toEqual([]);
        const wrong: unknown[] = ['no such value', [], {}];
        if (rule.type === 'integer' || rule.type === 'number') {
          const { minimum, maximum, exclusive_minimum: above } = rule;
          if (minimum !== undefined) expect(faults(minimum)).toEqual([]);
          if (maximum !== undefined) expect(faults(maximum)).toEqual([]);
          wrong.push(
            minimum === undefined ? above : minimum - 1,
            maximum === undefined ? undefined : maximum + 1,
            Number.NaN,
          );
          if (rule.type === 'integer') wrong.push(2.5);
          if (!rule.nullable) wrong.push(null);
        }
        for (const value of wrong.filter((one) => one !== undefined)) {
          expect([parameter, value, faults(value)]).toEqual([
            parameter,
            value,
            [
              expect.objectContaining({
                type: 'parameter_wrong',
                location: [...at.params, parameter],
                message: expect.stringContaining(wanted(rule)),
              }),
            ],
          ]);
        }
      }
    }
  });

  it('are refused by any other name, own properties of objects included, with the list', () => {
    for (const name of ['leiden', 'constructor', '__proto__', 'HDBSCAN', '']) {
      expect(algorithmFaults(name, {}, at)).toEqual([
        expect.objectContaining({
          type: 'algorithm_unknown',
          location: at.name,
          fix: `one of: ${[...algorithmNames, 'attribute_based'].join(', ')}`,
        }),
      ]);
    }
    expect(algorithmFaults('kmeans', { constructor: 1, toString: 2 }, at).map((fault) => fault.type)).toEqual(
      ['parameter_unknown', 'parameter_unknown'],
    );
  });

  it('name the parameter that is meant where it is known', () => {
    expect(algorithmFaults('kmeans', { k: 3 }, at)[0]!.fix).toBe('write "n_clusters"');
    expect(algorithmFaults('hdbscan', { k: 3 }, at)[0]!.fix).toContain('min_cluster_size');
  });

  it('find a fault for each wrong parameter and never throw', () => {
    fc.assert(
      fc.property(fc.string(), fc.dictionary(fc.string(), fc.jsonValue()), (name, params) => {
        for (const algorithm of [name, ...algorithmNames]) {
          for (const fault of algorithmFaults(algorithm, params, at))
            expect(fault.message.length).toBeLessThan(400);
        }
      }),
    );
  });
});
