// Groups by values against a naive reference, their names, and the ids that they keep.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ValueGroup } from '../../../functions/core/resources/clusters/value-groups.ts';
import {
  groupingValue,
  groupsMax,
  keepIds,
  ValueGroups,
  valueLabels,
} from '../../../functions/core/resources/clusters/value-groups.ts';

const scalar = fc.oneof(fc.constantFrom('a', 'b', ''), fc.integer({ min: 0, max: 2 }), fc.boolean());
const held = fc.oneof(
  scalar,
  fc.constant(null),
  fc.constant(undefined),
  fc.array(fc.oneof(scalar, fc.constant(null)), { maxLength: 3 }),
);

describe('groups by values', () => {
  it('hold the documents with equal values, and their parents hold those of their children', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 }).chain((width) =>
          fc.record({
            rows: fc.array(fc.array(held, { minLength: width, maxLength: width }), { maxLength: 30 }),
            width: fc.constant(width),
          }),
        ),
        fc.boolean(),
        fc.constantFrom('group' as const, 'skip' as const),
        ({ rows, width }, hierarchical, missing) => {
          const attributes = Array.from({ length: width }, (_, i) => `f${i}`);
          const groups = new ValueGroups({ attributes, hierarchical, missing });
          const places = rows.map((row) => groups.add(row));
          const values = rows.map((row) => row.map(groupingValue));
          const lacks = values.map((row) => row.includes(null));
          expect(groups.missing).toBe(lacks.filter(Boolean).length);
          for (const [i, place] of places.entries()) {
            if (missing === 'skip' && lacks[i]) {
              expect(place).toBe(-1);
              continue;
            }
            for (const [j, other] of places.entries()) {
              const same = JSON.stringify(values[i]) === JSON.stringify(values[j]);
              if (other >= 0) expect(place === other).toBe(same);
            }
            const group = groups.groups[place]!;
            expect(group).toMatchObject({ level: width - 1, values: values[i] });
            expect(group.members).toBe(places.filter((other) => other === place).length);
          }
          for (const [place, group] of groups.groups.entries()) {
            const children = groups.groups.filter((other) => other.parent === place);
            if (children.length > 0)
              expect(group.members).toBe(children.reduce((sum, child) => sum + child.members, 0));
            expect(group.parent === undefined).toBe(!hierarchical || group.level === 0);
          }
          const labels = valueLabels(groups.groups, attributes);
          expect(new Set(labels).size).toBe(labels.length);
        },
      ),
    );
  });

  it('take a list as a set, and the number 1 for another value than the text', () => {
    expect(groupingValue(['b', 'a', 'b', null])).toEqual(['a', 'b']);
    expect(groupingValue(['a'])).toBe('a');
    expect(groupingValue([])).toBeNull();
    const groups = new ValueGroups({ attributes: ['n'], hierarchical: false, missing: 'group' });
    for (const value of [1, '1', true, 'true', undefined, '']) groups.add([value]);
    expect(valueLabels(groups.groups, ['n'])).toEqual(['n: 1', '1', 'n: true', 'true', 'no n', 'empty n']);
  });

  it('are refused in words when there are too many to be an overview', () => {
    const groups = new ValueGroups({ attributes: ['id'], hierarchical: false, missing: 'group' });
    for (let i = 0; i < groupsMax; i++) groups.add([i]);
    expect(() => groups.add(['one more'])).toThrow(/more than 10000 different values of id/);
  });
});

describe('ids of groups', () => {
  const group = (key: string, members: number, parent?: number, level = 0): ValueGroup => ({
    key,
    values: [key],
    level,
    parent,
    members,
  });
  const noOverlap = () => Promise.reject(new Error('not asked'));
  const old = (cluster_id: string, key: string, parent_id?: string) => ({ cluster_id, key, parent_id });

  it('stay with equal values without a look at documents, and new ones get numbers never used', async () => {
    const kept = await keepIds(
      [group('b', 3), group('a', 2)],
      [old('cl_0', 'a'), old('cl_4', 'b')],
      7,
      noOverlap,
    );
    expect(kept).toEqual({ ids: ['cl_4', 'cl_0'], nextNumber: 7 });
    const more = await keepIds([group('b', 3), group('c', 2)], [old('cl_4', 'b')], 7, noOverlap);
    expect(more).toEqual({ ids: ['cl_4', 'cl_7'], nextNumber: 8 });
  });

  it('go with the documents where a value was renamed, if at least half of the smaller group is shared', async () => {
    const shared = (count: number) => async (wanted: ReadonlySet<number>, free: ReadonlySet<string>) => {
      expect([[...wanted], [...free]]).toEqual([[1], ['cl_1']]);
      return { shared: new Map([[1, new Map([['cl_1', count]])]]), oldSizes: new Map([['cl_1', 10]]) };
    };
    const before = [old('cl_0', 'a'), old('cl_1', 'sport')];
    const groups = [group('a', 9), group('sports', 8)];
    expect((await keepIds(groups, before, 2, shared(4))).ids).toEqual(['cl_0', 'cl_1']);
    expect((await keepIds(groups, before, 2, shared(3))).ids).toEqual(['cl_0', 'cl_2']);
  });

  it('a parent whose value was renamed keeps the id by its children', async () => {
    const groups = [group('sports', 8), group('sports/ball', 6, 0, 1), group('sports/run', 2, 0, 1)];
    const before = [
      old('cl_0', 'sport'),
      old('cl_1', 'sport/ball', 'cl_0'),
      old('cl_2', 'sport/run', 'cl_0'),
    ];
    const kept = await keepIds(groups, before, 3, async () => ({
      shared: new Map([
        [1, new Map([['cl_1', 6]])],
        [2, new Map([['cl_2', 2]])],
      ]),
      oldSizes: new Map([
        ['cl_1', 6],
        ['cl_2', 2],
      ]),
    }));
    expect(kept).toEqual({ ids: ['cl_0', 'cl_1', 'cl_2'], nextNumber: 3 });
  });

  it('are all different, whatever is shared', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.constantFrom<string>('a', 'b', 'c', 'd', 'e'), { minLength: 1 }),
        fc.uniqueArray(fc.constantFrom<string>('a', 'b', 'x', 'y'), { minLength: 1 }),
        fc.array(fc.tuple(fc.nat(4), fc.nat(3), fc.integer({ min: 1, max: 9 })), { maxLength: 10 }),
        async (keys, oldKeys, pairs) => {
          const groups = keys.map((key) => group(key, 5));
          const before = oldKeys.map((key, i) => old(`cl_${i}`, key));
          const { ids, nextNumber } = await keepIds(groups, before, before.length, async (wanted, free) => {
            const shared = new Map<number, Map<string, number>>();
            for (const [place, at, count] of pairs) {
              if (wanted.has(place) && free.has(`cl_${at}`))
                shared.set(place, (shared.get(place) ?? new Map()).set(`cl_${at}`, count));
            }
            return { shared, oldSizes: new Map([...free].map((id) => [id, 5])) };
          });
          expect(new Set(ids).size).toBe(keys.length);
          for (const [i, key] of keys.entries())
            if (oldKeys.includes(key)) expect(ids[i]).toBe(`cl_${oldKeys.indexOf(key)}`);
          expect(nextNumber).toBeGreaterThanOrEqual(before.length);
        },
      ),
    );
  });
});
