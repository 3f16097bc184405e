// Filters over columns: a condition becomes one bitmap per segment, the same answer as reading every document.
import type { Condition } from '../conditions/condition.ts';
import { conditionKey, fields } from '../conditions/condition.ts';
import { matches } from '../conditions/evaluate.ts';
import {
  allBits,
  andInto,
  andNotInto,
  type Bits,
  clearBit,
  countBits,
  hasBit,
  noBits,
  notInto,
  orInto,
  setBit,
} from './bits.ts';
import type { Segment } from './open-segment.ts';
import type { Part, Snapshot } from './snapshot.ts';

/** Filters whose bitmaps are kept per snapshot. */
const keptMax = 32;

const kept = new WeakMap<Snapshot, Map<string, readonly Bits[]>>();

/**
 * The live rows that satisfy a condition: one bitmap per part of the snapshot. Do not change them; they are kept for
 * the next query with the same filter.
 *
 * @throws VectorError segment_corrupt if a column cannot be opened
 */
export function selectRows(snapshot: Snapshot, filter: Condition | undefined): readonly Bits[] {
  if (filter === undefined) return snapshot.parts.map(({ live }) => live);
  const cache = kept.get(snapshot) ?? new Map<string, readonly Bits[]>();
  kept.set(snapshot, cache);
  const key = conditionKey(filter);
  const known = cache.get(key);
  if (known !== undefined) {
    // Last used goes to the end of the map, first used is dropped first.
    cache.delete(key);
    cache.set(key, known);
    return known;
  }
  const patched = patchedRows(snapshot, filter);
  const selected = snapshot.parts.map((part) => selectPart(snapshot, part, filter, patched));
  cache.set(key, selected);
  if (cache.size > keptMax) cache.delete(cache.keys().next().value!);
  return selected;
}

/** How many live rows satisfy a condition. */
export function count(snapshot: Snapshot, filter?: Condition): number {
  if (filter === undefined) return snapshot.liveCount;
  return selectRows(snapshot, filter).reduce((sum, bits) => sum + countBits(bits), 0);
}

/** The fields of a condition that no live document has, mostly typing mistakes: to be named in `warnings`. */
export function unknownFields(snapshot: Snapshot, filter: Condition): string[] {
  const known = [...snapshot.fields()];
  return fields(filter).filter(
    (field) => !known.some((name) => name === field || name.startsWith(`${field}.`)),
  );
}

function selectPart(snapshot: Snapshot, part: Part, filter: Condition, patched: ReadonlySet<number>): Bits {
  const { segment, live, firstRow } = part;
  const bits = andInto(evaluateColumns(segment, filter), live);
  for (const row of patched) {
    const local = row - firstRow;
    if (local < 0 || local >= segment.rows || !hasBit(live, local)) continue;
    if (matches(filter, snapshot.readerAt(row))) setBit(bits, local);
    else clearBit(bits, local);
  }
  return bits;
}

/** Rows of the snapshot where a patch touched a field that the filter reads: their columns alone do not decide. */
function patchedRows(snapshot: Snapshot, filter: Condition): Set<number> {
  const rows = new Set<number>();
  if (snapshot.patches.size === 0) return rows;
  const read = fields(filter);
  for (const [name, patched] of snapshot.patches) {
    if (!read.some((field) => name === field || name.startsWith(`${field}.`))) continue;
    for (const row of patched.keys()) rows.add(row);
  }
  return rows;
}

/** A bitmap of the rows of a segment, dead ones included. The caller may change it. */
function evaluateColumns(segment: Segment, condition: Condition): Bits {
  const { rows } = segment;
  switch (condition.kind) {
    case 'all': {
      const bits = allBits(rows);
      for (const node of condition.nodes) andInto(bits, evaluateColumns(segment, node));
      return bits;
    }
    case 'any': {
      const bits = noBits(rows);
      for (const node of condition.nodes) orInto(bits, evaluateColumns(segment, node));
      return bits;
    }
    case 'none': {
      const bits = allBits(rows);
      for (const node of condition.nodes) andNotInto(bits, evaluateColumns(segment, node));
      return bits;
    }
    case 'compare': {
      const bits = segment.column(condition.field)?.select(condition.test) ?? noBits(rows);
      return condition.negated ? notInto(bits, rows) : bits;
    }
    case 'presence': {
      const present = noBits(rows);
      const prefix = `${condition.field}.`;
      for (const name of segment.columnNames()) {
        if (name !== condition.field && !name.startsWith(prefix)) continue;
        const { missing } = segment.column(name)!;
        orInto(present, missing === undefined ? allBits(rows) : notInto(missing.slice(), rows));
      }
      if (condition.operator === 'exists') return condition.value ? present : notInto(present, rows);
      const bits = notInto(present, rows);
      const nulls = segment.column(condition.field)?.select((value) => value === null);
      if (nulls !== undefined) orInto(bits, nulls);
      return condition.value ? bits : notInto(bits, rows);
    }
  }
}
