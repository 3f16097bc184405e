// The score of one row for one query, in double precision: what hits show and are ranked by.
import { dotAt, inverseNorm, type Metric, paddedDims, squaredDistanceAt, squaredNormAt } from './vector.ts';

/** @returns the score of the row whose vector is `values[at .. at + padDims)`, padded with zeros */
export type Scorer = (values: Float32Array, at: number) => number;

/** Scores rows for one query; a zero is never negative, so that equal scores are the same value. @see search.ts for what the scores of each metric are */
export function scorerOf(metric: Metric, query: Float32Array): Scorer {
  const padDims = paddedDims(query.length);
  const padded = new Float32Array(padDims);
  padded.set(query);
  const q = Float64Array.from(padded);
  if (metric === 'dot') return (values, at) => dotAt(q, 0, values, at, padDims) + 0;
  // 0 minus, so that an equal vector has the score 0 and not -0.
  if (metric === 'euclid') return (values, at) => 0 - squaredDistanceAt(q, 0, values, at, padDims);
  const queryFactor = inverseNorm(squaredNormAt(padded, 0, padDims));
  return (values, at) => {
    const product = dotAt(q, 0, values, at, padDims);
    const factor = rowFactor(inverseNorm(squaredNormAt(values, at, padDims)));
    // Cut before ranking: rounding must not put one of two equal directions above the other.
    return Math.max(-1, Math.min(1, product * factor * queryFactor)) + 0;
  };
}

/** The inverse length as segments keep it, in float32, but for lengths that float32 cannot hold well. */
function rowFactor(inverse: number): number {
  const stored = Math.fround(inverse);
  return stored < 2 ** -100 || stored > 2 ** 100 ? inverse : stored;
}
