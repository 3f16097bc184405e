"""OPTICS: orders the rows by density and cuts groups of differing density out of that order; the rest is noise."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from algorithms.task import Fit, Task, agreement, usual_distance
from reduce.neighbours import neighbour_count

NAME = 'optics'
ROWS_MAX = 2_000
CHOOSES_COUNT = True
NEEDED_BY = 'min_samples and min_cluster_size'
ADVICE = 'A smaller min_samples or xi finds smaller groups.'


def rows_needed(params: dict[str, Any]) -> int:
    return max(params['min_samples'] or 2, _smallest(params, 0))


def fit(task: Task) -> Fit:
    """min_samples null is as many rows as make a neighbourhood: 15, fewer for few rows. cluster_method dbscan
    with eps null takes eps from the curve of the distances to the min_samples-th row."""
    from sklearn.cluster import OPTICS

    points = task.points
    n = points.shape[0]
    chosen: dict[str, float] = {}
    needed = task.params['min_samples']
    if needed is None:
        needed = chosen['min_samples'] = max(neighbour_count(n), 2)
    needed = min(needed, n)
    method, farthest, eps = task.params['cluster_method'], task.params['max_eps'], task.params['eps']
    if method == 'dbscan' and eps is None:
        eps = max(usual_distance(points, max(needed - 1, 1), task.seed), 1e-12)
        chosen['eps'] = round(eps, 6)
    farthest = np.inf if farthest is None else farthest
    if eps is not None:
        # Cutting beyond what was looked at is not possible.
        farthest = max(farthest, eps)
    given = task.params['min_cluster_size']
    model = OPTICS(
        min_samples=needed,
        max_eps=farthest,
        metric=task.params['metric'],
        p=task.params['p'],
        cluster_method=method,
        eps=eps,
        # At 1 the library divides by zero.
        xi=min(task.params['xi'], 1.0 - 1e-9),
        predecessor_correction=task.params['predecessor_correction'],
        min_cluster_size=None if given is None else min(_smallest(task.params, n), n),
    )
    with warnings.catch_warnings(), np.errstate(divide='ignore', invalid='ignore'):
        # Rows on one spot have a steepness of 0 / 0, and rows beyond max_eps are never reached: noise either way.
        warnings.simplefilter('ignore')
        labels = np.asarray(model.fit(points).labels_, dtype=np.int64)
    return Fit(labels, agreement(points, labels), 'scikit-learn', [], chosen)


def _smallest(params: dict[str, Any], rows: int) -> int:
    """min_cluster_size as a number of rows; up to 1 it is a share of them."""
    size = params['min_cluster_size']
    if size is None:
        return 2
    return max(2, round(size * rows) if size <= 1 else round(size))
