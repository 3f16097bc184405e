"""k-means: a fixed number of round groups, every row in one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task

NAME = 'kmeans'
ROWS_MAX = 100_000
CHOOSES_COUNT = False


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """A row's strength compares its own centre with the runner-up: 1 on the centre, 0 halfway between the two."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    wanted = task.params['n_clusters']
    count = min(wanted, task.distinct_rows)
    notes = []
    if count < wanted:
        notes.append(
            f'n_clusters was lowered from {wanted} to {count}, because there are only {count} different vectors.'
        )
    seed = task.params['random_state']
    model = KMeans(
        n_clusters=count,
        n_init=task.params['n_init'],
        max_iter=task.params['max_iter'],
        tol=task.params['tol'],
        random_state=task.seed if seed is None else seed,
    )
    # Several threads add up their shares in the order they finish, so that the last bits would differ between runs.
    with threadpool_limits(limits=1, user_api='openmp'):
        distances = model.fit_transform(task.points)
    labels = np.asarray(model.labels_, dtype=np.int64)
    if count == 1:
        return Fit(labels, np.ones(labels.shape[0]), 'scikit-learn', notes)
    nearest_two = np.partition(distances, 1, axis=1)[:, :2]
    runner_up = nearest_two[:, 1]
    strengths = np.where(runner_up > 0, 1.0 - nearest_two[:, 0] / np.where(runner_up > 0, runner_up, 1.0), 1.0)
    return Fit(labels, strengths, 'scikit-learn', notes)
