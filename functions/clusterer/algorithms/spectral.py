"""Spectral clustering: cuts the graph of neighbours into a fixed number of parts where few ties cross."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse

from algorithms.task import Fit, Task, agreement, bounded_count
from reduce.neighbours import nearest

NAME = 'spectral'
ROWS_MAX = 10_000
CHOOSES_COUNT = False
# Ties between all pairs of rows, three times in memory: 0.6 GB here.
_DENSE_ROWS_MAX = 5_000
_SCALE_ROWS_MAX = 2_000
_BRIDGE = 1e-3


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """affinity rbf takes gamma from the median distance if it is null. Parts of the graph without any tie between them
    are bridged by ties too weak to matter, or the eigenvectors would be arbitrary."""
    from sklearn.cluster import SpectralClustering

    points = task.points
    n = points.shape[0]
    notes: list[str] = []
    chosen = {}
    count = bounded_count(task, 'n_clusters', notes)
    if count == 1:
        return Fit(np.zeros(n, np.int64), np.ones(n), 'scikit-learn', notes)
    if count == n:
        return Fit(np.arange(n), np.ones(n), 'scikit-learn', notes)
    affinity = task.params['affinity']
    if affinity == 'rbf' and n > _DENSE_ROWS_MAX:
        notes.append(
            f'affinity rbf compares all pairs and takes {_DENSE_ROWS_MAX} rows; nearest_neighbors was used for {n}.'
        )
        affinity = 'nearest_neighbors'
    if affinity == 'rbf':
        gamma = task.params['gamma']
        if gamma is None:
            gamma = _gamma(points, task.seed)
            chosen['gamma'] = float(f'{gamma:.6g}')
        ties = _alike(points, gamma)
    else:
        ties = _bridged(_neighbour_ties(points, task.params['n_neighbors']), points)
    model = SpectralClustering(
        n_clusters=count,
        n_components=min(task.params['n_components'] or count, n - 1),
        affinity='precomputed',
        assign_labels=task.params['assign_labels'],
        n_init=task.params['n_init'],
        random_state=task.random_state,
        eigen_solver='arpack',
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        labels = np.asarray(model.fit_predict(ties), dtype=np.int64)
    return Fit(labels, agreement(points, labels), 'scikit-learn', notes, chosen)


def _neighbour_ties(points: np.ndarray, neighbours: int) -> sparse.csr_matrix:
    n = points.shape[0]
    indices, _ = nearest(points, neighbours)
    heads = np.repeat(np.arange(n), indices.shape[1])
    ties = sparse.csr_matrix((np.ones(heads.shape[0]), (heads, indices.ravel())), shape=(n, n))
    return ((ties + ties.T) * 0.5).tocsr()


def _bridged(ties: sparse.csr_matrix, points: np.ndarray) -> sparse.csr_matrix:
    """Adds a weak tie between neighbouring parts, along the shortest tree that joins the middles of all parts."""
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
    from scipy.spatial.distance import cdist

    count, part = connected_components(ties, directed=False)
    if count == 1:
        return ties
    sizes = np.bincount(part)
    middles = np.stack([np.bincount(part, weights=axis) for axis in points.T], axis=1) / sizes[:, None]
    # Zero means "no way" to the tree, so that equal middles need a length.
    lengths = cdist(middles, middles)
    lengths += 1e-9 * (lengths.max() + 1e-300) * (1.0 - np.eye(count))
    tree = minimum_spanning_tree(lengths).tocoo()
    rows = [np.flatnonzero(part == c) for c in range(count)]

    def closest(own: int, other: int) -> int:
        return int(rows[own][np.linalg.norm(points[rows[own]] - middles[other], axis=1).argmin()])

    heads = np.array([closest(a, b) for a, b in zip(tree.row, tree.col, strict=True)])
    tails = np.array([closest(b, a) for a, b in zip(tree.row, tree.col, strict=True)])
    bridges = sparse.csr_matrix((np.full(heads.shape[0], _BRIDGE), (heads, tails)), shape=ties.shape)
    return (ties + bridges + bridges.T).tocsr()


def _alike(points: np.ndarray, gamma: float) -> np.ndarray:
    from sklearn.metrics.pairwise import rbf_kernel

    # No pair is wholly unlike: rows without any tie would have no place in the spectrum.
    return np.maximum(rbf_kernel(points, gamma=gamma), 1e-9)


def _gamma(points: np.ndarray, seed: int) -> float:
    """1 over the median squared distance of two rows, from a sample."""
    from scipy.spatial.distance import pdist

    rows = np.sort(np.random.default_rng([seed, 9]).permutation(points.shape[0])[:_SCALE_ROWS_MAX])
    middle = float(np.median(pdist(points[rows], 'sqeuclidean')))
    return 1.0 / middle if middle > 0 else 1.0
