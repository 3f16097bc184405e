// The WebAssembly kernel and its memory: scratch space below, the arena of vectors above.
import { readFileSync } from 'node:fs';

/** What the module exports; addresses and sizes are its layout, in bytes (assembly/layout.ts says what lies where). */
export interface KernelExports {
  readonly layout: Readonly<Record<LayoutName, number>>;
  /** What the next scans read: see assembly/scan.ts. */
  setRows(
    dtype: number,
    metric: number,
    rows: number,
    padDims: number,
    part: number,
    rowsAt: number,
    auxAt: number,
    scalesAt: number,
    residualsAt: number,
    normsAt: number,
  ): void;
  /**
   * Scores `count` rows (multiple of 8) from `first` on: with one query that in place `query`, else the first `queries`.
   * `masked`: only those in the bitmap.
   */
  scanRange(first: number, count: number, query: number, queries: number, masked: number): void;
  /** Lists the rows of the bitmap's first `words` words, ascending from `first`. @returns how many */
  listRows(first: number, words: number): number;
  /** Scores the first `count` rows of the list, likewise. */
  scanList(count: number, query: number, queries: number): void;
  /** Drops the candidates of a query that tau has passed. @returns how many are left */
  compact(query: number): number;
  /** Derives the coarse threshold from tau. */
  refresh(query: number): void;
}

const layoutNames = [
  'QUERIES_MAX',
  'HEAP_MAX',
  'CANDIDATES_MAX',
  'WINDOW_ROWS',
  'CANDIDATE_BYTES',
  'QUERY_BYTES',
  'Q_TAU',
  'Q_E0',
  'Q_E1',
  'Q_E2',
  'Q_CAP',
  'Q_COARSE_FACTOR',
  'Q_COARSE_SLACK',
  'Q_STEP',
  'Q_PER_RESIDUAL',
  'Q_PER_NORM',
  'Q_COARSE_ADD',
  'Q_COARSE_STEP',
  'Q_HEAP_SIZE',
  'Q_K',
  'Q_COUNT',
  'Q_PART_START',
  'Q_LIMIT',
  'Q_OVERFLOWN',
  'STATE_AT',
  'DOTS_AT',
  'FLOATS_AT',
  'INTEGERS_AT',
  'HEAPS_AT',
  'HEAP_BYTES',
  'CANDIDATES_AT',
  'CANDIDATE_LIST_BYTES',
  'BITMAP_AT',
  'LIST_AT',
  'SCRATCH_END',
  'STAGE_NORM',
] as const;
type LayoutName = (typeof layoutNames)[number];

const pageBytes = 65_536;
/** A memory of 32-bit addresses ends here. */
const memoryBytesMax = 2 ** 32;

/** The selection loads four rows' numbers at once, also where fewer are left at the end of the arena. */
const overreadBytes = 64;

let compiled: WebAssembly.Module | undefined;

/**
 * One instance of the kernel with its memory, which is allocated once and never grows, so views of it stay valid.
 *
 * A process or worker needs one. Pages that nothing was written to take no real memory: of the 40 MB below the arena
 * a scan of one query with small k touches less than 200 kB, one that lists rows 4 bytes a row more.
 */
export class Kernel {
  /** The whole memory. */
  readonly bytes: Uint8Array;
  /** First byte of the arena, a multiple of 64. */
  readonly arenaAt: number;
  readonly arenaBytes: number;
  /** The functions of the module; for candidate-scan.ts. */
  readonly run: KernelExports;
  /** Whose heaps and candidates lie in the scratch space at the moment; candidate-scan.ts changes places. */
  tenant: KernelTenant | undefined;

  private constructor(bytes: Uint8Array, arenaAt: number, arenaBytes: number, run: KernelExports) {
    this.bytes = bytes;
    this.arenaAt = arenaAt;
    this.arenaBytes = arenaBytes;
    this.run = run;
  }

  /**
   * Compiles the module, once a process, and gives it a memory with an arena of `arenaBytes`.
   *
   * @throws RangeError if scratch space and arena do not fit into 4 GiB, or the process cannot reserve them
   */
  static create({ arenaBytes }: { readonly arenaBytes: number }): Kernel {
    compiled ??= new WebAssembly.Module(readFileSync(new URL('./kernel.wasm', import.meta.url)));
    const scratchBytes = scratchBytesOf(compiled);
    const bytesMax = memoryBytesMax - scratchBytes - overreadBytes;
    if (!Number.isInteger(arenaBytes) || arenaBytes < 0 || arenaBytes > bytesMax) {
      throw new RangeError(`The arena of a kernel has 0 to ${bytesMax} bytes, got ${arenaBytes}.`);
    }
    const pages = Math.ceil((scratchBytes + arenaBytes + overreadBytes) / pageBytes);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const instance = new WebAssembly.Instance(compiled, { env: { memory } });
    const exported = instance.exports as unknown as Record<string, WebAssembly.Global & (() => number)>;
    const layout = Object.fromEntries(layoutNames.map((name) => [name, Number(exported[name]!.value)]));
    const run = { ...(instance.exports as unknown as KernelExports), layout } as KernelExports;
    return new Kernel(new Uint8Array(memory.buffer), scratchBytes, arenaBytes, run);
  }
}

/** What a scan that another one displaces must do. */
export interface KernelTenant {
  /** Copies what it needs out of the scratch space. */
  leave(): void;
}

function scratchBytesOf(module: WebAssembly.Module): number {
  // The layout is the module's own; a throw-away instance in the smallest memory tells it.
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65_536 });
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const end = Number((exports.SCRATCH_END as WebAssembly.Global).value);
  return Math.ceil(end / 64) * 64;
}
