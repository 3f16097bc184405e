"""DBSCAN: groups of rows that have enough neighbours within a fixed radius; the rest is noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task, usual_distance
from reduce.neighbours import neighbour_count

NAME = 'dbscan'
ROWS_MAX = 100_000
ROWS_MAX_WIDE = 20_000
CHOOSES_COUNT = True
NEEDED_BY = 'min_samples'
ADVICE = 'A larger eps or a smaller min_samples finds looser groups.'
# The neighbour lists of all rows are in memory at once, 8 bytes an entry.
_LISTED_MAX = 40_000_000
_COUNTED_ROWS = 500


def rows_needed(params: dict[str, Any]) -> int:
    return params['min_samples'] or 2


def fit(task: Task) -> Fit:
    """min_samples null is as many rows as make a neighbourhood: 15, fewer for few rows. eps null is read
    off the curve of the distances to the min_samples-th row. Rows with enough neighbours have strength 1, those at the
    border of a group the share that they have of min_samples."""
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    points = task.points
    n = points.shape[0]
    notes: list[str] = []
    chosen: dict[str, float] = {}
    needed = task.params['min_samples']
    if needed is None:
        needed = chosen['min_samples'] = max(neighbour_count(n), 2)
    eps = task.params['eps']
    if eps is None:
        # A row counts itself.
        eps = usual_distance(points, max(needed - 1, 1), task.seed)
        chosen['eps'] = round(eps, 6)
    eps = max(eps, 1e-12)

    rows = np.arange(n)
    listed = _listed(points, eps, task.seed)
    if listed > _LISTED_MAX:
        # So wide a radius holds hundreds of rows; a sample has the same groups.
        kept = max(int(n * (_LISTED_MAX / listed) ** 0.5), min(n, 2 * needed))
        rows = np.sort(np.random.default_rng([task.seed, 7]).permutation(n)[:kept])
        notes.append(
            f'eps {eps:.4g} is so wide that a row has {listed / n:.0f} neighbours on average; {kept} rows were '
            'clustered and each other row joined the nearest of them within eps.'
        )
    model = DBSCAN(eps=eps, min_samples=needed, metric='euclidean').fit(points[rows])
    labels = np.full(n, -1, np.int64)
    strengths = np.zeros(n)
    labels[rows] = model.labels_
    strengths[rows[model.core_sample_indices_]] = 1.0
    borders = np.setdiff1d(np.flatnonzero(labels >= 0), rows[model.core_sample_indices_])
    if borders.size:
        tree = NearestNeighbors(radius=eps).fit(points[rows])
        counts = np.array([near.size for near in tree.radius_neighbors(points[borders], return_distance=False)])
        strengths[borders] = np.minimum(counts / needed, 1.0)
    if rows.size < n and model.core_sample_indices_.size:
        core = rows[model.core_sample_indices_]
        others = np.setdiff1d(np.arange(n), rows, assume_unique=True)
        distance, index = NearestNeighbors(n_neighbors=1).fit(points[core]).kneighbors(points[others])
        inside = distance[:, 0] <= eps
        labels[others] = np.where(inside, labels[core[index[:, 0]]], -1)
        strengths[others] = np.where(inside, 1.0 - 0.5 * distance[:, 0] / eps, 0.0)
    return Fit(labels, strengths, 'scikit-learn', notes, chosen)


def _listed(points: np.ndarray, eps: float, seed: int) -> float:
    """About how many entries the neighbour lists of all rows have together, from a few hundred rows."""
    n = points.shape[0]
    asked = np.sort(np.random.default_rng([seed, 8]).permutation(n)[:_COUNTED_ROWS])
    squares = np.einsum('ij,ij->i', points, points)
    rough = squares[asked][:, None] + squares - 2.0 * (points[asked] @ points.T)
    return float((rough <= eps * eps).sum()) / asked.shape[0] * n
