"""UMAP in NumPy and SciPy: keeps neighbours together in few dimensions, without a compiler in the deployment.

The usual package compiles itself anew in each cold process (20 CPU seconds for 1,797 images, against 1 here) and does
not fit a function's size limit. Source of the method: McInnes, Healy, Melville, arXiv 1802.03426.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from reduce import pca
from reduce.neighbours import Neighbourhood
from reduce.placing import sampled

NAME = 'umap'
# Strength at distance x is 1 / (1 + a x^(2b)). A map wants room between neighbours (minimum distance 0.1), a space to
# cluster in wants them on one heap (minimum distance 0).
MAP_CURVE = (1.577, 0.895)
HEAP_CURVE = (1.929, 0.7915)
ROWS_LAID_OUT_MAX = 20_000

_EPOCHS_FEW_ROWS = 300
_EPOCHS_MANY_ROWS = 120
_FEW_ROWS_MAX = 10_000
_FIRST_RATE = 0.3
_STEP_MAX = 4.0
_EXTENT = 10.0
_REPULSION = 5.0
# More random rows in each epoch make the same push with less chance in it.
_OTHERS_FEW_ROWS = 16
_OTHERS_MANY_ROWS = 8
_DIFFUSION_STEPS = 60
_EXTRA_DIRECTIONS = 8


def embed(
    neighbourhood: Neighbourhood, dims: int, seed: int, curve: tuple[float, float] = MAP_CURVE
) -> np.ndarray:
    """A map of the rows, (n, dims) float64, centred. Above 20,000 a sample is laid out, the rest placed in it."""
    if neighbourhood.points.shape[0] <= ROWS_LAID_OUT_MAX:
        return layout(neighbourhood, dims, seed, curve)
    return sampled(
        neighbourhood.points,
        ROWS_LAID_OUT_MAX,
        dims,
        seed,
        lambda rows: layout(Neighbourhood(rows), dims, seed, curve),
    )


def layout(neighbourhood: Neighbourhood, dims: int, seed: int, curve: tuple[float, float]) -> np.ndarray:
    """Move the rows until graph neighbours are near and other rows are not. Returns (n, dims) float64, centred.

    All rows move at once. In each epoch an edge pulls with the probability of its strength, and a few random rows push,
    as hard as five random rows for each edge that pulls. Equal input, seed and library versions give equal bits.
    """
    a, b = curve
    graph = neighbourhood.graph
    n = graph.shape[0]
    rng = np.random.default_rng(seed)
    place = _start(neighbourhood, dims, seed)
    # Rows that start on one spot would feel no force apart from one another.
    place = place * _EXTENT + rng.normal(0.0, 1e-2, place.shape)
    few = n <= _FEW_ROWS_MAX
    epochs = _EPOCHS_FEW_ROWS if few else _EPOCHS_MANY_ROWS
    others = _OTHERS_FEW_ROWS if few else _OTHERS_MANY_ROWS

    edges = graph.tocoo()
    strongest = edges.data.max() if edges.nnz else 1.0
    # An edge too weak to be drawn once in all epochs would only cost time.
    kept = edges.data >= strongest / epochs
    heads = edges.row[kept].astype(np.int64)
    tails = edges.col[kept].astype(np.int64)
    chance = edges.data[kept] / strongest
    push = _REPULSION / others * np.bincount(heads, weights=chance, minlength=n)

    for epoch in range(epochs):
        rate = _FIRST_RATE * (1.0 - epoch / epochs)
        drawn = rng.random(chance.shape[0]) < chance
        head = heads[drawn]
        away = place[head] - place[tails[drawn]]
        squared = np.maximum(np.einsum('ij,ij->i', away, away), 1e-12)
        curved = squared**b
        force = -2.0 * a * b * (curved / squared) / (1.0 + a * curved)
        # The graph lists each edge in both directions, and each drawn direction moves both of its ends.
        step = 2.0 * np.clip(force[:, None] * away, -_STEP_MAX, _STEP_MAX)
        move = np.stack([np.bincount(head, weights=step[:, axis], minlength=n) for axis in range(dims)], axis=1)

        away = place[:, None, :] - place[rng.integers(0, n, size=(n, others))]
        squared = np.einsum('ijk,ijk->ij', away, away)
        force = 2.0 * b / ((1e-3 + squared) * (1.0 + a * squared**b))
        step = np.clip(force[:, :, None] * away, -_STEP_MAX, _STEP_MAX)
        move += step.sum(axis=1) * push[:, None]
        place = place + np.clip(rate * move, -_STEP_MAX, _STEP_MAX)
    return place - place.mean(axis=0)


def _start(neighbourhood: Neighbourhood, dims: int, seed: int) -> np.ndarray:
    """Where the layout begins: principal components, smoothed along the graph. (n, dims), each column within [-1, 1].

    A fixed number of power steps of the graph's lazy random walk pulls the components towards its slowest directions,
    which are the large-scale order of the groups. A full eigenvector search would be slow just where it matters: on
    graphs that fall into parts.
    """
    graph = neighbourhood.graph
    n = graph.shape[0]
    width = min(dims + _EXTRA_DIRECTIONS, n - 2)
    coordinates = pca.components(neighbourhood.points, max(width, 0), seed)
    root = np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12))
    scale = sparse.diags(1.0 / root)
    walk = scale @ graph @ scale
    basis, _ = np.linalg.qr(np.column_stack([root, coordinates * root[:, None]]))
    for _ in range(_DIFFUSION_STEPS):
        basis, _ = np.linalg.qr((basis + walk @ basis) / 2.0)
    _, turn = np.linalg.eigh(basis.T @ (walk @ basis))
    slow = (basis @ turn[:, ::-1])[:, 1 : dims + 1]
    result = np.zeros((n, dims))
    extent = np.abs(slow).max(axis=0)
    result[:, : slow.shape[1]] = slow / np.where(extent > 0, extent, 1.0)
    # The sign of an eigenvector is an accident of the library; fix it.
    flip = np.take_along_axis(result, np.abs(result).argmax(axis=0)[None, :], axis=0)[0] < 0
    return result * np.where(flip, -1.0, 1.0)
