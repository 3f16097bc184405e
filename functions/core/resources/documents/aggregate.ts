// Groups of documents by the values of fields, with counts, sums, averages and extremes, from the columns of the index.
import type { Condition } from '../../conditions/index.ts';
import { allOf, evaluate, parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { invalid } from '../../errors.ts';
import { parseFilters } from '../../page.ts';
import { guarded } from '../../store/guarded.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import type { Group, MeasureFunction } from '../../vectors/aggregate.ts';
import { aggregate } from '../../vectors/aggregate.ts';
import { VectorError } from '../../vectors/errors.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import { compareScalars } from '../../vectors/value-order.ts';
import type { StoredCollection } from '../collections/service.ts';
import { readField, warnOfUnknown } from './filter.ts';

/** More groups than this are refused: they would fill the memory and nobody's page. */
const groupsMax = 100_000;
/** The results of an answer have this many bytes of JSON at most. */
const resultBytesMax = 4_000_000;

type Value = string | number | boolean | null;

export interface AggregateInput {
  readonly group_by: readonly { readonly field: string; readonly alias?: string | null | undefined }[];
  readonly aggregations: readonly {
    readonly function: MeasureFunction;
    readonly field?: string | null | undefined;
    readonly distinct_field?: string | null | undefined;
    readonly alias: string;
  }[];
  readonly filters?: unknown;
  readonly case_sensitive?: boolean | null | undefined;
  readonly having?:
    | readonly { readonly field: string; readonly operator: string; readonly value: unknown }[]
    | null
    | undefined;
  readonly sort_by?: string | null | undefined;
  readonly sort_direction: 'asc' | 'desc';
  readonly limit: number;
}

export interface AggregateReply {
  readonly results: { readonly group: Record<string, Value>; readonly metrics: Record<string, Value> }[];
  /** Groups that `having` lets through, whether they are shown or not. */
  readonly total_groups: number;
  readonly query_info: { readonly documents: number; readonly groups: number };
}

/**
 * Groups the documents that a filter lets through. The meaning of each function is that of `aggregate` in the engine.
 *
 * @throws AppError request_invalid, index_unavailable, index_corrupt
 */
export async function aggregateDocuments(
  ctx: NsCtx,
  collection: StoredCollection,
  input: AggregateInput,
): Promise<AggregateReply> {
  const filter = parseFilters(input.filters, input.case_sensitive);
  const fields = input.group_by.map(({ field }, i) => readField(field, ['group_by', i, 'field']));
  const measures = input.aggregations.map((one, i) => {
    const key = one.field == null && one.distinct_field != null ? 'distinct_field' : 'field';
    const field = one[key];
    return {
      function: one.function,
      ...(field == null ? {} : { field: readField(field, ['aggregations', i, key]) }),
    };
  });
  const groupNames = input.group_by.map(({ field, alias }) => alias ?? field);
  const names = input.aggregations.map(({ alias }) => alias);
  const having = readHaving(input, names);
  const order = readOrder(input, groupNames, names);
  const snapshot = await documentsSnapshot(ctx, collection.id);
  if (!snapshot) return { results: [], total_groups: 0, query_info: { documents: 0, groups: 0 } };
  const measured = measures.flatMap(({ field }) => field ?? []);
  const { groups, rows } = guarded(() => {
    warnOfUnknown(ctx, snapshot, filter, [...new Set([...fields, ...measured])]);
    return grouped(snapshot, { groupBy: fields, measures, filter, groupsMax });
  });
  const kept = groups.filter(
    (group) =>
      !having || evaluate(having, Object.fromEntries(names.map((name, i) => [name, group.measured[i]]))),
  );
  kept.sort(order);
  const results: AggregateReply['results'] = [];
  let bytes = 0;
  for (const { values, measured: numbers } of kept.slice(0, input.limit)) {
    const held = groupNames.flatMap((name, i): [string, Value][] => {
      const value = values[i];
      return value === undefined ? [] : [[name, value]];
    });
    const result = {
      group: Object.fromEntries(held),
      metrics: Object.fromEntries(names.map((name, i): [string, Value] => [name, numbers[i]!])),
    };
    bytes += Buffer.byteLength(JSON.stringify(result)) + 1;
    if (results.length > 0 && bytes > resultBytesMax) {
      ctx.warnings.push(`The answer shows ${results.length} groups: their values are too long for more.`);
      break;
    }
    results.push(result);
  }
  return { results, total_groups: kept.length, query_info: { documents: rows, groups: groups.length } };
}

function grouped(snapshot: Snapshot, request: Parameters<typeof aggregate>[1]): ReturnType<typeof aggregate> {
  try {
    return aggregate(snapshot, request);
  } catch (error) {
    if (!(error instanceof VectorError) || error.code !== 'query_invalid') throw error;
    throw invalid('request_invalid', [
      {
        type: 'too_many',
        location: ['body', 'group_by'],
        message: error.message,
        fix: 'group by a field with fewer values, or narrow the filter',
      },
    ]);
  }
}

/** The conditions on metrics, with the operators of filters. */
function readHaving(input: AggregateInput, names: readonly string[]): Condition | undefined {
  const faults: FieldFault[] = [];
  const conditions: Condition[] = [];
  for (const [i, { field, operator, value }] of (input.having ?? []).entries()) {
    const location = ['body', 'having', i];
    if (!names.includes(field)) {
      const message = `"${field.slice(0, 60)}" is not the alias of an aggregation; there are ${names.join(', ')}`;
      faults.push({ type: 'wrong_value', location: [...location, 'field'], message });
      continue;
    }
    const parsed = parseCondition({ field, operator, value });
    if (parsed.ok) conditions.push(parsed.condition);
    else {
      for (const { path, message, fix } of parsed.faults) {
        faults.push({
          type: 'filter_invalid',
          location: [...location, ...path],
          message,
          ...(fix === undefined ? {} : { fix }),
        });
      }
    }
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
  return conditions.length === 0 ? undefined : allOf(conditions);
}

/** By one group field or metric, groups without it last; ties by all group fields, ascending. */
function readOrder(
  input: AggregateInput,
  groupNames: readonly string[],
  names: readonly string[],
): (a: Group, b: Group) => number {
  const name = input.sort_by ?? names[0]!;
  const inGroup = groupNames.indexOf(name);
  const inMetrics = names.indexOf(name);
  if (inGroup < 0 && inMetrics < 0) {
    const message = `"${name.slice(0, 60)}" is neither a group field nor an aggregation; there are ${[...groupNames, ...names].join(', ')}`;
    throw invalid('request_invalid', [{ type: 'wrong_value', location: ['body', 'sort_by'], message }]);
  }
  const keyOf = (group: Group) => (inMetrics >= 0 ? group.measured[inMetrics] : group.values[inGroup]);
  const sign = input.sort_direction === 'asc' ? 1 : -1;
  return (a, b) => {
    const [left, right] = [keyOf(a), keyOf(b)];
    if ((left ?? null) === null || (right ?? null) === null) {
      const order = absence(left) - absence(right);
      if (order !== 0) return order;
    } else {
      const order = sign * compareScalars(left!, right!);
      if (order !== 0) return order;
    }
    for (let i = 0; i < groupNames.length; i += 1) {
      const [one, other] = [a.values[i], b.values[i]];
      const order =
        one === undefined || other === undefined ? absence(one) - absence(other) : compareScalars(one, other);
      if (order !== 0) return order;
    }
    return 0;
  };
}

/** Values first, null after them, what is missing last. */
const absence = (value: Value | undefined) => (value === undefined ? 2 : value === null ? 1 : 0);
