// Groups of rows by the values of fields, with counts, sums, averages and extremes of other fields.
import type { Condition } from '../conditions/condition.ts';
import { canonicalField, type Scalar } from '../conditions/field.ts';
import { countBits, rowsOf } from './bits.ts';
import { distinctOf } from './column-codec.ts';
import type { ColumnValue } from './columns.ts';
import { VectorError } from './errors.ts';
import { ExactSum } from './exact-sum.ts';
import { selectRows } from './select-rows.ts';
import type { Part, Snapshot } from './snapshot.ts';
import { compareScalars } from './value-order.ts';

export const measureFunctions = ['count', 'count_distinct', 'sum', 'avg', 'min', 'max'] as const;
export type MeasureFunction = (typeof measureFunctions)[number];

/** One number, or for `min` and `max` one value, of each group. */
export interface Measure {
  readonly function: MeasureFunction;
  /** Required but for `count`, which without one counts rows. */
  readonly field?: string | undefined;
}

export interface AggregateRequest {
  /** Fields, one to five; their values together name a group. */
  readonly groupBy: readonly string[];
  readonly measures: readonly Measure[];
  readonly filter?: Condition | undefined;
  /** More groups are refused. */
  readonly groupsMax: number;
}

export interface Group {
  /** By field of `groupBy`; undefined where the rows do not have it. */
  readonly values: readonly (Scalar | undefined)[];
  /** In the order of the request; null where a group has nothing to take it from. */
  readonly measured: readonly Scalar[];
}

/**
 * Every group of the rows that a filter lets through, patches applied, in no particular order.
 *
 * A row whose group field holds a list is in the group of each of its distinct elements, in none for an empty list.
 * `count` of a field counts rows that have a value other than null; `count_distinct` leaves null out. Of a list field
 * every element enters a sum, an average, an extreme. `sum` and `avg` take numbers only, `min` and `max` compare as
 * lists sort: numbers, then texts, then booleans. Sums are exact, rounded once, whatever the order of rows. A sum of nothing is 0, the rest of nothing null, as is a sum that no
 * float64 holds.
 *
 * @throws VectorError query_invalid for more than `groupsMax` groups, or 20 million places in groups; segment_corrupt
 */
export function aggregate(
  snapshot: Snapshot,
  request: AggregateRequest,
): { readonly groups: Group[]; readonly rows: number } {
  const selected = selectRows(snapshot, request.filter);
  const groups = new Groups(request);
  const fields = request.groupBy.map(canonicalField);
  const measured = request.measures.map(({ field }) =>
    field === undefined ? undefined : canonicalField(field),
  );
  for (const [i, part] of snapshot.parts.entries()) {
    const keys = fields.map((field) => reader(snapshot, part, field));
    const inputs = measured.map((field) => (field === undefined ? undefined : reader(snapshot, part, field)));
    for (const local of rowsOf(selected[i]!)) {
      const values = inputs.map((read) => read?.(local));
      groups.add(
        keys.map((read) => read(local)),
        values,
      );
    }
  }
  return { groups: groups.all(), rows: selected.reduce((sum, bits) => sum + countBits(bits), 0) };
}

/** Reads one column of one part, patches applied, without looking its name up for each row. */
function reader(
  snapshot: Snapshot,
  { segment, firstRow }: Part,
  name: string,
): (local: number) => ColumnValue | undefined {
  const column = segment.column(name);
  const patched = snapshot.patches.get(name);
  return (local) => (patched?.has(firstRow + local) ? patched.get(firstRow + local) : column?.at(local));
}

/** Rows times the groups that they are in: lists in several group fields multiply. */
const membershipsMax = 20_000_000;

/** Numbers of distinct things in the order in which they came. Small enough that two make one exact number. */
const numbersMax = 2 ** 26;

class Groups {
  readonly #request: AggregateRequest;
  /** By group field: the number of each value; undefined (a missing field) is one. */
  readonly #valueNumbers: Map<Scalar | undefined, number>[];
  /** By group field after the first: number of the group so far and of the value -> number of the group with it. */
  readonly #pairs: Map<number, number>[];
  readonly #groups: { readonly values: readonly (Scalar | undefined)[]; readonly gathered: Gathered[] }[] =
    [];
  readonly #groupOf = new Map<number, number>();
  #memberships = 0;

  constructor(request: AggregateRequest) {
    this.#request = request;
    this.#valueNumbers = request.groupBy.map(() => new Map());
    this.#pairs = request.groupBy.map(() => new Map());
  }

  add(keys: readonly (ColumnValue | undefined)[], inputs: readonly (ColumnValue | undefined)[]): void {
    const chosen: (Scalar | undefined)[] = [];
    const visit = (at: number, path: number): void => {
      const key = keys[at];
      for (const value of key === undefined ? [undefined] : distinctOf(key)) {
        chosen[at] = value;
        const next = this.#step(at, path, value);
        if (at + 1 < keys.length) visit(at + 1, next);
        else this.#gather(next, chosen, inputs);
      }
    };
    visit(0, 0);
  }

  #step(at: number, path: number, value: Scalar | undefined): number {
    const numbers = this.#valueNumbers[at]!;
    let number = numbers.get(value);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(value, number);
    }
    if (at === 0) return number;
    const pairs = this.#pairs[at]!;
    const pair = path * numbersMax + number;
    let next = pairs.get(pair);
    if (next === undefined) {
      next = pairs.size;
      pairs.set(pair, next);
    }
    return next;
  }

  #gather(
    path: number,
    chosen: readonly (Scalar | undefined)[],
    inputs: readonly (ColumnValue | undefined)[],
  ): void {
    const { measures, groupsMax } = this.#request;
    this.#memberships += 1;
    if (this.#memberships > membershipsMax) {
      const message = `The lists of the group fields put the documents into groups more than ${membershipsMax} times.`;
      throw new VectorError('query_invalid', message);
    }
    let at = this.#groupOf.get(path);
    if (at === undefined) {
      if (this.#groups.length >= groupsMax) {
        throw new VectorError('query_invalid', `There are more than ${groupsMax} groups.`);
      }
      at = this.#groups.length;
      this.#groupOf.set(path, at);
      this.#groups.push({ values: [...chosen], gathered: measures.map((measure) => gatherer(measure)) });
    }
    const { gathered } = this.#groups[at]!;
    for (const [i, each] of gathered.entries()) each.take(inputs[i]);
  }

  all(): Group[] {
    return this.#groups.map(({ values, gathered }) => ({
      values,
      measured: gathered.map((each) => each.result()),
    }));
  }
}

interface Gathered {
  /** @param value of one row; undefined where the row does not have it, or the measure has no field */
  take(value: ColumnValue | undefined): void;
  result(): Scalar;
}

function elementsOf(value: ColumnValue | undefined): readonly Scalar[] {
  if (value === undefined) return [];
  return typeof value === 'object' && value !== null ? value : [value];
}

function gatherer(measure: Measure): Gathered {
  switch (measure.function) {
    case 'count': {
      let rows = 0;
      const everyRow = measure.field === undefined;
      return {
        take: (value) => {
          if (everyRow || elementsOf(value).some((element) => element !== null)) rows += 1;
        },
        result: () => rows,
      };
    }
    case 'count_distinct': {
      const values = new Set<Scalar>();
      return {
        take: (value) => {
          for (const element of elementsOf(value)) if (element !== null) values.add(element);
        },
        result: () => values.size,
      };
    }
    case 'sum':
    case 'avg': {
      const sum = new ExactSum();
      let numbers = 0;
      return {
        take: (value) => {
          for (const element of elementsOf(value)) {
            if (typeof element !== 'number') continue;
            sum.add(element);
            numbers += 1;
          }
        },
        result: () => {
          const total = sum.value();
          if (total === undefined || (measure.function === 'avg' && numbers === 0)) return null;
          return measure.function === 'sum' ? total : total / numbers;
        },
      };
    }
    case 'min':
    case 'max': {
      const sign = measure.function === 'min' ? 1 : -1;
      let best: Scalar = null;
      return {
        take: (value) => {
          for (const element of elementsOf(value)) {
            if (element === null) continue;
            if (best === null || sign * compareScalars(element, best) < 0) best = element;
          }
        },
        result: () => best,
      };
    }
  }
}
