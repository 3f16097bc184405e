// Which rows of a block may be among the k best: a coarse comparison of four rows at a time, then a closer look.
//
// A row's key is cosine: aux (q.x); dot: q.x; euclid: 2 q.x - |x|^2. It is known up to an error E, so the score lies
// between the lower bound L = key - E and the upper bound U = key + E. The heap of a query keeps the k best L; the
// worst of them is tau, and a row with U < tau has k rows strictly above it. candidate-scan.ts derives the numbers.
import {
  BITMAP_AT, CANDIDATE_BYTES, CANDIDATE_LIST_BYTES, CANDIDATES_AT, CANDIDATES_MAX, HEAP_BYTES, HEAPS_AT, LIST_AT, Q_CAP,
  Q_COARSE, Q_COARSE_ADD, Q_COARSE_FACTOR, Q_COARSE_SLACK, Q_COARSE_STEP, Q_COUNT, Q_E0, Q_E1, Q_E2, Q_HEAP_SIZE, Q_K,
  Q_LIMIT, Q_OVERFLOWN, Q_PART_START, Q_PER_NORM, Q_PER_RESIDUAL, Q_STEP, Q_TAU, QUERY_BYTES, STAGE_SCALES_AT, STATE_AT,
} from './layout';
import { auxAt, COSINE, DOT, dtype, EUCLID, I8, metric, normsAt, part, residualsAt, rows, scalesAt } from './rows';

/** Numbers of a dot: a float32 key, int8 codes with stored scales, or int16 rows with scales of this block. */
const FLOAT: u32 = 0;
const CODES: u32 = 1;
const STAGED: u32 = 2;

let kind: u32 = 0;
let bitmapFirst: u32 = 0;
let masked: bool = false;
/** Queries that overflew since the scan of the part began. */
let overflown: u32 = 0;

/** Before the rows of a range or a list: the first row of the bitmap and whether to ask it, whether rows are staged floats. */
export function beginSelect(first: u32, ask: bool, staged: bool): void {
  bitmapFirst = first;
  masked = ask;
  kind = dtype == I8 ? CODES : staged ? STAGED : FLOAT;
  overflown = 0;
}

/** Whether none of the queries needs any more rows of this range or list. */
export function allOverflown(queries: u32): bool {
  return overflown >= queries;
}

@inline
function stateOf(query: u32): usize {
  return STATE_AT + <usize>query * QUERY_BYTES;
}

/** Derives the coarse threshold from tau, rounded down. */
export function refresh(query: u32): void {
  const state = stateOf(query);
  const tau = load<f64>(state, Q_TAU);
  let coarse = tau * load<f64>(state, Q_COARSE_FACTOR) - load<f64>(state, Q_COARSE_SLACK);
  // 2^-23 of it is more than the rounding to float32 adds, 2^-148 more than that of a denormal.
  coarse -= abs(coarse) * 1.1920928955078125e-7 + 2.802596928649634e-45;
  if (tau <= -load<f64>(state, Q_CAP)) coarse = -Infinity;
  store<f32>(state, <f32>coarse, Q_COARSE);
}

/** Keeps only the candidates that tau still lets through. */
export function compact(query: u32): u32 {
  const state = stateOf(query);
  const tau = load<f64>(state, Q_TAU);
  const count = load<u32>(state, Q_COUNT);
  const start = load<u32>(state, Q_PART_START);
  const list = CANDIDATES_AT + <usize>query * CANDIDATE_LIST_BYTES;
  let kept: u32 = 0;
  let keptBefore: u32 = 0;
  for (let i: u32 = 0; i < count; ++i) {
    if (i == start) keptBefore = kept;
    const from = list + <usize>i * CANDIDATE_BYTES;
    if (load<f64>(from) < tau) continue;
    v128.store(list + <usize>kept * CANDIDATE_BYTES, v128.load(from));
    ++kept;
  }
  store<u32>(state, start == count ? kept : keptBefore, Q_PART_START);
  store<u32>(state, kept, Q_COUNT);
  return kept;
}

/** Puts a candidate down; where there are too many even after dropping what tau has passed, the part has overflown. */
function push(query: u32, upper: f64, row: u32): void {
  const state = stateOf(query);
  let count = load<u32>(state, Q_COUNT);
  const limit = load<u32>(state, Q_LIMIT);
  if (count - load<u32>(state, Q_PART_START) >= limit || count >= CANDIDATES_MAX) {
    count = compact(query);
    // A quarter must have become free, so that the work of dropping stays in proportion.
    const start = load<u32>(state, Q_PART_START);
    if (count - start >= limit - (limit >> 2) || count >= CANDIDATES_MAX - (CANDIDATES_MAX >> 2)) {
      store<u32>(state, start, Q_COUNT);
      store<u32>(state, 1, Q_OVERFLOWN);
      ++overflown;
      return;
    }
  }
  const at = CANDIDATES_AT + <usize>query * CANDIDATE_LIST_BYTES + <usize>count * CANDIDATE_BYTES;
  store<f64>(at, upper);
  store<u32>(at, row, 8);
  store<u32>(at, part, 12);
  store<u32>(state, count + 1, Q_COUNT);
}

/** Offers a lower bound to the heap of the k best, the smallest on top. */
function offer(query: u32, lower: f64): void {
  const state = stateOf(query);
  const heap = HEAPS_AT + <usize>query * HEAP_BYTES;
  const k = load<u32>(state, Q_K);
  let size = load<u32>(state, Q_HEAP_SIZE);
  if (size < k) {
    let at = size;
    ++size;
    store<u32>(state, size, Q_HEAP_SIZE);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const value = load<f64>(heap + (<usize>parent << 3));
      if (value <= lower) break;
      store<f64>(heap + (<usize>at << 3), value);
      at = parent;
    }
    store<f64>(heap + (<usize>at << 3), lower);
    if (size < k) return;
  } else {
    if (k == 0 || lower <= load<f64>(heap)) return;
    let at: u32 = 0;
    for (;;) {
      let child: u32 = 2 * at + 1;
      if (child >= size) break;
      let value = load<f64>(heap + (<usize>child << 3));
      if (child + 1 < size) {
        const right = load<f64>(heap + (<usize>child << 3), 8);
        if (right < value) {
          value = right;
          ++child;
        }
      }
      if (value >= lower) break;
      store<f64>(heap + (<usize>at << 3), value);
      at = child;
    }
    store<f64>(heap + (<usize>at << 3), lower);
  }
  const worst = load<f64>(heap);
  if (worst > load<f64>(state, Q_TAU)) {
    store<f64>(state, worst, Q_TAU);
    refresh(query);
  }
}

/** The closer look at one row that passed the coarse comparison, with its dot and its scale. */
function consider(query: u32, row: u32, dot: usize, scale: usize): void {
  if (row >= rows) return;
  if (masked) {
    const bit = row - bitmapFirst;
    if (((load<u32>(BITMAP_AT + (<usize>(bit >> 5) << 2)) >> (bit & 31)) & 1) == 0) return;
  }
  const state = stateOf(query);
  if (load<u32>(state, Q_OVERFLOWN)) return;
  const offset = <usize>row << 2;
  let key: f64;
  let error: f64;
  if (kind == FLOAT) {
    key = <f64>load<f32>(dot);
    error = 0;
  } else {
    const step = <f64>load<f32>(scale);
    key = <f64>load<i32>(dot) * load<f64>(state, Q_STEP) * step;
    error =
      kind == STAGED
        ? step * load<f64>(state, Q_PER_RESIDUAL)
        : <f64>load<f32>(residualsAt + offset) * load<f64>(state, Q_PER_RESIDUAL) +
          <f64>load<f32>(normsAt + offset) * load<f64>(state, Q_PER_NORM);
  }
  if (metric == COSINE) {
    const aux = <f64>load<f32>(auxAt + offset);
    key *= aux;
    error *= aux;
  }
  error += load<f64>(state, Q_E0);
  if (metric == EUCLID) {
    const aux = <f64>load<f32>(auxAt + offset);
    key = 2 * key - aux;
    error += load<f64>(state, Q_E1) * Math.sqrt(aux) + load<f64>(state, Q_E2) * aux;
  }
  const cap = load<f64>(state, Q_CAP);
  const upper = max(key + error, -cap);
  if (!(upper >= load<f64>(state, Q_TAU))) return;
  push(query, upper, row);
  const lower = min(key - error, cap);
  offer(query, lower);
}

/** Key that the coarse comparison uses, of four rows; `aux` and `scale` are what they have there. */
@inline
function coarseKey(dot: v128, aux: v128, scale: v128, add: v128, factor: v128, k: u32, m: u32): v128 {
  if (k != FLOAT) {
    const key = f32x4.mul(scale, f32x4.add(f32x4.convert_i32x4_s(dot), add));
    if (m == COSINE) return f32x4.mul(aux, key);
    if (m == DOT) return key;
    return f32x4.sub(f32x4.mul(key, factor), aux);
  }
  if (m == COSINE) return f32x4.mul(aux, dot);
  if (m == DOT) return dot;
  return f32x4.sub(f32x4.add(dot, dot), aux);
}

/** What `base` has for four listed rows. */
@inline
function gather(base: usize, entry: usize): v128 {
  let v = v128.load_zero<f32>(base + (<usize>load<u32>(entry) << 2));
  v = v128.load_lane<f32>(base + (<usize>load<u32>(entry, 4) << 2), v, 1);
  v = v128.load_lane<f32>(base + (<usize>load<u32>(entry, 8) << 2), v, 2);
  return v128.load_lane<f32>(base + (<usize>load<u32>(entry, 12) << 2), v, 3);
}

/** Selects among `count` rows, from row `first` on or, if `entry` is not 0, those listed there. */
@inline
function select(query: u32, first: u32, entry: usize, count: u32, dots: usize, k: u32, m: u32, list: bool): void {
  const state = stateOf(query);
  const add = v128.load_splat<f32>(state + Q_COARSE_ADD);
  const factor = v128.load_splat<f32>(state + Q_COARSE_STEP);
  let aux = list ? auxAt : auxAt + (<usize>first << 2);
  let scale = k == STAGED ? STAGE_SCALES_AT : list ? scalesAt : scalesAt + (<usize>first << 2);
  let coarse = v128.load_splat<f32>(state + Q_COARSE);
  // The last four may reach past the run, which stays inside the memory; those lanes are cut off.
  for (let i: u32 = 0; i < count; i += 4) {
    const a = m == DOT ? add : list ? gather(aux, entry) : v128.load(aux);
    const s = k == FLOAT ? add : list && k == CODES ? gather(scale, entry) : v128.load(scale);
    const passed = f32x4.ge(coarseKey(v128.load(dots), a, s, add, factor, k, m), coarse);
    if (v128.any_true(passed)) {
      let lanes = i32x4.bitmask(passed);
      if (count - i < 4) lanes &= (1 << (count - i)) - 1;
      while (lanes) {
        const lane = ctz(lanes);
        lanes &= lanes - 1;
        const row = list ? load<u32>(entry + (<usize>lane << 2)) : first + i + lane;
        const scaleOf = k == CODES ? scalesAt + (<usize>row << 2) : scale + (<usize>lane << 2);
        consider(query, row, dots + (<usize>lane << 2), scaleOf);
      }
      if (load<u32>(state, Q_OVERFLOWN)) return;
      coarse = v128.load_splat<f32>(state + Q_COARSE);
    }
    dots += 16;
    if (list) entry += 16;
    else aux += 16;
    if (k == STAGED || !list) scale += 16;
  }
}

@inline
function selectBy(query: u32, first: u32, entry: usize, count: u32, dots: usize, k: u32, list: bool): void {
  if (metric == COSINE) select(query, first, entry, count, dots, k, COSINE, list);
  else if (metric == DOT) select(query, first, entry, count, dots, k, DOT, list);
  else select(query, first, entry, count, dots, k, EUCLID, list);
}

/** Selects among `count` rows from `first` on, whose dots lie at `dots`. */
export function selectRun(query: u32, first: u32, count: u32, dots: usize): void {
  if (load<u32>(stateOf(query), Q_OVERFLOWN)) return;
  if (kind == CODES) selectBy(query, first, 0, count, dots, CODES, false);
  else if (kind == STAGED) selectBy(query, first, 0, count, dots, STAGED, false);
  else selectBy(query, first, 0, count, dots, FLOAT, false);
}

/** Selects among `count` rows of the list from `position` on. */
export function selectList(query: u32, position: u32, count: u32, dots: usize): void {
  if (load<u32>(stateOf(query), Q_OVERFLOWN)) return;
  const entry = LIST_AT + (<usize>position << 2);
  if (kind == CODES) selectBy(query, 0, entry, count, dots, CODES, true);
  else if (kind == STAGED) selectBy(query, 0, entry, count, dots, STAGED, true);
  else selectBy(query, 0, entry, count, dots, FLOAT, true);
}
