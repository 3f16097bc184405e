"""The map methods by name. A module offers NAME and `embed(neighbourhood, dims, seed)` -> (n, dims) float64.

To add one: a module here, and a line in REGISTRY.
"""

from __future__ import annotations

from types import ModuleType

from _errors import UnknownAlgorithm
from reduce import pca, tsne, umap

REGISTRY: dict[str, ModuleType] = {module.NAME: module for module in (umap, pca, tsne)}


def method(name: object) -> ModuleType:
    """The map method of that name. Raises UnknownAlgorithm."""
    if not isinstance(name, str) or name not in REGISTRY:
        raise UnknownAlgorithm(f'map.method: expected one of {", ".join(sorted(REGISTRY))}, got {name!r}')
    return REGISTRY[name]
