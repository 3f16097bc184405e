"""Layouts of more rows than a layout takes: a sample is laid out, and the others are placed among it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reduce.neighbours import nearest

_ANCHORS = 5


def sampled(
    points: np.ndarray, rows_max: int, dims: int, seed: int, lay_out: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Lays out at most `rows_max` of the (n, d) points; each other goes to the weighted mean of its 5 nearest there.

    lay_out: (rows, d) -> (rows, dims). Returns (n, dims) float64. The sample depends on the seed alone.
    """
    n = points.shape[0]
    if n <= rows_max:
        return lay_out(points)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:rows_max])
    laid_out = lay_out(points[chosen])
    result = np.empty((n, dims))
    result[chosen] = laid_out
    others = np.setdiff1d(np.arange(n), chosen, assume_unique=True)
    indices, distances = nearest(points[chosen], _ANCHORS, queries=points[others])
    weights = 1.0 / (distances + 1e-3 * (distances.mean() + 1e-12))
    weights /= weights.sum(axis=1, keepdims=True)
    result[others] = np.einsum('ij,ijk->ik', weights, laid_out[indices])
    return result
