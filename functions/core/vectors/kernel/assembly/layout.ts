// Where everything below the arena lies. The numbers live here only: TypeScript reads them as exported globals.

/** Queries that share one pass over the rows. */
export const QUERIES_MAX: u32 = 16;
export const DIMS_MAX: u32 = 4096;
/** Largest k that a heap has room for. */
export const HEAP_MAX: u32 = 20480;
/** Candidates of one query over all parts. */
export const CANDIDATES_MAX: u32 = 131072;
/** Rows of one call; a larger part is scanned in several. */
export const WINDOW_ROWS: u32 = 1 << 20;

/** Bytes of a candidate: f64 upper bound, u32 row, u32 part. */
export const CANDIDATE_BYTES: u32 = 16;
/** Bytes of the state of one query; fields below. */
export const QUERY_BYTES: u32 = 128;

// The state of a query, offsets in bytes.
/** f64: no row whose upper bound is lower is wanted. The k-th best lower bound so far, or the lowest score wanted. */
export const Q_TAU: usize = 0;
/** f64: constant part of the error of a key. */
export const Q_E0: usize = 8;
/** f64: error per row norm (euclid). */
export const Q_E1: usize = 16;
/** f64: error per squared row norm (euclid). */
export const Q_E2: usize = 24;
/** f64: lower bounds are cut to it, upper bounds to its negative (cosine; else infinity). */
export const Q_CAP: usize = 32;
/** f64: the coarse threshold is COARSE_FACTOR * tau - COARSE_SLACK. */
export const Q_COARSE_FACTOR: usize = 40;
export const Q_COARSE_SLACK: usize = 48;
/** f64: value of one step of the int16 query. */
export const Q_STEP: usize = 56;
/** f64: error per residual norm of a row (codes) or per scale (staged floats). */
export const Q_PER_RESIDUAL: usize = 64;
/** f64: error per decoded norm of a row (codes). */
export const Q_PER_NORM: usize = 72;
/** f32: rows below it need no closer look. Derived from tau. */
export const Q_COARSE: usize = 80;
/** f32: added to an integer dot before the coarse comparison. */
export const Q_COARSE_ADD: usize = 84;
/** f32: twice Q_STEP (codes, euclid). */
export const Q_COARSE_STEP: usize = 88;
export const Q_HEAP_SIZE: usize = 92;
export const Q_K: usize = 96;
/** u32: candidates in the buffer, of all parts. */
export const Q_COUNT: usize = 100;
/** u32: candidates of earlier parts. */
export const Q_PART_START: usize = 104;
/** u32: more candidates of one part are too many. */
export const Q_LIMIT: usize = 108;
/** u32: 1 once the part had too many candidates. */
export const Q_OVERFLOWN: usize = 112;

/** Rows that a batch stages, or a list takes, at a time. */
export const BLOCK_ROWS: u32 = 64;
/** Rows of each of the two streams of a scan between selections. */
export const STREAM_ROWS: u32 = 32;

export const STATE_AT: usize = 1024;
/** f32[BLOCK_ROWS]: scales of staged float rows. */
export const STAGE_SCALES_AT: usize = 3072;
/** Dots of the rows at hand, float32 or int32: [16][BLOCK_ROWS] or [2][STREAM_ROWS]. */
export const DOTS_AT: usize = 4096;
/** int16 rows of a batch. Eight of the longest fit. */
export const STAGE_AT: usize = DOTS_AT + 16 * 64 * 4 + 64;
export const STAGE_BYTES: usize = 65536;
/** f32[16][padDims]: queries for rows of floats. */
export const FLOATS_AT: usize = STAGE_AT + STAGE_BYTES + 64;
/** i16[16][padDims]: queries for codes and for batches. */
export const INTEGERS_AT: usize = FLOATS_AT + 16 * 4096 * 4 + 64;
/** f64[16][HEAP_MAX]. */
export const HEAPS_AT: usize = INTEGERS_AT + 16 * 4096 * 2 + 64;
export const HEAP_BYTES: usize = 20480 * 8;
export const CANDIDATES_AT: usize = HEAPS_AT + 16 * HEAP_BYTES;
export const CANDIDATE_LIST_BYTES: usize = 131072 * 16;
/** u32 words, one bit for each row of the window. */
export const BITMAP_AT: usize = CANDIDATES_AT + 16 * CANDIDATE_LIST_BYTES;
/** u32[]: rows whose bit is set, and 4 more as padding. */
export const LIST_AT: usize = BITMAP_AT + (1 << 17);
export const SCRATCH_END: usize = LIST_AT + (1 << 22) + 64;
