"""Principal components: the fast linear map, and where UMAP starts from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reduce.neighbours import Neighbourhood

NAME = 'pca'
_EXACT_SIDE_MAX = 600
_OVERSAMPLE = 10
_POWER_STEPS = 5
_COPIED_ELEMENTS_MAX = 5_000_000
_BLOCK_ROWS = 10_000


def components(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Coordinates of the rows along the `count` directions of greatest variance.

    points: (n, d). Returns (n, count) float64; columns that the data cannot fill are zero. Each direction points the
    way that makes its largest loading positive, because the sign of an eigenvector is otherwise an accident of the
    library.
    """
    n, d = points.shape
    result = np.zeros((n, count))
    usable = min(count, d, max(n - 1, 0))
    if usable == 0:
        return result
    few = n * d <= _COPIED_ELEMENTS_MAX
    if d <= _EXACT_SIDE_MAX and not few:
        mean = points.mean(axis=0, dtype=np.float64)
        basis = _pointing(_basis_of_many(points, mean, usable))
        for block in _blocks(n):
            result[block, :usable] = (points[block] - mean).astype(np.float32) @ basis.astype(np.float32)
        return result
    centred = points.astype(np.float64 if few else np.float32)
    centred -= centred.mean(axis=0)
    if min(n, d) <= _EXACT_SIDE_MAX:
        basis = _exact_basis(centred, usable)
    else:
        basis = _sketched_basis(centred, usable, seed)
    result[:, :usable] = centred @ _pointing(basis).astype(centred.dtype)
    return result


def _pointing(basis: np.ndarray) -> np.ndarray:
    """The same directions, each turned so that its largest loading is positive."""
    largest = np.abs(basis).argmax(axis=0)
    return basis * np.where(basis[largest, np.arange(basis.shape[1])] < 0, -1.0, 1.0)


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, rows, _BLOCK_ROWS))


def _basis_of_many(points: np.ndarray, mean: np.ndarray, count: int) -> np.ndarray:
    """The directions of greatest variance of many short rows, block by block: no copy of all of them is made."""
    products = np.zeros((points.shape[1], points.shape[1]))
    for block in _blocks(points.shape[0]):
        centred = (points[block] - mean).astype(np.float32)
        products += centred.T @ centred
    return np.linalg.eigh(products)[1][:, ::-1][:, :count]


def embed(neighbourhood: Neighbourhood, dims: int, seed: int) -> np.ndarray:
    """The registry's form of `components`: a map by principal components needs no neighbour graph."""
    return components(neighbourhood.points, dims, seed)


def _exact_basis(centred: np.ndarray, count: int) -> np.ndarray:
    n, d = centred.shape
    if d <= n:
        _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        return vectors[:, ::-1][:, :count]
    values, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    left = left[:, ::-1][:, :count]
    scale = np.sqrt(np.maximum(values[::-1][:count], 0.0))
    basis = centred.T @ left
    return basis / np.where(scale > 1e-12 * max(scale[0], 1e-300), scale, np.inf)


def _sketched_basis(centred: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Randomised range finder with power steps (Halko, Martinsson, Tropp 2011), seeded."""
    rng = np.random.default_rng(seed)
    width = min(count + _OVERSAMPLE, *centred.shape)
    basis = rng.standard_normal((centred.shape[1], width)).astype(centred.dtype)
    for _ in range(_POWER_STEPS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    projected = (centred @ basis).astype(np.float64)
    _, vectors = np.linalg.eigh(projected.T @ projected)
    return basis.astype(np.float64) @ vectors[:, ::-1][:, :count]
