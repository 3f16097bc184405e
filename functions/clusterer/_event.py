"""The event of a run, checked and filled in with its defaults.

The API has checked all this before; here is the second line, because the event is also what a person writes by hand
when they repeat a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import _preprocess
import algorithms
import reduce
from _errors import InvalidEvent, UnknownAlgorithm

METRICS = ('cosine', 'dot', 'euclid')
DIMS_MAX = 4096
ROWS_MAX = 5_000_000
STEPS_MAX = 5
SPACES = ('auto', 'none', 'umap', 'pca')
SPACE_DIMS_MAX = 100
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
    preprocessing: tuple[_preprocess.Step, ...] = ()
    space: str = 'auto'
    space_dims: int | None = None
    ignored: tuple[str, ...] = ()


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
    given = algorithm.get('params') or {}
    params = algorithms.checked_params(name, given)

    chart = _object(event, 'map', {})
    method = chart.get('method', 'umap')
    reduce.method(method)
    map_dims = _whole(chart, 'n_components', 2, 3, 2, 'map.')

    reduction = _object(event, 'reduction', {})
    space = reduction.get('method', 'auto')
    if space not in SPACES:
        raise UnknownAlgorithm(f'reduction.method: expected one of {", ".join(SPACES)}, got {space!r}')
    space_dims = reduction.get('n_components')
    if space_dims is not None:
        space_dims = _whole(reduction, 'n_components', 1, SPACE_DIMS_MAX, where='reduction.')

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
        preprocessing=_steps(event.get('preprocessing')),
        space=space,
        space_dims=space_dims,
        ignored=tuple(algorithms.ignored_params(name, given)),
    )


def assignments_of(result: object) -> dict[str, str]:
    """The document-to-cluster map of an earlier result object, for keeping its cluster ids."""
    members = result.get('members') if isinstance(result, dict) else None
    if not isinstance(members, list):
        raise InvalidEvent('previous.result_url: the object there has no "members" list')
    return _assignments({m.get('document_id'): m.get('cluster_id') for m in members if isinstance(m, dict)})


def _steps(value: object) -> tuple[_preprocess.Step, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > STEPS_MAX:
        raise InvalidEvent(f'preprocessing: expected a list of at most {STEPS_MAX} steps')
    steps = []
    for at, entry in enumerate(value):
        where = f'preprocessing[{at}].'
        name = entry.get('step') if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in _preprocess.STEPS:
            known = ', '.join(_preprocess.STEPS)
            raise UnknownAlgorithm(f'{where}step: expected one of {known}, got {name!r}')
        params = _object(entry, 'params', {}, where)
        known_params = ('n_components',) if name in _preprocess.WITH_COMPONENTS else ()
        for key in params:
            if key not in known_params:
                takes = ', '.join(known_params) or 'no parameters'
                raise InvalidEvent(f'{where}params.{key}: {name} has no such parameter; it takes {takes}')
        components = params.get('n_components')
        if components is not None:
            components = _whole(params, 'n_components', 1, DIMS_MAX, where=f'{where}params.')
        steps.append(_preprocess.Step(name, components))
    return tuple(steps)


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


def _object(event: dict[str, Any], key: str, default: dict[str, Any], where: str = '') -> dict[str, Any]:
    value = event.get(key)
    if value is None:
        return default
    if not isinstance(value, dict):
        raise InvalidEvent(f'{where}{key}: expected an object, got {type(value).__name__}')
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
