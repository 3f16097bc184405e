"""What may be done to the vectors before everything else: steps by name, applied in the order of the request.

To add one: a function here, and a line in STEPS. A step gets (n, d) float32 finite rows and the number of components
asked for (None where it takes none or none was named), and returns (n, d') float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reduce import pca


@dataclass(frozen=True)
class Step:
    """One step of a request, checked."""

    name: str
    components: int | None = None


def apply(steps: tuple[Step, ...], points: np.ndarray, seed: int) -> np.ndarray:
    for step in steps:
        if points.shape[0] == 0:
            break
        points = STEPS[step.name](points, step.components, seed)
    return points


def _l2_normalize(points: np.ndarray, _components: int | None, _seed: int) -> np.ndarray:
    """Rows of length 1. A row of zeros stays as it is."""
    length = np.sqrt(np.einsum('ij,ij->i', points, points, dtype=np.float64))
    return (points / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)


def _center(points: np.ndarray, _components: int | None, _seed: int) -> np.ndarray:
    return (points - points.mean(axis=0, dtype=np.float64)).astype(np.float32)


def _standardize(points: np.ndarray, _components: int | None, _seed: int) -> np.ndarray:
    """Mean 0 and deviation 1 in every dimension. One that never changes becomes 0."""
    spread = points.std(axis=0, dtype=np.float64)
    centred = points - points.mean(axis=0, dtype=np.float64)
    return (centred / np.where(spread > 0, spread, np.inf)).astype(np.float32)


def _pca(points: np.ndarray, components: int | None, seed: int) -> np.ndarray:
    return pca.components(points, _possible(points, components), seed).astype(np.float32)


def _whiten(points: np.ndarray, components: int | None, seed: int) -> np.ndarray:
    """Principal components of deviation 1 each. Directions without spread are left at 0, not blown up."""
    turned = pca.components(points, _possible(points, components), seed)
    spread = turned.std(axis=0)
    return (turned / np.where(spread > 1e-6 * max(float(spread.max()), 1e-300), spread, np.inf)).astype(np.float32)


def _possible(points: np.ndarray, components: int | None) -> int:
    """As many components as asked for, at most one for each dimension. At least one, or nothing would be left."""
    return max(1, min(components or points.shape[1], points.shape[1]))


STEPS: dict[str, Callable[[np.ndarray, int | None, int], np.ndarray]] = {
    'l2_normalize': _l2_normalize,
    'center': _center,
    'standardize': _standardize,
    'pca': _pca,
    'whiten': _whiten,
}
WITH_COMPONENTS = frozenset(('pca', 'whiten'))
