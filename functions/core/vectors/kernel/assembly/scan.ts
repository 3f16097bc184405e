// Walks over rows: dots of a block into a buffer that stays in the first-level cache, then the selection.
//
// One query over all rows reads two far-apart streams: more of them, or fewer, were slower where this was measured,
// because each row is long enough to keep the hardware's prefetching busy. Rows of a list lie scattered, and
// prefetching comes too late for them: one load in each cache line of a block asks for all of its lines at once, which
// the processor fetches side by side, and the dots then find them near.
// A batch of queries reads each row once, as int16 (see stage.ts), and computes two rows by four queries at a time.
import { dotBf16x2, dotBf16x4 } from './dots-bf16';
import { dotF32x2, dotF32x4 } from './dots-f32';
import { dotI16x2x4 } from './dots-i16';
import { dotI8x2, dotI8x4 } from './dots-i8';
import {
  BITMAP_AT, BLOCK_ROWS, DOTS_AT, FLOATS_AT, INTEGERS_AT, LIST_AT, STAGE_AT, STAGE_BYTES, STAGE_SCALES_AT, STREAM_ROWS,
} from './layout';
import { auxAt, COSINE, dtype, EUCLID, F32, I8, metric, padDims, rowBytes, rowsAt } from './rows';
import { allOverflown, beginSelect, selectList, selectRun } from './select';
import { squaredNormBf16, squaredNormF32, STAGE_NORM, stageBf16, stageF32, stageI8 } from './stage';

const LINE: usize = 64;
/** Lines that are asked for at once fill at most this much of the first-level cache. */
const TOUCH_BYTES: usize = 24576;

@inline
function dot2(p: usize, r: usize, query: usize, out: usize, out2: usize): void {
  if (dtype == I8) dotI8x2(p, r, query, rowBytes, out, out2);
  else if (dtype == F32) dotF32x2(p, r, query, rowBytes, out, out2);
  else dotBf16x2(p, r, query, rowBytes, out, out2);
}

@inline
function dot4(p: usize, r: usize, s: usize, t: usize, query: usize, out: usize): void {
  if (dtype == I8) dotI8x4(p, r, s, t, query, rowBytes, out);
  else if (dtype == F32) dotF32x4(p, r, s, t, query, rowBytes, out);
  else dotBf16x4(p, r, s, t, query, rowBytes, out);
}

/** Where the query in place `query` lies for a scan by itself. */
@inline
function queryAt(query: u32): usize {
  return dtype == I8 ? INTEGERS_AT + <usize>query * padDims * 2 : FLOATS_AT + <usize>query * padDims * 4;
}

/** Loads one byte of each line from `at` to `end`; the loads stay, because they could trap. */
function touch(at: usize, end: usize): void {
  while (at < end) {
    load<u8>(at);
    at += LINE;
  }
  load<u8>(end - 1);
}

/** Stages a row at `out` and puts its scale down at `scale`. */
function stage(row: u32, out: usize, scale: usize): void {
  const at = rowsAt + <usize>row * rowBytes;
  if (dtype == I8) {
    stageI8(at, rowBytes, out);
    return;
  }
  let factor: f32;
  if (metric == COSINE) factor = <f32>STAGE_NORM * load<f32>(auxAt + (<usize>row << 2));
  else {
    const squared =
      metric == EUCLID ? load<f32>(auxAt + (<usize>row << 2)) : dtype == F32 ? squaredNormF32(at, rowBytes) : squaredNormBf16(at, rowBytes);
    factor = squared > 0 ? <f32>STAGE_NORM / sqrt<f32>(squared) : 0;
  }
  store<f32>(scale, factor > 0 ? 1 / factor : 0);
  if (dtype == F32) stageF32(at, rowBytes, factor, out);
  else stageBf16(at, rowBytes, factor, out);
}

/** Rows that are staged together; even. */
@inline
function stagedRows(): u32 {
  return min(BLOCK_ROWS, <u32>(STAGE_BYTES / (<usize>padDims * 2)) & ~1);
}

/**
 * Dots of `count` staged rows (made even by one more) and all queries (made a multiple of four by zeros).
 * Meanwhile `touched` bytes from `next` on are fetched, a line with each tile.
 */
function dotStaged(count: u32, queries: u32, next: usize, touched: usize): void {
  const bytes = <usize>padDims * 2;
  const end = next + touched;
  for (let q: u32 = 0; q < queries; q += 4) {
    for (let r: u32 = 0; r < count; r += 2) {
      if (next < end) {
        load<u8>(next);
        next += LINE;
      }
      dotI16x2x4(
        STAGE_AT + <usize>r * bytes, INTEGERS_AT + <usize>q * bytes, bytes,
        DOTS_AT + (<usize>(q * BLOCK_ROWS + r) << 2), BLOCK_ROWS << 2,
      );
    }
  }
}

/** Scores `count` rows, a multiple of 8, from `first` on, for the query in place `query` or the first `queries`. */
export function scanRange(first: u32, count: u32, query: u32, queries: u32, masked: bool): void {
  beginSelect(first, masked, queries > 1 && dtype != I8);
  if (queries == 1) scanRangeOne(first, count, query);
  else scanRangeMany(first, count, queries);
}

function scanRangeOne(first: u32, count: u32, query: u32): void {
  const streamRows = count >> 1;
  const stride = <usize>streamRows * rowBytes;
  const q = queryAt(query);
  for (let begin: u32 = 0; begin < streamRows; begin += STREAM_ROWS) {
    const steps = min(STREAM_ROWS, streamRows - begin);
    let p = rowsAt + <usize>(first + begin) * rowBytes;
    let out = DOTS_AT;
    for (let i: u32 = 0; i < steps; ++i) {
      dot2(p, p + stride, q, out, out + (STREAM_ROWS << 2));
      p += rowBytes;
      out += 4;
    }
    selectRun(query, first + begin, steps, DOTS_AT);
    selectRun(query, first + streamRows + begin, steps, DOTS_AT + (STREAM_ROWS << 2));
    if (allOverflown(1)) return;
  }
}

function scanRangeMany(first: u32, count: u32, queries: u32): void {
  const block = stagedRows();
  const bytes = <usize>padDims * 2;
  // A line with each tile is enough for codes only. Floats are so many that waiting for them costs more.
  const ahead = dtype == I8;
  for (let begin: u32 = 0; begin < count; begin += block) {
    const steps = min(block, count - begin);
    for (let i: u32 = 0; i < steps; ++i) {
      stage(first + begin + i, STAGE_AT + <usize>i * bytes, STAGE_SCALES_AT + (<usize>i << 2));
    }
    const left = min(block, count - begin - steps);
    dotStaged(steps, queries, rowsAt + <usize>(first + begin + steps) * rowBytes, ahead ? <usize>left * rowBytes : 0);
    for (let q: u32 = 0; q < queries; ++q) {
      selectRun(q, first + begin, steps, DOTS_AT + (<usize>(q * BLOCK_ROWS) << 2));
    }
    if (allOverflown(queries)) return;
  }
}

/** Lists the rows of the bitmap's first `words` words, whose lowest bit is row `first`; pads with the last one. */
export function listRows(first: u32, words: u32): u32 {
  let out = LIST_AT;
  for (let w: u32 = 0; w < words; ++w) {
    let word = load<u32>(BITMAP_AT + (<usize>w << 2));
    while (word) {
      store<u32>(out, first + (w << 5) + ctz(word));
      out += 4;
      word &= word - 1;
    }
  }
  const count = <u32>((out - LIST_AT) >> 2);
  if (count > 0) {
    const last = load<u32>(out - 4);
    for (let i: usize = 0; i < 4; ++i) store<u32>(out + (i << 2), last);
  }
  return count;
}

@inline
function listed(position: u32): u32 {
  return load<u32>(LIST_AT + (<usize>position << 2));
}

@inline
function listedAt(position: u32): usize {
  return rowsAt + <usize>listed(position) * rowBytes;
}

/** Scores the first `count` rows of the list, for the query in place `query` or the first `queries`. */
export function scanList(count: u32, query: u32, queries: u32): void {
  beginSelect(0, false, queries > 1 && dtype != I8);
  const near = max(4, <u32>(TOUCH_BYTES / rowBytes) & ~3);
  const block = min(near, queries == 1 ? BLOCK_ROWS : stagedRows());
  const q = queryAt(query);
  const bytes = <usize>padDims * 2;
  for (let begin: u32 = 0; begin < count; begin += block) {
    const steps = min(block, count - begin);
    for (let i: u32 = 0; i < steps; ++i) {
      const at = listedAt(begin + i);
      touch(at, at + rowBytes);
    }
    if (queries == 1) {
      for (let i: u32 = 0; i < steps; i += 4) {
        const at = begin + i;
        dot4(listedAt(at), listedAt(at + 1), listedAt(at + 2), listedAt(at + 3), q, DOTS_AT + (<usize>i << 2));
      }
      selectList(query, begin, steps, DOTS_AT);
      if (allOverflown(1)) return;
      continue;
    }
    for (let i: u32 = 0; i < steps; ++i) {
      stage(listed(begin + i), STAGE_AT + <usize>i * bytes, STAGE_SCALES_AT + (<usize>i << 2));
    }
    dotStaged(steps, queries, 0, 0);
    for (let each: u32 = 0; each < queries; ++each) {
      selectList(each, begin, steps, DOTS_AT + (<usize>(each * BLOCK_ROWS) << 2));
    }
    if (allOverflown(queries)) return;
  }
}
