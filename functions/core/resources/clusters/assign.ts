// Which centroid is nearest to a vector, and whether it is near enough; pure and exact.

/** Where groups lie. */
export interface Centroids {
  readonly metric: 'cosine' | 'dot' | 'euclid';
  readonly dims: number;
  /** Row-major, one row a group. */
  readonly vectors: Float64Array;
  /** For the metric euclid: how far the furthest member of each group is from its centroid. */
  readonly reach: readonly number[];
}

export interface Assignment {
  /** Place of the group; -1: none is near enough, or the vector has no direction. */
  readonly group: number;
  /** 0 to 1, or a negative cosine: how near it is to the nearest group. */
  readonly score: number;
}

/** Centroids are stored with seven digits, so a document that is its own centroid may miss 1 by less than this. */
const tolerance = 1e-6;

/**
 * The nearest group of each vector: the one with the largest cosine similarity, dot product, or the smallest distance,
 * the earlier of equal ones. Sums are in double precision.
 *
 * Near enough is a score of `threshold` or more. The score is the cosine similarity to the centroid; for the metric
 * euclid, whose distances have no scale of their own, 1 on the centroid, 0.5 where the furthest member of the group
 * is, and 0 from twice that distance on.
 *
 * @param rows row-major, `centroids.dims` numbers each
 */
export function assignRows(rows: Float32Array, centroids: Centroids, threshold: number): Assignment[] {
  const { dims, vectors, metric } = centroids;
  const groups = dims === 0 ? 0 : vectors.length / dims;
  const lengths = Array.from({ length: groups }, (_, g) =>
    Math.sqrt(dot(vectors, g * dims, vectors, g * dims, dims)),
  );
  const found: Assignment[] = [];
  for (let at = 0; at < rows.length; at += dims) {
    const length = Math.sqrt(dot(rows, at, rows, at, dims));
    let best = -1;
    let bestValue = Number.NEGATIVE_INFINITY;
    for (let g = 0; g < groups; g++) {
      const value = nearness(metric, rows, at, centroids, g, lengths[g]!);
      if (value > bestValue) {
        best = g;
        bestValue = value;
      }
    }
    const score = best < 0 ? undefined : scoreOf(centroids, best, bestValue, length, lengths[best]!);
    const isNear = score !== undefined && score >= threshold - tolerance;
    found.push({ group: isNear ? best : -1, score: score ?? 0 });
  }
  return found;
}

/** Larger is nearer; not a number, and so never the largest, for vectors that cannot be compared. */
function nearness(
  metric: Centroids['metric'],
  rows: Float32Array,
  at: number,
  { vectors, dims }: Centroids,
  group: number,
  centroidLength: number,
): number {
  if (metric === 'euclid') {
    let square = 0;
    for (let d = 0; d < dims; d++) {
      const difference = rows[at + d]! - vectors[group * dims + d]!;
      square += difference * difference;
    }
    return -square;
  }
  const product = dot(rows, at, vectors, group * dims, dims);
  // The length of the row is the same for every group, so it does not decide which is nearest.
  return metric === 'cosine' ? product / centroidLength : product;
}

function scoreOf(
  { metric, reach }: Centroids,
  group: number,
  value: number,
  length: number,
  centroidLength: number,
): number | undefined {
  if (metric === 'euclid') {
    const distance = Math.sqrt(-value);
    const far = 2 * (reach[group] ?? 0);
    if (far === 0) return distance === 0 ? 1 : 0;
    return Math.max(0, 1 - distance / far);
  }
  const cosine = metric === 'cosine' ? value / length : value / (length * centroidLength);
  // A vector of zeros has no direction.
  return Number.isFinite(cosine) ? Math.min(1, cosine) : undefined;
}

type Numbers = Float32Array | Float64Array;

function dot(a: Numbers, atA: number, b: Numbers, atB: number, dims: number): number {
  let sum = 0;
  for (let d = 0; d < dims; d++) sum += a[atA + d]! * b[atB + d]!;
  return sum;
}
