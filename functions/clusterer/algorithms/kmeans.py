"""k-means: a fixed number of round groups, every row in one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task, bounded_count, nearness

NAME = 'kmeans'
ROWS_MAX = 100_000
CHOOSES_COUNT = False


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """A row's strength compares its own centre with the runner-up: 1 on the centre, 0 halfway between the two."""
    from sklearn.cluster import KMeans

    notes: list[str] = []
    model = KMeans(
        n_clusters=bounded_count(task, 'n_clusters', notes),
        n_init=task.params['n_init'],
        max_iter=task.params['max_iter'],
        tol=task.params['tol'],
        init=task.params['init'],
        random_state=task.random_state,
    )
    distances = model.fit_transform(task.points)
    return Fit(np.asarray(model.labels_, dtype=np.int64), nearness(distances), 'scikit-learn', notes)
