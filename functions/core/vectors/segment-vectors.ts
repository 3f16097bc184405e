// The vectors of one segment, wherever they are: in the store, in a file in memory, or in the memory of the kernel.
import { crc32 } from 'node:zlib';
import { VectorError } from './errors.ts';
import { fromBfloat16 } from './kernel/bfloat16.ts';
import type { ResidentRows } from './kernel/resident.ts';
import type { SectionGroup, SectionRef, SegmentHeader, VectorSection } from './segment-format.ts';
import { sectionGroups } from './segment-format.ts';
import { isKernelSafe, type Metric, squaredNormAt } from './vector.ts';
import type { VectorMemory } from './vector-memory.ts';

/** Where the bytes of a segment come from. */
export interface SegmentSource {
  /** Fills the target with the bytes from `offset` on. @throws if they cannot be read or there are fewer */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  /** The whole file, where it is in memory anyway and has been verified. */
  readonly bytes?: Uint8Array | undefined;
}

/** Rows that lie no farther apart are fetched by one read: a request costs more than these bytes. */
const gapBytesMax = 64 * 1024;
/** Bytes of one read of rows. */
const rangeBytesMax = 8 * 2 ** 20;
/** Reads of rows at the same time. */
const parallelRanges = 16;
/** Rows that are worth more than this share of the vectors are fetched by fetching all of them. */
const shareToLoadAll = 0.25;

/**
 * Reads of single rows after which all vectors are fetched: each takes a round trip, 20 to 40 ms, and all of a segment
 * together are worth about eight of them.
 */
const readsWorthLoading = 8;

/** Bytes that may still be fetched only to have them next time. */
export interface LoadBudget {
  bytes: number;
}

/** Called for each row asked for; its vector is `values[at .. at + padDims)`, the row the `n`-th of those asked for. */
export type VisitRow = (values: Float32Array, at: number, n: number) => void;

let sources = 0;

export class SegmentVectors {
  readonly rows: number;
  readonly padRows: number;
  readonly dims: number;
  /** Values between two rows. */
  readonly padDims: number;
  readonly metric: Metric;
  readonly hasCodes: boolean;
  /** Bytes that a scan of all rows reads: the codes where there are some, else the vectors. */
  readonly scanBytes: number;
  /** Bytes of one row in the file. */
  readonly rowBytes: number;
  readonly #objectName: string;
  readonly #header: SegmentHeader;
  readonly #sections: ReadonlyMap<string, SectionRef>;
  readonly #source: SegmentSource;
  readonly #rowChecksums: Uint32Array | undefined;
  /** Names the content in the memory of the kernel. */
  readonly #key: string;
  #normRange: readonly [min: number, max: number] | undefined;
  #rangeReads = 0;

  /**
   * @param header of a segment with vectors
   * @param rowChecksums by row, the crc32 of its bytes; files of the first version have none
   * @throws VectorError segment_corrupt if a section is missing or has a wrong length
   */
  constructor(objectName: string, header: SegmentHeader, source: SegmentSource, rowChecksums?: Uint32Array) {
    const { rows, padRows, dim, padDim, metric, dtype } = header;
    this.#objectName = objectName;
    this.#header = header;
    this.#source = source;
    this.#rowChecksums = rowChecksums;
    this.#sections = new Map(header.sections.map((section) => [section.name, section]));
    this.rows = rows;
    this.padRows = padRows;
    this.dims = dim;
    this.padDims = padDim;
    this.metric = metric!;
    this.rowBytes = padDim * (dtype === 'bf16' ? 2 : 4);
    this.#expect('vec', dtype, padRows * this.rowBytes);
    this.#expect('aux', 'f32', padRows * 4);
    this.hasCodes = this.#sections.has('i8');
    if (this.hasCodes) {
      this.#expect('i8', 'i8', padRows * padDim);
      for (const name of ['i8s', 'i8r', 'i8n'] as const) this.#expect(name, 'f32', padRows * 4);
    }
    this.scanBytes = padRows * (this.hasCodes ? padDim : this.rowBytes);
    this.#normRange = header.normRange;
    // What was stored never changes under its name; files in memory may share one.
    sources += 1;
    this.#key = source.bytes ? `memory ${sources}` : `${objectName} ${header.crc32}`;
  }

  /** Bytes in the memory of the kernel once `scan` has been called. */
  get residentBytes(): number {
    return this.#group(this.#scanned).bytes;
  }

  /** Whether all vectors fit into the memory of the kernel at once. */
  vectorsFit({ kernel }: VectorMemory): boolean {
    return this.#group('vectors').bytes <= kernel.arenaBytes;
  }

  isResident({ arena }: VectorMemory): boolean {
    return arena.has(this.#group(this.#scanned).key);
  }

  /** Begins to load what a scan needs. What goes wrong shows when the scan asks again. */
  prefetch(memory: VectorMemory): void {
    this.#load(memory, this.#scanned, () => undefined).catch(() => undefined);
  }

  /**
   * Runs `work` with the rows in the memory of the kernel. Nothing may keep the addresses.
   *
   * @param work gets undefined for rows that float32 arithmetic is no good for: visit them instead
   * @param by what to have there; by default codes where there are some, else vectors
   * @throws VectorError segment_corrupt, segment_too_large; and what the source throws
   */
  async scan<T>(
    memory: VectorMemory,
    work: (resident: ResidentRows | undefined, cold: boolean) => T,
    by: SectionGroup = this.#scanned,
  ): Promise<T> {
    return this.#load(memory, by, (at, cold) => {
      const { first } = this.#group(by);
      const address = (name: VectorSection) => at + this.#sections.get(name)!.off - first.off;
      const coded = by === 'codes';
      const vectors = coded ? undefined : { at: address('vec'), dtype: this.#header.dtype };
      this.#normRange ??= this.#measure(memory, address('aux'), vectors!.at);
      if (!isKernelSafe(this.#normRange)) return work(undefined, cold);
      return work(
        {
          rows: this.rows,
          padRows: this.padRows,
          dims: this.dims,
          padDims: this.padDims,
          metric: this.metric,
          aux: address('aux'),
          vectors,
          codes: coded
            ? {
                at: address('i8'),
                scales: address('i8s'),
                residuals: address('i8r'),
                norms: address('i8n'),
                rotationSeed: this.#header.rotationSeed,
              }
            : undefined,
          normMax: this.#normRange[1],
        },
        cold,
      );
    });
  }

  /**
   * Calls `visit` for each row, in the order of `rows`, with its vector as float32.
   *
   * Reads from memory what is there. Else it reads just these rows, or all vectors if that is cheaper; and once single
   * rows were read often enough to have cost as much, all of them to keep, if there is room.
   *
   * @param rows ascending
   * @param budget what may be spent on keeping vectors for later; what is spent is taken off. Nothing if left out
   * @returns whether all vectors had to be fetched first
   * @throws VectorError segment_corrupt, segment_too_large; and what the source throws
   */
  async visit(
    memory: VectorMemory,
    rows: ArrayLike<number>,
    visit: VisitRow,
    budget: LoadBudget = { bytes: 0 },
  ): Promise<boolean> {
    if (rows.length === 0) return false;
    const { bytes } = this.#source;
    const vec = this.#sections.get('vec')!;
    if (bytes) {
      this.#visitAt(bytes, vec.off, rows, visit);
      return false;
    }
    const { arena, kernel } = memory;
    const { key, bytes: all } = this.#group('vectors');
    const isCheaper = rows.length >= this.rows * shareToLoadAll && all <= kernel.arenaBytes;
    const hasRoom = arena.bytesUsed + all <= kernel.arenaBytes;
    const isWorthIt = hasRoom && all <= budget.bytes && this.#rangeReads >= readsWorthLoading;
    if (arena.has(key) || isCheaper || isWorthIt) {
      if (isWorthIt) budget.bytes -= all;
      return this.#load(memory, 'vectors', (at, cold) => {
        this.#visitAt(kernel.bytes, at, rows, visit);
        return cold;
      });
    }
    this.#rangeReads += 1;
    await this.#visitRanges(rows, visit);
    return false;
  }

  /** One vector without padding. */
  async vector(memory: VectorMemory, row: number): Promise<Float32Array> {
    let found = new Float32Array(0);
    await this.visit(memory, [row], (values, at) => {
      found = values.slice(at, at + this.dims);
    });
    return found;
  }

  get #scanned(): SectionGroup {
    return this.hasCodes ? 'codes' : 'vectors';
  }

  /** Neighbouring sections that are read and kept together. */
  #group(group: SectionGroup): { readonly key: string; readonly first: SectionRef; readonly bytes: number } {
    const names = sectionGroups[group];
    const first = this.#sections.get(names[0]!)!;
    const last = this.#sections.get(names.at(-1)!)!;
    return { key: `${this.#key} ${group}`, first, bytes: last.off + last.len - first.off };
  }

  #load<T>(memory: VectorMemory, by: SectionGroup, work: (at: number, cold: boolean) => T): Promise<T> {
    const { key, bytes } = this.#group(by);
    return memory.arena.use(key, bytes, (target) => this.#fill(sectionGroups[by], target), work);
  }

  /** Reads neighbouring sections into memory and verifies each. */
  async #fill(names: readonly VectorSection[], target: Uint8Array): Promise<void> {
    const sections = names.map((name) => this.#sections.get(name)!);
    const start = sections[0]!.off;
    const { bytes } = this.#source;
    if (bytes) {
      target.set(bytes.subarray(start, start + target.byteLength));
      return;
    }
    await this.#source.readInto(start, target);
    for (const { name, off, len, crc32: expected } of sections) {
      if (crc32(target.subarray(off - start, off - start + len)) !== expected) {
        throw this.#corrupt(`Section ${name} does not match its checksum.`);
      }
    }
  }

  /** @param base where the section `vec` begins in `bytes` */
  #visitAt(bytes: Uint8Array, base: number, rows: ArrayLike<number>, visit: VisitRow): void {
    const { padDims } = this;
    const start = bytes.byteOffset + base;
    if (this.#header.dtype === 'f32') {
      const values = new Float32Array(bytes.buffer, start, this.padRows * padDims);
      for (let n = 0; n < rows.length; n += 1) visit(values, rows[n]! * padDims, n);
      return;
    }
    const values = new Uint16Array(bytes.buffer, start, this.padRows * padDims);
    for (let n = 0; n < rows.length; n += 1) {
      const at = rows[n]! * padDims;
      visit(fromBfloat16(values.subarray(at, at + padDims)), 0, n);
    }
  }

  async #visitRanges(rows: ArrayLike<number>, visit: VisitRow): Promise<void> {
    const { rowBytes } = this;
    const { off } = this.#sections.get('vec')!;
    const ranges: { readonly first: number; end: number; readonly from: number; to: number }[] = [];
    for (let n = 0; n < rows.length; n += 1) {
      const row = rows[n]!;
      const last = ranges.at(-1);
      const isNear = last !== undefined && (row - last.end) * rowBytes <= gapBytesMax;
      if (isNear && (row + 1 - last.first) * rowBytes <= rangeBytesMax) {
        last.end = row + 1;
        last.to = n + 1;
      } else ranges.push({ first: row, end: row + 1, from: n, to: n + 1 });
    }
    for (let i = 0; i < ranges.length; i += parallelRanges) {
      const some = ranges.slice(i, i + parallelRanges);
      const read = await Promise.all(
        some.map(async ({ first, end }) => {
          const target = new Uint8Array((end - first) * rowBytes);
          await this.#source.readInto(off + first * rowBytes, target);
          return target;
        }),
      );
      some.forEach(({ first, from, to }, j) => {
        const { buffer } = read[j]!;
        for (let n = from; n < to; n += 1) {
          const at = (rows[n]! - first) * this.padDims;
          this.#verify(rows[n]!, new Uint8Array(buffer, (rows[n]! - first) * rowBytes, rowBytes));
          const values =
            this.#header.dtype === 'f32'
              ? new Float32Array(buffer, at * 4, this.padDims)
              : fromBfloat16(new Uint16Array(buffer, at * 2, this.padDims));
          visit(values, 0, n);
        }
      });
    }
  }

  /** A row that was read by itself: the checksum of its section covers only all of them. */
  #verify(row: number, bytes: Uint8Array): void {
    const expected = this.#rowChecksums?.[row];
    if (expected !== undefined && crc32(bytes) !== expected) {
      throw this.#corrupt(`Row ${row} of section vec does not match its checksum.`);
    }
  }

  /** Shortest and longest row of a file that does not say it. */
  #measure({ kernel }: VectorMemory, aux: number, vectors: number): readonly [number, number] {
    const { buffer, byteOffset } = kernel.bytes;
    let min = Number.POSITIVE_INFINITY;
    let max = 0;
    const factors = new Float32Array(buffer, byteOffset + aux, this.rows);
    for (let row = 0; row < this.rows; row += 1) {
      let length = 0;
      if (this.metric === 'cosine') length = factors[row] === 0 ? 0 : 1 / factors[row]!;
      else {
        const values = new Float32Array(buffer, byteOffset + vectors, this.padRows * this.padDims);
        length = Math.sqrt(squaredNormAt(values, row * this.padDims, this.padDims));
      }
      if (length === 0) continue;
      min = Math.min(min, length);
      max = Math.max(max, length);
    }
    // Lengths from float32 factors are right to 2^-23.
    return max === 0 ? [0, 0] : [min, max * (1 + 2 ** -20)];
  }

  #expect(name: VectorSection, enc: string, length: number): void {
    const section = this.#sections.get(name);
    if (section === undefined) throw this.#corrupt(`Section ${name} is missing.`);
    if (section.enc !== enc || section.len !== length) {
      throw this.#corrupt(
        `Section ${name} has ${section.len} bytes of ${section.enc}, needs ${length} of ${enc}.`,
      );
    }
  }

  #corrupt(message: string): VectorError {
    return new VectorError('segment_corrupt', message, this.#objectName);
  }
}
