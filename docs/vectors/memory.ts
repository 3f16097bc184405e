// Prints the memory map of kernel.md from the layout that the compiled kernel exports.
import { Kernel } from '../../functions/core/vectors/kernel/kernel.ts';

/** What lies below the arena, and how much of each thing there is room for. */
export function memoryMap(): string {
  const { run, arenaAt } = Kernel.create({ arenaBytes: 0 });
  const { layout } = run;
  const queries = layout.QUERIES_MAX;
  const heap = layout.HEAP_BYTES / 8;
  const listed = layout.CANDIDATE_LIST_BYTES / layout.CANDIDATE_BYTES;
  const places: readonly (readonly [at: number, what: string])[] = [
    [layout.STATE_AT, `state of ${queries} queries, ${layout.QUERY_BYTES} bytes each: tau, bounds, counters`],
    [layout.DOTS_AT, 'dots of the rows at hand; rows of a batch, staged as int16'],
    [layout.FLOATS_AT, `${queries} queries in float32`],
    [layout.INTEGERS_AT, `${queries} queries in int16`],
    [layout.HEAPS_AT, `${queries} heaps of ${heap} lower bounds, f64`],
    [
      layout.CANDIDATES_AT,
      `${queries} lists of ${listed} candidates, ${layout.CANDIDATE_BYTES} bytes: f64 U, u32 row, u32 part`,
    ],
    [layout.BITMAP_AT, `bitmap of the ${layout.WINDOW_ROWS} rows of one window`],
    [layout.LIST_AT, 'u32 numbers of the rows whose bit is set'],
    [arenaAt, 'the arena: slots of segments, to the end of the memory'],
  ];
  return places.map(([at, what]) => `${String(at).padStart(9)}  ${what}`).join('\n');
}
