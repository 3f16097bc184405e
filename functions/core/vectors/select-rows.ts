// Filters over columns: a condition becomes one bitmap per segment, the same answer as reading every document.
import type { Condition } from '../conditions/condition.ts';
import { conditionKey, fields } from '../conditions/condition.ts';
import type { Scalar } from '../conditions/field.ts';
import { NumberSet } from '../conditions/number-set.ts';
import { BitmapCache } from './bitmap-cache.ts';
import {
  allBits,
  andInto,
  andNotInto,
  type Bits,
  clearBit,
  countBits,
  noBits,
  notInto,
  orInto,
  rowsOf,
  setBit,
} from './bits.ts';
import type { ValueTest } from './column-codec.ts';
import type { ColumnValue } from './columns.ts';
import type { Segment } from './open-segment.ts';
import type { Part, Snapshot } from './snapshot.ts';

/** What all filters of a process may keep; of a million rows one filter needs 125 kB for each feature. */
const cacheBytesMax = 32 * 2 ** 20;

/** Of (segment, filter), from its columns alone: holds for every version of the index that has the segment. */
const ofSegments = new BitmapCache<Segment, Bits>(cacheBytesMax / 2);
/** Of (snapshot, filter): live rows only, patches applied. */
const ofSnapshots = new BitmapCache<Snapshot, readonly Bits[]>(cacheBytesMax / 2);

const isNull: ValueTest = { numbers: NumberSet.none, test: (value) => value === null };

/**
 * The live rows that satisfy a condition: one bitmap per part of the snapshot. Do not change them; they are kept for
 * the next query with the same filter. A new version of the index costs one AND per segment that it shares with an
 * older one, and a look at the rows whose fields were patched.
 *
 * @throws VectorError segment_corrupt if a column cannot be opened
 */
export function selectRows(snapshot: Snapshot, filter: Condition | undefined): readonly Bits[] {
  if (filter === undefined) return snapshot.parts.map(({ live }) => live);
  return ofSnapshots.get(snapshot, conditionKey(filter), () => {
    const selected = new Selection(snapshot).of(filter);
    selected.forEach((bits, i) => {
      andInto(bits, snapshot.parts[i]!.live);
    });
    return selected;
  });
}

/** The live rows with these ids: one bitmap per part, the caller's own. Ids that no row has are left out. */
export function rowsWithIds(snapshot: Snapshot, ids: Iterable<string>): Bits[] {
  const bits = snapshot.parts.map(({ segment }) => noBits(segment.rows));
  addIds(snapshot, bits, ids);
  return bits;
}

/** Adds to `bits`, which are rows of `snapshot`, the rows that have the ids of selected rows of another snapshot. */
export function addRowsOf(
  snapshot: Snapshot,
  bits: readonly Bits[],
  other: Snapshot,
  selected: readonly Bits[],
): void {
  if (other === snapshot) {
    for (const [i, own] of selected.entries()) orInto(bits[i]!, own);
    return;
  }
  for (const [i, own] of selected.entries()) addIds(snapshot, bits, idsOf(other.parts[i]!, own));
}

function* idsOf({ segment }: Part, selected: Bits): Generator<string> {
  for (const local of rowsOf(selected)) yield segment.id(local);
}

function addIds(snapshot: Snapshot, bits: readonly Bits[], ids: Iterable<string>): void {
  const placeOf = new Map(snapshot.parts.map((part, i) => [part, i]));
  for (const id of ids) {
    const row = snapshot.rowOf(id);
    if (row === undefined) continue;
    const part = snapshot.partOf(row);
    setBit(bits[placeOf.get(part)!]!, row - part.firstRow);
  }
}

/** How many live rows satisfy a condition. */
export function count(snapshot: Snapshot, filter?: Condition): number {
  if (filter === undefined) return snapshot.liveCount;
  return selectRows(snapshot, filter).reduce((sum, bits) => sum + countBits(bits), 0);
}

/** The fields of a condition that no live document has, mostly typing mistakes: to be named in `warnings`. */
export function unknownFields(snapshot: Snapshot, filter: Condition): string[] {
  return unknownNames(snapshot, fields(filter));
}

/** Names that are in every list: over several snapshots a field is unknown only if none knows it. */
export function unknownToAll(lists: readonly (readonly string[])[]): string[] {
  const [first = [], ...others] = lists;
  return [...new Set(first)].filter((name) => others.every((list) => list.includes(name)));
}

/** Those of the canonical field names that no live document has, neither as a value nor as the parent of one. */
export function unknownNames(snapshot: Snapshot, names: readonly string[]): string[] {
  const known = snapshot.fields();
  return names.filter((name) => !known.has(name) && ![...known].some((field) => isBelow(field, name)));
}

function isBelow(name: string, field: string): boolean {
  return name.startsWith(field) && name[field.length] === '.';
}

const isWithin = (name: string, field: string) => name === field || isBelow(name, field);

/** Evaluates conditions over all parts of a snapshot. Bitmaps that it returns may be changed, dead rows are in them. */
class Selection {
  readonly #snapshot: Snapshot;
  readonly #patched: readonly string[];

  constructor(snapshot: Snapshot) {
    this.#snapshot = snapshot;
    this.#patched = [...snapshot.patches.keys()];
  }

  of(condition: Condition): Bits[] {
    // Where no patch touched a field of the condition, the columns decide, as they did for every version before.
    const read = fields(condition);
    if (!this.#patched.some((name) => read.some((field) => isWithin(name, field)))) {
      return this.#fromColumns(condition);
    }
    switch (condition.kind) {
      case 'all':
        return this.#combine(allBits, andInto, condition.nodes);
      case 'any':
        return this.#combine(noBits, orInto, condition.nodes);
      case 'none':
        return this.#combine(allBits, andNotInto, condition.nodes);
      case 'compare': {
        const bits = this.#fromColumns({ ...condition, operator: positive(condition), negated: false });
        const passes = remembering(condition.test);
        this.#overlay(bits, condition.field, (value) => anyElement(value, passes));
        return condition.negated ? this.#not(bits) : bits;
      }
      case 'presence': {
        const { field, operator } = condition;
        const present = this.#everyPart(noBits);
        const names = new Set([
          ...this.#snapshot.parts.flatMap(({ segment }) => segment.columnNames()),
          ...this.#patched,
        ]);
        for (const name of names) {
          if (!isWithin(name, field)) continue;
          const own = this.#snapshot.parts.map(({ segment }) => presentIn(segment, name));
          this.#overlay(own, name, (value) => value !== undefined);
          for (const [i, bits] of own.entries()) orInto(present[i]!, bits);
        }
        if (operator === 'exists') return condition.value ? present : this.#not(present);
        const bits = this.#not(present);
        const nulls = this.#snapshot.parts.map(({ segment }) => nullsIn(segment, field));
        this.#overlay(nulls, field, (value) => anyElement(value, isNull.test));
        for (const [i, own] of nulls.entries()) orInto(bits[i]!, own);
        return condition.value ? bits : this.#not(bits);
      }
    }
  }

  #everyPart(bits: (rows: number) => Bits): Bits[] {
    return this.#snapshot.parts.map(({ segment }) => bits(segment.rows));
  }

  #not(bits: Bits[]): Bits[] {
    return bits.map((own, i) => notInto(own, this.#snapshot.parts[i]!.segment.rows));
  }

  #combine(
    first: (rows: number) => Bits,
    into: (bits: Bits, other: Bits) => Bits,
    nodes: readonly Condition[],
  ): Bits[] {
    const bits = this.#everyPart(first);
    for (const node of nodes) for (const [i, own] of this.of(node).entries()) into(bits[i]!, own);
    return bits;
  }

  #fromColumns(condition: Condition): Bits[] {
    const key = conditionKey(condition);
    return this.#snapshot.parts.map(({ segment }) =>
      ofSegments.get(segment, key, () => evaluateColumns(segment, condition)).slice(),
    );
  }

  /** Puts the answers for patched rows of one column in the place of those that its segments gave. */
  #overlay(bits: Bits[], name: string, holds: (value: ColumnValue | undefined) => boolean): void {
    const { parts, patches } = this.#snapshot;
    const placeOf = new Map(parts.map((part, i) => [part, i]));
    for (const [row, value] of patches.get(name) ?? []) {
      const part = this.#snapshot.partOf(row);
      const own = bits[placeOf.get(part)!]!;
      if (holds(value)) setBit(own, row - part.firstRow);
      else clearBit(own, row - part.firstRow);
    }
  }
}

/** The operator that a negated one turns around: both share the bitmap of their columns. */
function positive({ operator, negated }: Condition & { kind: 'compare' }) {
  return negated ? (operator === 'ne' ? ('eq' as const) : ('in' as const)) : operator;
}

/** Patches mostly hold few distinct values, and a test of a text folds its case each time. */
function remembering(test: (value: Scalar) => boolean): (value: Scalar) => boolean {
  const known = new Map<Scalar, boolean>();
  return (value) => {
    const before = known.get(value);
    if (before !== undefined) return before;
    const passes = test(value);
    known.set(value, passes);
    return passes;
  };
}

function anyElement(value: ColumnValue | undefined, test: (value: Scalar) => boolean): boolean {
  if (value === undefined) return false;
  return typeof value === 'object' && value !== null ? value.some(test) : test(value);
}

/** The rows of a segment that have a column. */
function presentIn(segment: Segment, name: string): Bits {
  const column = segment.column(name);
  if (column === undefined) return noBits(segment.rows);
  return column.missing === undefined ? allBits(segment.rows) : notInto(column.missing.slice(), segment.rows);
}

function nullsIn(segment: Segment, name: string): Bits {
  return segment.column(name)?.select(isNull) ?? noBits(segment.rows);
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
      const bits = segment.column(condition.field)?.select(condition) ?? noBits(rows);
      return condition.negated ? notInto(bits, rows) : bits;
    }
    case 'presence': {
      const present = noBits(rows);
      for (const name of segment.columnNames()) {
        if (isWithin(name, condition.field)) orInto(present, presentIn(segment, name));
      }
      if (condition.operator === 'exists') return condition.value ? present : notInto(present, rows);
      const bits = orInto(notInto(present, rows), nullsIn(segment, condition.field));
      return condition.value ? bits : notInto(bits, rows);
    }
  }
}
