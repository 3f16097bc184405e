// One version of one feature, ready to be searched: which rows live, and what patches have made of their columns.
import type { FieldReader } from '../conditions/evaluate.ts';
import { allBits, andNotInto, type Bits, clearBit, countBits, hasBit, intersects, rowsOf } from './bits.ts';
import type { ColumnValue } from './columns.ts';
import { VectorError } from './errors.ts';
import { hashId } from './id-hash.ts';
import type { FeatureManifest } from './manifest.ts';
import type { Segment } from './open-segment.ts';
import type { VectorStorage } from './segment-format.ts';
import type { Metric } from './vector.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/** Vectors that a pass over all rows copies at once. */
const vectorBytesAtOnce = 4 * 2 ** 20;

/** The rows of one data segment inside a snapshot. */
export interface Part {
  readonly segment: Segment;
  /** Rows that nothing newer has replaced or deleted. */
  readonly live: Bits;
  /** Number of its first row in the snapshot: a row of the snapshot is `firstRow` plus the row in the segment. */
  readonly firstRow: number;
  readonly baseSeq: number;
}

/** One live row with everything that is known about it, as a compaction writes it. */
export interface LiveRow {
  readonly id: string;
  /** Without padding; undefined in a feature without vectors. */
  readonly vector: Float32Array | undefined;
  /** Patches applied. */
  readonly columns: Map<string, ColumnValue>;
  /** Absolute: of the row itself or of the last patch applied to it. */
  readonly seq: number;
}

/**
 * Resolves a feature of a manifest: of each id the row with the highest sequence number lives, unless a deletion is
 * newer; column patches newer than the row are laid over it, in order.
 *
 * Costs one pass over the id hashes. Keep the result by (manifest key, feature): it never changes.
 *
 * @param segments open segments by key; more than the feature names do no harm
 * @param dead dead-row lists by their key: those that the feature names
 * @throws VectorError segment_missing, segment_mismatch
 */
export function openSnapshot(
  feature: FeatureManifest,
  segments: ReadonlyMap<string, Segment>,
  dead: ReadonlyMap<string, Bits> = new Map(),
): Snapshot {
  const opened = feature.segments.map((ref) => {
    const segment = segments.get(ref.key);
    if (segment === undefined) {
      throw new VectorError(
        'segment_missing',
        'The manifest names this segment, but it was not loaded.',
        ref.key,
      );
    }
    const { kind, dim, rows, metric } = segment.header;
    if (
      kind !== ref.kind ||
      rows !== ref.rows ||
      (kind === 'data' && (dim !== feature.dims || metric !== feature.metric))
    ) {
      throw new VectorError(
        'segment_mismatch',
        'This is another segment than the manifest describes.',
        ref.key,
      );
    }
    const list = ref.dead && dead.get(ref.dead.key);
    if (ref.dead !== undefined && list === undefined) {
      throw new VectorError(
        'segment_missing',
        'The manifest names this dead-row list, but it was not loaded.',
        ref.dead.key,
      );
    }
    return { segment, baseSeq: ref.base_seq, dead: list };
  });

  const parts: Part[] = [];
  let total = 0;
  for (const { segment, baseSeq, dead: list } of opened) {
    if (segment.header.kind !== 'data') continue;
    const live = allBits(segment.rows);
    if (list !== undefined) andNotInto(live, list);
    parts.push({ segment, live, firstRow: total, baseSeq });
    total += segment.rows;
  }
  const index = new IdIndex(parts, total);
  for (const { segment, baseSeq } of opened) {
    for (const { id, seq } of segment.tombs) {
      const row = index.find(id);
      if (row === undefined) continue;
      const part = partOf(parts, row);
      if (baseSeq + seq > part.baseSeq + part.segment.seq(row - part.firstRow))
        clearBit(part.live, row - part.firstRow);
    }
  }
  return new Snapshot(feature, parts, index, opened);
}

/** One version of one feature. Immutable. */
export class Snapshot {
  /** 0 for a feature without vectors. */
  readonly dims: number;
  readonly metric: Metric | null;
  readonly parts: readonly Part[];
  /** How many rows live. */
  readonly liveCount: number;
  /** By column, then by row of the snapshot: values that patches set, undefined where they took the column away. */
  readonly patches: ReadonlyMap<string, ReadonlyMap<number, ColumnValue | undefined>>;
  readonly #patchSeqs: ReadonlyMap<number, number>;
  readonly #index: IdIndex;
  readonly #liveRows: (Uint32Array | undefined)[];
  #fields: ReadonlySet<string> | undefined;

  /** Use `openSnapshot`. */
  constructor(
    feature: FeatureManifest,
    parts: readonly Part[],
    index: IdIndex,
    segments: readonly { readonly segment: Segment; readonly baseSeq: number }[],
  ) {
    this.dims = feature.dims;
    this.metric = feature.metric;
    this.parts = parts;
    this.#index = index;
    this.liveCount = parts.reduce((sum, { live }) => sum + countBits(live), 0);
    this.#liveRows = new Array<Uint32Array | undefined>(parts.length);
    [this.patches, this.#patchSeqs] = this.#resolvePatches(segments);
  }

  /** How vectors are stored: rounded only if all segments are. */
  get storage(): VectorStorage {
    const rounded =
      this.parts.length > 0 && this.parts.every(({ segment }) => segment.header.dtype === 'bf16');
    return rounded ? 'bf16' : 'f32';
  }

  /** The part that holds a row of the snapshot. */
  partOf(row: number): Part {
    return partOf(this.parts, row);
  }

  idOf(row: number): string {
    const part = this.partOf(row);
    return part.segment.id(row - part.firstRow);
  }

  /** The live row of an id, undefined if there is none. */
  rowOf(id: string): number | undefined {
    const row = this.#index.find(id);
    if (row === undefined) return undefined;
    const part = this.partOf(row);
    return hasBit(part.live, row - part.firstRow) ? row : undefined;
  }

  /** Live rows of the i-th part, as rows of its segment, ascending. */
  liveRowsOf(i: number): Uint32Array {
    const rows = this.#liveRows[i] ?? rowsOf(this.parts[i]!.live);
    this.#liveRows[i] = rows;
    return rows;
  }

  /** Live rows of the i-th part that patches change, as rows of its segment, ascending. */
  patchedRowsOf(i: number): Uint32Array {
    const { firstRow } = this.parts[i]!;
    if (this.#patchSeqs.size === 0) return new Uint32Array(0);
    return this.liveRowsOf(i).filter((local) => this.#patchSeqs.has(firstRow + local));
  }

  /** Sequence number of the newest patch of a row of the snapshot; undefined if nothing patches it. */
  patchSeqOf(row: number): number | undefined {
    return this.#patchSeqs.get(row);
  }

  /** What a column holds for a row of the snapshot, patches applied; undefined if the row does not have it. */
  valueAt(row: number, column: string): ColumnValue | undefined {
    const patched = this.patches.get(column);
    if (patched?.has(row)) return patched.get(row);
    const part = this.partOf(row);
    return part.segment.column(column)?.at(row - part.firstRow);
  }

  /** Reads one row of the snapshot as conditions read documents. */
  readerAt(row: number): FieldReader {
    return {
      value: (field) => this.valueAt(row, field),
      hasBelow: (field) => {
        const prefix = `${field}.`;
        const holds = (name: string) => name.startsWith(prefix) && this.valueAt(row, name) !== undefined;
        return this.partOf(row).segment.columnNames().some(holds) || [...this.patches.keys()].some(holds);
      },
    };
  }

  /** All columns of a row of the snapshot, patches applied. */
  columnsAt(row: number): Map<string, ColumnValue> {
    const columns = new Map<string, ColumnValue>();
    for (const name of new Set([...this.partOf(row).segment.columnNames(), ...this.patches.keys()])) {
      const value = this.valueAt(row, name);
      if (value !== undefined) columns.set(name, value);
    }
    return columns;
  }

  /** Columns that at least one live row has. */
  fields(): ReadonlySet<string> {
    if (this.#fields === undefined) {
      const found = new Set<string>();
      for (const [name, rows] of this.patches) {
        for (const value of rows.values()) {
          if (value !== undefined) {
            found.add(name);
            break;
          }
        }
      }
      for (const part of this.parts) {
        for (const name of part.segment.columnNames()) {
          if (!found.has(name) && this.#anyLive(part, name)) found.add(name);
        }
      }
      this.#fields = found;
    }
    return this.#fields;
  }

  /** Every live row, in the order of the segments: what a compaction writes, with `absolute` sequence numbers. */
  async *liveRows(memory: VectorMemory): AsyncGenerator<LiveRow> {
    for (let i = 0; i < this.parts.length; i += 1) yield* this.liveRowsOfPart(i, memory);
  }

  /** As `liveRows`, of the i-th part only. Holds the vectors of some hundred rows at a time. */
  async *liveRowsOfPart(i: number, memory: VectorMemory): AsyncGenerator<LiveRow> {
    const part = this.parts[i]!;
    const { segment } = part;
    const live = this.liveRowsOf(i);
    const rowsAtOnce = Math.max(
      1,
      Math.floor(vectorBytesAtOnce / Math.max(1, segment.vectors?.rowBytes ?? 0)),
    );
    for (let from = 0; from < live.length; from += rowsAtOnce) {
      const locals = live.subarray(from, from + rowsAtOnce);
      const vectors: Float32Array[] = [];
      await segment.vectors?.visit(memory, locals, (values, at) => {
        vectors.push(values.slice(at, at + this.dims));
      });
      for (const [n, local] of locals.entries()) {
        const row = part.firstRow + local;
        const seq = part.baseSeq + segment.seq(local);
        yield {
          id: segment.id(local),
          vector: vectors[n],
          columns: this.columnsAt(row),
          seq: Math.max(seq, this.#patchSeqs.get(row) ?? seq),
        };
      }
    }
  }

  #anyLive({ segment, live, firstRow }: Part, name: string): boolean {
    const column = segment.column(name);
    if (column === undefined) return false;
    const patched = this.patches.get(name);
    if (patched === undefined && column.missing === undefined) return live.some((word) => word !== 0);
    const present = allBits(segment.rows);
    if (column.missing !== undefined)
      for (let i = 0; i < present.length; i += 1) present[i]! &= ~column.missing[i]!;
    if (patched === undefined) return intersects(present, live);
    return rowsOf(present).some((local) => hasBit(live, local) && !patched.has(firstRow + local));
  }

  #resolvePatches(
    segments: readonly { readonly segment: Segment; readonly baseSeq: number }[],
  ): [Map<string, Map<number, ColumnValue | undefined>>, Map<number, number>] {
    const found: { row: number; seq: number; segment: Segment; local: number }[] = [];
    for (const { segment, baseSeq } of segments) {
      if (segment.header.kind !== 'columns') continue;
      for (let local = 0; local < segment.rows; local += 1) {
        const row = this.rowOf(segment.id(local));
        if (row === undefined) continue;
        const part = this.partOf(row);
        const seq = baseSeq + segment.seq(local);
        if (seq > part.baseSeq + part.segment.seq(row - part.firstRow))
          found.push({ row, seq, segment, local });
      }
    }
    found.sort((a, b) => a.seq - b.seq);
    const patches = new Map<string, Map<number, ColumnValue | undefined>>();
    const seqs = new Map<number, number>();
    for (const { row, seq, segment, local } of found) {
      seqs.set(row, seq);
      for (const name of segment.columnNames()) {
        const column = segment.column(name)!;
        const value = column.at(local);
        if (value === undefined && (column.cleared === undefined || !hasBit(column.cleared, local))) continue;
        const rows = patches.get(name) ?? new Map<number, ColumnValue | undefined>();
        patches.set(name, rows);
        rows.set(row, value);
      }
    }
    return [patches, seqs];
  }
}

/** The columns of a document, undefined if no row of that id lives. */
export function columnsOf(snapshot: Snapshot, id: string): Map<string, ColumnValue> | undefined {
  const row = snapshot.rowOf(id);
  return row === undefined ? undefined : snapshot.columnsAt(row);
}

/** The vector of a document, as it is stored; undefined if no row of that id lives or the feature has no vectors. */
export async function vectorOf(
  snapshot: Snapshot,
  id: string,
  memory: VectorMemory = vectorMemory(),
): Promise<Float32Array | undefined> {
  const row = snapshot.dims === 0 ? undefined : snapshot.rowOf(id);
  if (row === undefined) return undefined;
  const part = snapshot.partOf(row);
  return part.segment.vectors!.vector(memory, row - part.firstRow);
}

/** The fields that at least one live row has. */
export function fieldsOf(snapshot: Snapshot): ReadonlySet<string> {
  return snapshot.fields();
}

function partOf(parts: readonly Part[], row: number): Part {
  let low = 0;
  let high = parts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (parts[middle]!.firstRow <= row) low = middle;
    else high = middle - 1;
  }
  return parts[low]!;
}

/**
 * Open-addressing table from id to its newest row; building it clears the live bits of all older rows.
 *
 * Hashes come from the segments, ids are compared as bytes only when hashes are equal.
 */
class IdIndex {
  readonly #parts: readonly Part[];
  /** Row + 1; 0 is free. */
  readonly #slots: Uint32Array;
  readonly #low: Uint32Array;
  readonly #high: Uint32Array;

  constructor(parts: readonly Part[], total: number) {
    this.#parts = parts;
    let size = 16;
    while (size < total * 2) size *= 2;
    this.#slots = new Uint32Array(size);
    this.#low = new Uint32Array(total);
    this.#high = new Uint32Array(total);
    for (const part of parts) this.#addAll(part);
  }

  find(id: string): number | undefined {
    const bytes = new TextEncoder().encode(id);
    const [low, high] = hashId(bytes, 0, bytes.length);
    const row = this.#slots[this.#slotOf(low, high, bytes, 0, bytes.length)]!;
    return row === 0 ? undefined : row - 1;
  }

  #addAll(part: Part): void {
    const { segment, firstRow } = part;
    for (let i = 0; i < segment.rows; i += 1) {
      const local = segment.hashRows[i]!;
      // Listed as dead: nothing may find it.
      if (!hasBit(part.live, local)) continue;
      const row = firstRow + local;
      const low = segment.hashes[2 * i]!;
      const high = segment.hashes[2 * i + 1]!;
      this.#low[row] = low;
      this.#high[row] = high;
      const start = segment.idOffsets[local]!;
      const slot = this.#slotOf(low, high, segment.ids, start, segment.idOffsets[local + 1]!);
      const older = this.#slots[slot]! - 1;
      if (older < 0) {
        this.#slots[slot] = row + 1;
        continue;
      }
      const other = partOf(this.#parts, older);
      const newer =
        part.baseSeq + segment.seq(local) >= other.baseSeq + other.segment.seq(older - other.firstRow);
      if (newer) {
        clearBit(other.live, older - other.firstRow);
        this.#slots[slot] = row + 1;
      } else {
        clearBit(part.live, local);
      }
    }
  }

  /** The slot that holds the id, or the free one where it belongs. */
  #slotOf(low: number, high: number, bytes: Uint8Array, start: number, end: number): number {
    const mask = this.#slots.length - 1;
    let slot = low & mask;
    for (;;) {
      const row = this.#slots[slot]! - 1;
      if (row < 0) return slot;
      if (this.#low[row] === low && this.#high[row] === high && this.#sameId(row, bytes, start, end))
        return slot;
      slot = (slot + 1) & mask;
    }
  }

  #sameId(row: number, bytes: Uint8Array, start: number, end: number): boolean {
    const { segment, firstRow } = partOf(this.#parts, row);
    const from = segment.idOffsets[row - firstRow]!;
    const length = segment.idOffsets[row - firstRow + 1]! - from;
    if (length !== end - start) return false;
    for (let i = 0; i < length; i += 1) if (segment.ids[from + i] !== bytes[start + i]) return false;
    return true;
  }
}
