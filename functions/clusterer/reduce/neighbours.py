"""Exact nearest neighbours and the fuzzy neighbour graph that UMAP lays out.

The neighbours are exact, found by blocked matrix products: up to twenty thousand rows this is faster than building an
approximate index, and it is the same on every run.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

NEIGHBOURS = 15
_BLOCK_ELEMENTS = 8_000_000
_SIGMA_STEPS = 64
_SIGMA_FLOOR = 1e-3


def nearest(points: np.ndarray, k: int, queries: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of `points` to each query, nearest first.

    points: (n, d). queries: (m, d), or None for the points themselves, in which case a row is never its own neighbour.
    Returns (indices (m, k) int64, euclidean distances (m, k) float64). k is at most n, or n - 1 without queries.
    Equal distances are ordered by row number, so the answer does not depend on how the work was cut up.
    """
    own = queries is None
    asked = points if own else queries
    n = points.shape[0]
    k = min(k, n - 1 if own else n)
    if k <= 0:
        return np.empty((asked.shape[0], 0), np.int64), np.empty((asked.shape[0], 0))
    # Centring keeps the expansion |a|^2 - 2ab + |b|^2 from losing its digits when all rows lie far from the origin.
    centre = points.mean(axis=0, dtype=np.float64)
    base = (points - centre).astype(np.float32)
    base_squares = np.einsum('ij,ij->i', base, base)
    wanted = base if own else (asked - centre).astype(np.float32)
    # A few candidates too many, so that single-precision rounding cannot push a true neighbour out.
    candidates = min(k + 4, n - 1 if own else n)
    indices = np.empty((asked.shape[0], k), np.int64)
    distances = np.empty((asked.shape[0], k))
    rows_per_block = max(1, _BLOCK_ELEMENTS // max(n, candidates * points.shape[1]))
    for start in range(0, asked.shape[0], rows_per_block):
        block = wanted[start : start + rows_per_block]
        rough = base_squares - 2.0 * (block @ base.T)
        rows = np.arange(block.shape[0])
        if own:
            rough[rows, start + rows] = np.inf
        near = np.argpartition(rough, candidates - 1, axis=1)[:, :candidates]
        near.sort(axis=1)
        exact = np.linalg.norm(base[near].astype(np.float64) - block[:, None, :], axis=2)
        order = np.argsort(exact, axis=1, kind='stable')[:, :k]
        indices[start : start + rows_per_block] = np.take_along_axis(near, order, axis=1)
        distances[start : start + rows_per_block] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


def fuzzy_graph(indices: np.ndarray, distances: np.ndarray) -> sparse.csr_matrix:
    """The symmetric graph of membership strengths, from each row's nearest neighbours.

    A row belongs fully to its nearest neighbour; the strength then falls off exponentially, at a rate chosen by bisection
    so that the strengths of a row add up to log2(k + 1). Two opinions about one pair are joined by a fuzzy union.
    Source: McInnes, Healy, Melville, "UMAP" (arXiv 1802.03426), section 3.
    Returns an (n, n) CSR matrix with values in (0, 1].
    """
    n, k = indices.shape
    goal = np.log2(k + 1)
    positive = np.where(distances > 0, distances, np.inf)
    nearest_distance = positive.min(axis=1)
    nearest_distance[~np.isfinite(nearest_distance)] = 0.0
    beyond = np.maximum(distances - nearest_distance[:, None], 0.0)

    low = np.zeros(n)
    high = np.full(n, np.inf)
    sigma = np.ones(n)
    for _ in range(_SIGMA_STEPS):
        total = np.exp(-beyond / sigma[:, None]).sum(axis=1) + 1.0 - 1.0
        too_wide = total > goal
        high = np.where(too_wide, sigma, high)
        low = np.where(too_wide, low, sigma)
        sigma = np.where(np.isfinite(high), (low + high) / 2.0, sigma * 2.0)
    row_mean = distances.mean(axis=1)
    floor = _SIGMA_FLOOR * np.where(nearest_distance > 0, row_mean, distances.mean())
    sigma = np.maximum(sigma, np.maximum(floor, np.finfo(np.float64).tiny))

    strengths = np.exp(-beyond / sigma[:, None])
    rows = np.repeat(np.arange(n), k)
    directed = sparse.csr_matrix((strengths.ravel(), (rows, indices.ravel())), shape=(n, n))
    both = directed.multiply(directed.T)
    graph = (directed + directed.T - both).tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph
