"""The event of a run, checked and filled in with its defaults.

The API has checked all this before; here is the second line, because the event is also what a person writes by hand
when they repeat a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import algorithms
import reduce
from _errors import InvalidEvent

METRICS = ('cosine', 'dot', 'euclid')
DIMS_MAX = 4096
ROWS_MAX = 5_000_000
KEYWORDS_DEFAULT = 10
KEYWORDS_MAX = 50


@dataclass(frozen=True)
class LabelOptions:
    """How much of each cluster is shown. Counts are per cluster; keywords 0 means a label without a keyword list."""

    samples_per_cluster: int = 10
    sample_chars: int = 200
    keywords: int = KEYWORDS_DEFAULT


@dataclass(frozen=True)
class Request:
    """One run, ready to use: every field is of its type and in its range."""

    rows: int
    dims: int
    metric: str
    algorithm: str
    params: dict[str, Any]
    map_method: str
    map_dims: int
    seed: int
    labels: LabelOptions = field(default_factory=LabelOptions)
    vectors_url: str = ''
    texts_url: str = ''
    result_url: str = ''
    previous: dict[str, str] = field(default_factory=dict)
    previous_url: str = ''


def parse(event: object) -> Request:
    """Raises InvalidEvent, UnknownAlgorithm or InvalidParameter with the field, what came and what is wanted."""
    if not isinstance(event, dict):
        raise InvalidEvent(f'the event must be an object, got {type(event).__name__}')
    rows = _whole(event, 'rows', 0, ROWS_MAX)
    dims = _whole(event, 'dims', 1, DIMS_MAX) if rows else _whole(event, 'dims', 0, DIMS_MAX, 0)
    metric = event.get('metric', 'cosine')
    if metric not in METRICS:
        raise InvalidEvent(f'metric: expected one of {", ".join(METRICS)}, got {metric!r}')

    algorithm = _object(event, 'algorithm', {'name': 'hdbscan'})
    name = algorithm.get('name')
    params = algorithms.checked_params(name, algorithm.get('params') or {})

    chart = _object(event, 'map', {})
    method = chart.get('method', 'umap')
    reduce.method(method)
    map_dims = _whole(chart, 'n_components', 2, 3, 2, 'map.')

    labels = _object(event, 'labels', {})
    previous = _object(event, 'previous', {})
    return Request(
        rows=rows,
        dims=dims,
        metric=metric,
        algorithm=name,
        params=params,
        map_method=method,
        map_dims=map_dims,
        seed=_whole(event, 'seed', 0, 2**32 - 1, 42),
        labels=LabelOptions(
            samples_per_cluster=_whole(labels, 'samples_per_cluster', 0, 50, 10, 'labels.'),
            sample_chars=_whole(labels, 'sample_chars', 1, 2000, 200, 'labels.'),
            keywords=_keywords(labels.get('keywords', True)),
        ),
        vectors_url=_address(event, 'vectors_url', needed=rows > 0),
        texts_url=_address(event, 'texts_url', needed=rows > 0),
        result_url=_address(event, 'result_url', needed=True),
        previous=_assignments(previous.get('assignments')),
        previous_url=_address(previous, 'result_url', needed=False, where='previous.'),
    )


def assignments_of(result: object) -> dict[str, str]:
    """The document-to-cluster map of an earlier result object, for keeping its cluster ids."""
    members = result.get('members') if isinstance(result, dict) else None
    if not isinstance(members, list):
        raise InvalidEvent('previous.result_url: the object there has no "members" list')
    return _assignments({m.get('document_id'): m.get('cluster_id') for m in members if isinstance(m, dict)})


def _assignments(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEvent(f'previous.assignments: expected an object, got {type(value).__name__}')
    return {
        document: cluster
        for document, cluster in value.items()
        if isinstance(document, str) and isinstance(cluster, str)
    }


def _keywords(value: object) -> int:
    if isinstance(value, bool) or value is None:
        return KEYWORDS_DEFAULT if value else 0
    return _whole({'keywords': value}, 'keywords', 0, KEYWORDS_MAX, where='labels.')


def _object(event: dict[str, Any], key: str, default: dict[str, Any]) -> dict[str, Any]:
    value = event.get(key)
    if value is None:
        return default
    if not isinstance(value, dict):
        raise InvalidEvent(f'{key}: expected an object, got {type(value).__name__}')
    return value


def _whole(
    event: dict[str, Any], key: str, low: int, high: int, default: int | None = None, where: str = ''
) -> int:
    value = event.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidEvent(f'{where}{key}: expected a whole number from {low} to {high}, got {value!r}')
    return value


def _address(event: dict[str, Any], key: str, needed: bool, where: str = '') -> str:
    value = event.get(key)
    if value is None and not needed:
        return ''
    if not isinstance(value, str) or not value:
        raise InvalidEvent(f'{where}{key}: expected a presigned address, got {type(value).__name__}')
    return value
