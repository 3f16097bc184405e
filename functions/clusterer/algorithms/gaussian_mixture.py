"""Gaussian mixture: a fixed number of overlapping bell-shaped groups; a row belongs to the likeliest."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from algorithms.task import Fit, Task, bounded_count

NAME = 'gaussian_mixture'
ROWS_MAX = 100_000
CHOOSES_COUNT = False
# A full covariance matrix is inverted in each step, for each component.
_FULL_DIMS_MAX = 100
_REGULARISATIONS = 6


def rows_needed(_params: dict[str, Any]) -> int:
    return 1


def fit(task: Task) -> Fit:
    """A row's strength is the probability of its component."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = task.points
    n, dims = points.shape
    notes: list[str] = []
    count = bounded_count(task, 'n_components', notes)
    if n == 1:
        return Fit(np.zeros(1, np.int64), np.ones(1), 'scikit-learn', notes)
    covariance = task.params['covariance_type']
    if covariance in ('full', 'tied') and dims > _FULL_DIMS_MAX:
        notes.append(f'covariance_type {covariance} takes {_FULL_DIMS_MAX} dimensions; diag was used for {dims}.')
        covariance = 'diag'
    regularisation = task.params['reg_covar']
    # Copies of one row have no spread, and a component that holds nothing else cannot be inverted.
    least = 1e-9 * max(float(points.var(axis=0).mean()), 1e-9)
    for attempt in range(_REGULARISATIONS):
        model = GaussianMixture(
            n_components=count,
            covariance_type=covariance,
            tol=task.params['tol'],
            reg_covar=regularisation,
            max_iter=task.params['max_iter'],
            n_init=task.params['n_init'],
            init_params=task.params['init_params'],
            random_state=task.random_state,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', ConvergenceWarning)
                model.fit(points)
            break
        except ValueError:
            if attempt == _REGULARISATIONS - 1:
                raise
            regularisation = max(regularisation, least) * 100.0
    if regularisation != task.params['reg_covar']:
        notes.append(f'reg_covar was raised to {regularisation:.3g}, because a component had no spread.')
    chances = model.predict_proba(points)
    labels = chances.argmax(axis=1).astype(np.int64)
    found = np.unique(labels).shape[0]
    if found < count:
        notes.append(f'{count - found} of {count} components are the likeliest for no document.')
    return Fit(labels, np.clip(chances.max(axis=1), 0.0, 1.0), 'scikit-learn', notes)
