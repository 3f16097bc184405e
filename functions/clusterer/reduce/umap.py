"""UMAP in NumPy and SciPy: keeps neighbours together, in few dimensions, without a compiler in the deployment."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from reduce import neighbours as nb
from reduce import pca

NAME = 'umap'
# The curve 1 / (1 + A d^(2B)) that fits a minimum distance of 0.1 and a spread of 1.
_A = 1.577
_B = 0.895
_NEGATIVES_PER_EDGE = 5
_STEP_MAX = 4.0
_START_EXTENT = 10.0
_EPOCHS_SMALL = 300
_EPOCHS_LARGE = 120
_SMALL_ROWS_MAX = 10_000
_ALL_PAIRS_ROWS_MAX = 400


def layout(graph: sparse.csr_matrix, start: np.ndarray, seed: int) -> np.ndarray:
    """Move the rows until graph neighbours are near and other rows are not.

    graph: (n, n) membership strengths. start: (n, dims) coordinates to begin from, of any scale.
    Returns (n, dims) float64, centred. Each epoch moves all rows at once: every edge pulls by its strength (the mean of
    what sampled edges would do), and a few random rows, or all of them when there are few, push.
    """
    n, dims = start.shape
    rng = np.random.default_rng(seed)
    spread = np.abs(start).max()
    place = start * (_START_EXTENT / spread) if spread > 0 else np.zeros((n, dims))
    # Rows that start on one spot would feel no force apart from one another.
    place = place + rng.normal(0.0, 1e-2, place.shape)
    epochs = _EPOCHS_SMALL if n <= _SMALL_ROWS_MAX else _EPOCHS_LARGE

    edges = graph.tocoo()
    strongest = edges.data.max() if edges.nnz else 1.0
    keep = edges.data >= strongest / epochs
    head = edges.row[keep].astype(np.int64)
    tail = edges.col[keep].astype(np.int64)
    weight = edges.data[keep] / strongest
    # Both directions of an edge are listed, and each moves its two ends.
    pull = 2.0 * weight
    degree = np.bincount(head, weights=weight, minlength=n)
    push_total = _NEGATIVES_PER_EDGE * degree
    all_pairs = n <= _ALL_PAIRS_ROWS_MAX
    draws = 8

    for epoch in range(epochs):
        rate = 1.0 - epoch / epochs
        away = place[head] - place[tail]
        squared = np.einsum('ij,ij->i', away, away)
        safe = np.maximum(squared, 1e-12)
        powered = safe**_B
        force = -2.0 * _A * _B * (powered / safe) / (1.0 + _A * powered)
        force[squared <= 0] = 0.0
        step = np.clip(force[:, None] * away, -_STEP_MAX, _STEP_MAX) * pull[:, None]
        move = np.empty_like(place)
        for axis in range(dims):
            move[:, axis] = np.bincount(head, weights=step[:, axis], minlength=n)

        if all_pairs:
            apart = place[:, None, :] - place[None, :, :]
            share = push_total[:, None] / max(n - 1, 1)
        else:
            others = rng.integers(0, n, size=(n, draws))
            apart = place[:, None, :] - place[others]
            share = push_total[:, None] / draws
        squared = np.einsum('ijk,ijk->ij', apart, apart)
        force = 2.0 * _B / ((0.001 + squared) * (1.0 + _A * squared**_B))
        step = np.clip(force[:, :, None] * apart, -_STEP_MAX, _STEP_MAX)
        move += np.einsum('ijk,ij->ik', step, np.broadcast_to(share, squared.shape))
        place = place + rate * np.clip(move, -_STEP_MAX, _STEP_MAX)
    return place - place.mean(axis=0)


def embed(points: np.ndarray, count: int, seed: int, graph: sparse.csr_matrix) -> np.ndarray:
    start = pca.components(points, count, seed)
    return layout(graph, start, seed)
