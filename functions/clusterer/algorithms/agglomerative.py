"""Agglomerative clustering: every row starts alone; the nearest groups are joined until the wanted number is left."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task, agreement, bounded_count

NAME = 'agglomerative'
# All pairs of rows are in memory, twice: 0.8 GB here.
ROWS_MAX = 10_000
CHOOSES_COUNT = False
_GAP_CLUSTERS_MAX = 50
_CLUSTERS_MAX = 1_000
# Clients send the default of n_clusters unasked, so only another one was meant.
_COUNT_DEFAULT = 2


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """distance_threshold, where given, decides, and n_clusters does not count. With neither, the cut goes through the
    widest relative gap between the heights of two joins that leaves from 2 to 50 clusters."""
    from scipy.cluster.hierarchy import linkage
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = task.points.shape[0]
    notes: list[str] = []
    chosen = {}
    if n == 1:
        return Fit(np.zeros(1, np.int64), np.ones(1), 'scipy', notes)
    joins = linkage(task.points, method=task.params['linkage'], metric='euclidean')
    heights = joins[:, 2]
    threshold = task.params['distance_threshold']
    if threshold is not None:
        count = n - int((heights <= threshold).sum())
        if task.params['n_clusters'] not in (None, _COUNT_DEFAULT):
            notes.append(f'distance_threshold decides, so n_clusters, {task.params["n_clusters"]}, does not count.')
        if count > _CLUSTERS_MAX:
            notes.append(f'distance_threshold leaves {count} clusters; joining went on to {_CLUSTERS_MAX}.')
            count = _CLUSTERS_MAX
    elif task.params['n_clusters'] is None:
        count = min(_widest_gap(heights), task.distinct_rows)
        chosen['n_clusters'] = count
    else:
        count = bounded_count(task, 'n_clusters', notes)
    made = n - count
    # A join names two earlier groups: rows are 0 to n - 1, and the group made by join i is n + i.
    group = np.arange(n, n + made)
    ends = joins[:made, :2].astype(np.int64)
    ties = (np.ones(2 * made), (np.concatenate([group, group]), np.concatenate([ends[:, 0], ends[:, 1]])))
    _, labels = connected_components(coo_matrix(ties, shape=(n + made, n + made)), directed=False)
    labels = np.unique(labels[:n], return_inverse=True)[1].astype(np.int64)
    return Fit(labels, agreement(task.points, labels), 'scipy', notes, chosen)


def _widest_gap(heights: np.ndarray) -> int:
    """How many clusters are left where the next join is highest above the last."""
    rising = np.maximum.accumulate(heights)
    most = min(_GAP_CLUSTERS_MAX, rising.shape[0])
    if most < 2:
        return rising.shape[0] + 1 if rising.size and rising[-1] > 0 else 1
    # counts[i] clusters are left if the join at height above[i] is not made.
    counts = np.arange(2, most + 1)
    above, below = rising[-(counts - 1)], rising[-counts]
    floor = max(float(rising[-1]) * 1e-3, 1e-12)
    return int(counts[int((above / np.maximum(below, floor)).argmax())])
