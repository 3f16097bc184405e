"""The numbers that say how good a clustering is, in the space of the vectors themselves.

The reduced space would flatter them: it was made to pull neighbours together.
"""

from __future__ import annotations

import math

import numpy as np

_SILHOUETTE_ROWS_MAX = 2_000
_SCORED_ROWS_MAX = 20_000


def score(points: np.ndarray, labels: np.ndarray, rows: int, seed: int) -> dict[str, float | None]:
    """points: (n, d) as compared by the metric. labels: (n,), -1 for noise. rows: all rows of the run, usable or not.

    Silhouette from -1 to 1, Davies-Bouldin from 0 (best), Calinski-Harabasz from 0 (worst), noise_ratio from 0 to 1.
    None where a number has no meaning: fewer than two clusters, or as many clusters as rows.
    """
    members = np.flatnonzero(labels >= 0)
    count = np.unique(labels[members]).shape[0]
    result: dict[str, float | None] = {
        'silhouette_score': None,
        'davies_bouldin_index': None,
        'calinski_harabasz_score': None,
        'noise_ratio': round(1.0 - members.shape[0] / rows, 6) if rows else None,
        'avg_cluster_size': round(members.shape[0] / count, 6) if count else None,
    }
    if count < 2:
        return result
    from sklearn import metrics

    order = np.random.default_rng([seed, 3]).permutation(members)
    for name, measure, limit in (
        ('silhouette_score', metrics.silhouette_score, _SILHOUETTE_ROWS_MAX),
        ('davies_bouldin_index', metrics.davies_bouldin_score, _SCORED_ROWS_MAX),
        ('calinski_harabasz_score', metrics.calinski_harabasz_score, _SCORED_ROWS_MAX),
    ):
        chosen = np.sort(order[:limit])
        kinds = np.unique(labels[chosen]).shape[0]
        if 2 <= kinds < chosen.shape[0]:
            value = float(measure(points[chosen].astype(np.float64), labels[chosen]))
            result[name] = round(value, 6) if math.isfinite(value) else None
    return result
