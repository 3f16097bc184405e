"""Mean shift: every row climbs to the densest place within a bandwidth; rows that meet there are a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithms.task import Fit, Task, nearness

NAME = 'mean_shift'
ROWS_MAX = 2_000
CHOOSES_COUNT = True
NEEDED_BY = 'algorithm'
ADVICE = 'Another bandwidth finds larger or smaller groups.'


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """bandwidth null is estimated from bandwidth_quantile. A row's strength compares its own peak with the next."""
    from sklearn.cluster import MeanShift, estimate_bandwidth
    from sklearn.metrics import pairwise_distances

    points = task.points
    notes: list[str] = []
    chosen = {}
    bandwidth = task.params['bandwidth']
    if bandwidth is None:
        bandwidth = float(estimate_bandwidth(points, quantile=task.params['bandwidth_quantile']))
        if bandwidth <= 0:
            # So many rows are copies that the usual distance is none; the next best scale is that of all rows.
            bandwidth = float(estimate_bandwidth(points, quantile=1.0)) / 2.0
        bandwidth = max(bandwidth, 1e-9)
        chosen['bandwidth'] = round(bandwidth, 6)

    def shifted(bins: bool) -> MeanShift:
        return MeanShift(
            bandwidth=bandwidth,
            bin_seeding=bins,
            min_bin_freq=task.params['min_bin_freq'],
            cluster_all=task.params['cluster_all'],
            max_iter=task.params['max_iter'],
        ).fit(points)

    try:
        model = shifted(task.params['bin_seeding'])
    except ValueError:
        if not task.params['bin_seeding']:
            raise
        # No bin of the grid lies near any row, which happens in more than a few dimensions.
        model = shifted(False)
        notes.append('bin_seeding found no place to start from and was left out.')
    labels = np.asarray(model.labels_, dtype=np.int64)
    strengths = nearness(pairwise_distances(points, model.cluster_centers_))
    return Fit(labels, np.where(labels >= 0, strengths, 0.0), 'scikit-learn', notes, chosen)
