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
        // The default of this one is above the least that the largest cluster may be.
        const beside = parameter === 'max_cluster_size' ? { min_cluster_size: 2 } : {};
        const faults = (value: unknown) => algorithmFaults(name, { ...beside, [parameter]: value }, at);
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

  it('are refused with a largest cluster that is smaller than the smallest, which no cluster could be', () => {
    expect(algorithmFaults('hdbscan', { min_cluster_size: 10, max_cluster_size: 5 }, at)).toEqual([
      {
        type: 'parameter_wrong',
        location: [...at.params, 'max_cluster_size'],
        message: 'max_cluster_size must be at least min_cluster_size, 10, got 5',
        fix: 'raise it, lower min_cluster_size, or leave it out',
      },
    ]);
    // What is left out counts by its default.
    expect(algorithmFaults('hdbscan', { max_cluster_size: 4 }, at)).toHaveLength(1);
    expect(algorithmFaults('hdbscan', { max_cluster_size: 5 }, at)).toEqual([]);
    expect(algorithmFaults('hdbscan', { min_cluster_size: 10, max_cluster_size: 10 }, at)).toEqual([]);
    expect(algorithmFaults('hdbscan', { min_cluster_size: 10, max_cluster_size: null }, at)).toEqual([]);
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
