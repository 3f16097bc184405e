// The memory of the kernel that a process has: made once, at the first scan, and never larger.
import { Arena } from './kernel/arena.ts';
import { Kernel } from './kernel/kernel.ts';

/** What scans work in: the kernel, and the part of its memory that holds segments. */
export interface VectorMemory {
  readonly kernel: Kernel;
  readonly arena: Arena;
  /** So few rows of a segment, or fewer, are scored by themselves without a scan. */
  readonly rowsWithoutScan: number;
}

/** WebAssembly addresses 4 GiB; the scratch space of the kernel needs some of it. */
const arenaBytesLargest = 3.5 * 2 ** 30;
const arenaBytesDefault = 512 * 2 ** 20;

/** @param arenaBytes room for segments; pages that are never written take no memory */
export function makeVectorMemory(arenaBytes: number): VectorMemory {
  const kernel = Kernel.create({ arenaBytes });
  return { kernel, arena: new Arena(kernel), rowsWithoutScan: 32 };
}

/**
 * Room for segments in this process: half of the memory that the function has, so that ids, columns and the program
 * itself have the other half.
 */
export function arenaBytes(): number {
  const megabytes = Number(process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? 0);
  const half = megabytes > 0 ? megabytes * 2 ** 19 : arenaBytesDefault;
  return Math.floor(Math.min(half, arenaBytesLargest) / 65_536) * 65_536;
}

let shared: VectorMemory | undefined;

/** The memory that all scans of this process share. */
export function vectorMemory(): VectorMemory {
  shared ??= makeVectorMemory(arenaBytes());
  return shared;
}
