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

    Silhouette from -1 to 1, Davies-Bouldin from 0 (best), Calinski-Harabasz from 0 (worst), noise_ratio from 0 to 1,
    cluster_size_entropy in nats: 0 for one cluster, log(count) for clusters of one size.
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
        'cluster_size_entropy': _entropy(labels[members]) if count else None,
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


def cosines(points: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """For each of the clusters 0 to count - 1: (sum, least, number) of the cosines of its members to its centroid.

    Members without a direction do not count; a cluster without any that has one, or whose members cancel out, has
    number 0. Returns (count, 3) float64.
    """
    result = np.zeros((count, 3))
    for label in range(count):
        own = points[labels == label].astype(np.float64)
        centre = own.mean(axis=0)
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(centre)
        pointed = lengths > 1e-12 * max(float(lengths.max()), 1e-300)
        if float(np.linalg.norm(centre)) <= 1e-12 * max(float(np.abs(own).max()), 1e-300):
            continue
        values = np.clip((own[pointed] @ centre) / lengths[pointed], -1.0, 1.0)
        result[label] = (values.sum(), values.min(), values.shape[0])
    return result


def of_cluster(alike: np.ndarray, label: int) -> dict[str, float | None]:
    """One cluster's figures from `cosines`: how much alike its members are, on average and at worst."""
    total, least, number = alike[label]
    if not number:
        return {'mean_cosine_similarity': None, 'min_cosine_similarity': None}
    return {'mean_cosine_similarity': round(total / number, 6), 'min_cosine_similarity': round(least, 6)}


def overall(alike: np.ndarray) -> dict[str, float | None]:
    """The same over the members of all clusters."""
    number = alike[:, 2].sum()
    if not number:
        return {'mean_cosine_to_centroid': None, 'min_cosine_to_centroid': None}
    return {
        'mean_cosine_to_centroid': round(float(alike[:, 0].sum() / number), 6),
        'min_cosine_to_centroid': round(float(alike[alike[:, 2] > 0, 1].min()), 6),
    }


def _entropy(labels: np.ndarray) -> float:
    shares = np.unique(labels, return_counts=True)[1] / labels.shape[0]
    return round(float(-(shares * np.log(shares)).sum()) + 0.0, 6)
