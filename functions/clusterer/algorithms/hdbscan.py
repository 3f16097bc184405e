"""HDBSCAN: dense groups of any shape, the rest is noise. It finds the number of clusters itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task

NAME = 'hdbscan'
ROWS_MAX = 100_000
CHOOSES_COUNT = True
# Up to here scikit-learn's version is quick enough; above, its time grows with the square of the rows (28.5 against
# 4.7 CPU seconds for 50,000 rows in 15 dimensions), and the hdbscan package is worth its import.
_SCIKIT_ROWS_MAX = 20_000


def rows_needed(params: dict[str, Any]) -> int:
    return params['min_cluster_size']


def fit(task: Task) -> Fit:
    rows = task.points.shape[0]
    chosen = {key: value for key, value in task.params.items() if key not in ('min_samples', 'max_cluster_size')}
    # A row cannot have more neighbours than there are rows.
    chosen['min_samples'] = min(task.params['min_samples'] or task.params['min_cluster_size'], rows)
    largest = task.params['max_cluster_size']
    if rows <= _SCIKIT_ROWS_MAX:
        from sklearn.cluster import HDBSCAN

        model = HDBSCAN(max_cluster_size=largest, copy=True, **chosen)
        implementation = 'scikit-learn'
    else:
        from hdbscan import HDBSCAN

        model = HDBSCAN(max_cluster_size=largest or 0, core_dist_n_jobs=1, **chosen)
        implementation = 'hdbscan'
    model.fit(task.points)
    strengths = np.nan_to_num(np.asarray(model.probabilities_, dtype=np.float64))
    return Fit(np.asarray(model.labels_, dtype=np.int64), strengths, implementation)
