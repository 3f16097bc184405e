// Prints the worked example of bound.md: eight rows, one query, every number of the bound, and what the kernel kept.
import { encodeCodes, encodeQuery } from '../../functions/core/vectors/kernel/codes.ts';
import { CandidateScan } from '../../functions/core/vectors/kernel/candidate-scan.ts';
import { Kernel } from '../../functions/core/vectors/kernel/kernel.ts';
import type { ResidentRows } from '../../functions/core/vectors/kernel/resident.ts';
import { Rotation, rotationSeed } from '../../functions/core/vectors/kernel/rotation.ts';
import { scorerOf } from '../../functions/core/vectors/score.ts';
import { paddedDims, paddedRows } from '../../functions/core/vectors/vector.ts';

const dims = 4;
const padDims = paddedDims(dims);
const k = 2;
/** Its length lies between 1 and 2, so the power of two by which the kernel multiplies a query is 1. */
const query = Float32Array.of(1, 0.5, -0.25, 0.75);
const rows = [
  [0.9, 0.3, -0.1, 0.2],
  [0.5, 0.5, -0.5, 0.5],
  [0.2, 0.9, 0.1, 0.4],
  [0.498, 0.502, -0.5, 0.499],
  [0.1, -0.7, 0.6, 0.3],
  [0.6, 0.4, -0.3, 0.555],
  [-0.9, 0.1, 0.2, 0.3],
  [0, 0, 0, 0],
];

interface Placed {
  readonly kernel: Kernel;
  readonly resident: ResidentRows;
}

/** Puts rows and their codes into the memory of a kernel, as a loaded segment lies there. */
function place(vectors: Float32Array, count: number, width: number, coded: boolean): Placed {
  const padWidth = paddedDims(width);
  const padRows = paddedRows(count);
  const kernel = Kernel.create({ arenaBytes: padRows * (padWidth * 5 + 64) + 4_096 });
  let next = kernel.arenaAt;
  const put = (data: ArrayBufferView): number => {
    const at = next;
    kernel.bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    next += Math.ceil(data.byteLength / 64) * 64;
    return at;
  };
  let normMax = 0;
  for (let i = 0; i < count; i += 1)
    normMax = Math.max(normMax, length(vectors.subarray(i * padWidth, (i + 1) * padWidth)));
  const made = coded ? encodeCodes(vectors, count, width, padWidth) : undefined;
  const resident: ResidentRows = {
    rows: count,
    padRows,
    dims: width,
    padDims: padWidth,
    metric: 'dot',
    aux: put(new Float32Array(padRows)),
    vectors: made ? undefined : { at: put(vectors), dtype: 'f32' },
    codes: made && {
      at: put(made.codes),
      scales: put(made.scales),
      residuals: put(made.residuals),
      norms: put(made.norms),
      rotationSeed: made.rotationSeed,
    },
    normMax,
  };
  return { kernel, resident };
}

/** Rows that the kernel keeps, ascending; undefined if they were too many. */
function keptBy({ kernel, resident }: Placed, asked: Float32Array, wanted: number): number[] | undefined {
  const scan = new CandidateScan(kernel, 'dot', asked.length, [asked], [wanted], Number.NEGATIVE_INFINITY);
  const [complete] = scan.scan(0, resident, undefined);
  if (complete !== true) return undefined;
  return scan
    .candidates(0)
    .map(({ row }) => row)
    .sort((a, b) => a - b);
}

function length(values: ArrayLike<number>): number {
  let sum = 0;
  for (let j = 0; j < values.length; j += 1) sum += values[j]! * values[j]!;
  return Math.sqrt(sum);
}

const fixed = (value: number, width: number, digits: number) => value.toFixed(digits).padStart(width);
const list = (found: readonly number[] | undefined) => (found ? found.join(', ') : 'gives up');

/** The eight rows: each number of the int8 bound, the float32 bound beside it, the candidates of the kernel. */
function rowsTable(): string[] {
  const vectors = new Float32Array(paddedRows(rows.length) * padDims);
  for (const [i, row] of rows.entries()) vectors.set(row, i * padDims);
  const padded = Float64Array.from({ length: padDims }, (_, j) => query[j] ?? 0);
  const { values: e, step: t, residual: delta } = encodeQuery(padded);
  const { codes, scales, residuals, norms } = encodeCodes(vectors, rows.length, dims, padDims);
  const norm = length(query);
  const score = scorerOf('dot', query);
  const bounds = rows.map((_, i) => {
    let sum = 0;
    for (let j = 0; j < padDims; j += 1) sum += codes[i * padDims + j]! * e[j]!;
    const key = scales[i]! * t * sum;
    const error = norm * residuals[i]! + delta * norms[i]! + 1e-9 * norm * (norms[i]! + residuals[i]!);
    return { sum, key, error, lower: key - error, upper: key + error, score: score(vectors, i * padDims) };
  });
  const tau = bounds.map(({ lower }) => lower).sort((a, b) => b - a)[k - 1]!;
  const hits = bounds.map((_, i) => i).sort((a, b) => bounds[b]!.score - bounds[a]!.score);
  const lines = [
    `q = (${query.join(', ')}), |q| = ${norm.toFixed(6)}, k = ${k}`,
    `t = ${t.toExponential(6)}, e = (${e.slice(0, dims).join(', ')}), delta = ${delta.toExponential(3)}`,
    '',
    'row  s         rho       |x^|      c.e        s t (c.e)   E         L          U          q.x',
  ];
  for (const [i, { sum, key, error, lower, upper, score: exact }] of bounds.entries()) {
    const role = hits.indexOf(i) < k ? 'hit' : upper >= tau ? 'candidate' : 'left out';
    lines.push(
      [
        String(i).padEnd(3),
        fixed(scales[i]!, 8, 6),
        fixed(residuals[i]!, 8, 6),
        fixed(norms[i]!, 8, 6),
        String(sum).padStart(8),
        fixed(key, 10, 6),
        fixed(error, 9, 6),
        fixed(lower, 9, 6),
        fixed(upper, 9, 6),
        fixed(exact, 9, 6),
        role,
      ].join('  '),
    );
  }
  const m = padDims / 4 + 8;
  const g = (m * 2 ** -24) / (1 - m * 2 ** -24);
  const longest = Math.max(...rows.map((_, i) => length(vectors.subarray(i * padDims, (i + 1) * padDims))));
  lines.push(
    '',
    `tau = ${tau.toFixed(6)}, the ${k}nd largest L`,
    `the kernel keeps, by codes: ${list(keptBy(place(vectors, rows.length, dims, true), query, k))}`,
    '',
    `float32: m = ${m}, g = ${g.toExponential(3)}, E = ${(norm * longest * (g + 1e-9)).toExponential(3)} at most`,
    `the kernel keeps, by float32: ${list(keptBy(place(vectors, rows.length, dims, false), query, k))}`,
  );
  return lines;
}

/** rho / |x| of a row as encodeCodes computes it. */
function residualShare(row: Float64Array): number {
  const scale = row.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
  return length(row.map((value) => value - scale * Math.round(value / scale))) / length(row);
}

/** What a rotation does to rows with two coordinates much larger than the others. */
function rotationLines(): string[] {
  const width = 384;
  const count = 200;
  const vectors = new Float32Array(count * width);
  let state = 1;
  // A linear congruential generator is random enough for an example and the same everywhere.
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  for (let i = 0; i < count; i += 1) {
    const row = vectors.subarray(i * width, (i + 1) * width);
    for (let j = 0; j < width; j += 1) row[j] = random();
    const rest = length(row);
    row[7] = 3 * rest;
    row[100] = -3 * rest;
  }
  const rotation = new Rotation(rotationSeed, width);
  const median = (shares: number[]) => shares.sort((a, b) => a - b)[shares.length >>> 1]!;
  const rowAt = (i: number) => Float64Array.from(vectors.subarray(i * width, (i + 1) * width));
  const plain = median(Array.from({ length: count }, (_, i) => residualShare(rowAt(i))));
  const rotated = median(
    Array.from({ length: count }, (_, i) => {
      const row = rowAt(i);
      rotation.apply(row);
      return residualShare(row);
    }),
  );
  const { rotationSeed: chosen } = encodeCodes(vectors, count, width, width);
  return [
    `${count} rows of ${width} values, two of them three times as long as all the others together`,
    `rho / |x|, median: ${plain.toFixed(4)} as they are, ${rotated.toFixed(4)} rotated`,
    `encodeCodes rotates them: ${chosen === null ? 'no' : 'yes'}`,
  ];
}

/** Equal rows can not be told apart, so all of them are candidates, up to the limit. */
function overflowLines(): string[] {
  return [1_000, 1_200].map((count) => {
    const vectors = new Float32Array(count * padDims);
    for (let i = 0; i < count; i += 1) vectors.set(rows[1]!, i * padDims);
    const found = keptBy(place(vectors, count, dims, true), query, 1);
    return `${count} equal rows, k = 1: ${found ? `${found.length} candidates` : 'the kernel gives up'}`;
  });
}

/** The whole example. */
export function boundExample(): string {
  return [...rowsTable(), '', ...rotationLines(), '', ...overflowLines()].join('\n');
}
