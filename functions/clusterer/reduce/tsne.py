"""t-SNE: a map that keeps small neighbourhoods apart from one another; distances across it mean little."""

from __future__ import annotations

import numpy as np

from reduce import pca
from reduce.neighbours import Neighbourhood
from reduce.placing import sampled

NAME = 'tsne'
# In 3 dimensions the tree of repulsions has eight branches instead of four, and costs three times as much.
ROWS_LAID_OUT_MAX = {2: 5_000, 3: 2_000}

_PERPLEXITY_MAX = 30.0
_DIMS_MAX = 50
# Where the rows start, as widely as in the usual implementations: close together, but not on one spot.
_START_SPREAD = 1e-4


def embed(neighbourhood: Neighbourhood, dims: int, seed: int) -> np.ndarray:
    """A map of the rows, (n, dims) float64, centred. Above 5,000 rows (2,000 in 3 dimensions) a sample is laid out and
    the rest placed in it. It starts from principal components, so that the large-scale order is that of the data."""
    points = neighbourhood.points
    if points.shape[1] > _DIMS_MAX:
        points = pca.components(points, _DIMS_MAX, seed)
    return sampled(points, ROWS_LAID_OUT_MAX[dims], dims, seed, lambda rows: _laid_out(rows, dims, seed))


def _laid_out(points: np.ndarray, dims: int, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n = points.shape[0]
    start = pca.components(points, dims, seed)
    spread = start[:, 0].std()
    start = start / (spread if spread > 0 else 1.0) * _START_SPREAD
    # Directions that the data do not fill would stay flat, and equal rows together.
    start += np.random.default_rng([seed, 10]).normal(0.0, _START_SPREAD * 1e-2, start.shape)
    model = TSNE(
        n_components=dims,
        perplexity=max(min(_PERPLEXITY_MAX, (n - 1) / 3.0), 0.5),
        init=start.astype(np.float32),
        learning_rate='auto',
        method='barnes_hut',
        random_state=seed,
        n_jobs=1,
    )
    # Several threads add up their shares in the order they finish.
    with threadpool_limits(limits=1, user_api='openmp'):
        places = model.fit_transform(points.astype(np.float32)).astype(np.float64)
    return places - places.mean(axis=0)
