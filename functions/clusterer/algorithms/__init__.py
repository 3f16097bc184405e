"""The clustering algorithms by name, and the check of their parameters.

To add one: a module here, a line in REGISTRY, an entry in parameters.json. A module offers

    NAME                 its name in requests
    ROWS_MAX             rows it can take; above, a sample is clustered and the rest joins the nearest cluster
    ROWS_MAX_WIDE        the same for more than 20 dimensions, where it differs
    CHOOSES_COUNT        True if it decides itself how many clusters there are. Only then is "none" an honest answer,
                         and only then are clusters that chance would explain taken away again
    rows_needed(params)  fewer rows than this cannot make one cluster
    NEEDED_BY, ADVICE    of those that choose: which parameter says so, and what to change if no cluster is found
    fit(task)            labels, from 0, with -1 for noise, and a membership strength from 0 to 1 for each row

A library is imported inside `fit`, so that a run pays only for its own.

parameters.json is plain data, read here and by the API. An entry has "type" (integer, number, string, boolean),
"default", and where they apply "nullable", "minimum", "maximum", "exclusive_minimum", "enum". ignored.json names, for
each algorithm, the parameters that people know from libraries and that change no result here: they are accepted with
any value, and the answer says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from _errors import InvalidParameter, UnknownAlgorithm
from algorithms import (
    agglomerative,
    dbscan,
    gaussian_mixture,
    hdbscan,
    kmeans,
    mean_shift,
    optics,
    spectral,
)

REGISTRY: dict[str, ModuleType] = {
    module.NAME: module
    for module in (hdbscan, kmeans, dbscan, agglomerative, spectral, gaussian_mixture, mean_shift, optics)
}


def _table(name: str) -> Any:
    return json.loads(Path(__file__).with_name(name).read_text(encoding='utf-8'))


PARAMETERS: dict[str, dict[str, dict[str, Any]]] = _table('parameters.json')
IGNORED: dict[str, list[str]] = _table('ignored.json')
WIDE_DIMS = 20


def rows_max(algorithm: ModuleType, dims: int) -> int:
    """How many rows an algorithm takes in a space of so many dimensions."""
    if dims > WIDE_DIMS:
        return min(algorithm.ROWS_MAX, getattr(algorithm, 'ROWS_MAX_WIDE', algorithm.ROWS_MAX))
    return algorithm.ROWS_MAX


def ignored_params(name: str, given: dict[str, Any]) -> list[str]:
    """Which of the given parameters are accepted and change nothing."""
    return [key for key in given if key in IGNORED.get(name, ())]


def checked_params(name: object, given: object) -> dict[str, Any]:
    """The given parameters of an algorithm, checked, with the defaults of the missing ones.

    Raises UnknownAlgorithm or InvalidParameter, which names the parameter, what came and what is allowed.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        raise UnknownAlgorithm(f'algorithm.name: expected one of {", ".join(sorted(REGISTRY))}, got {name!r}')
    if not isinstance(given, dict):
        raise InvalidParameter(f'algorithm.params: expected an object, got {type(given).__name__}')
    schema = PARAMETERS[name]
    for key in given:
        if key not in schema and key not in IGNORED.get(name, ()):
            known = ', '.join(schema)
            raise InvalidParameter(f'algorithm.params.{key}: {name} has no such parameter; it takes {known}')
    return {key: _checked(name, key, rule, given.get(key, rule['default'])) for key, rule in schema.items()}


def _checked(name: str, key: str, rule: dict[str, Any], value: Any) -> Any:
    if value is None and rule.get('nullable'):
        return None
    if not _has_type(rule['type'], value) or not _in_range(rule, value):
        raise InvalidParameter(f'algorithm.params.{key}: {name} wants {_wanted(rule)}, got {value!r}')
    return int(value) if rule['type'] == 'integer' else float(value) if rule['type'] == 'number' else value


def _has_type(kind: str, value: Any) -> bool:
    if isinstance(value, bool) or kind == 'boolean':
        return isinstance(value, bool) and kind == 'boolean'
    if kind == 'integer':
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if kind == 'number':
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, str)


def _in_range(rule: dict[str, Any], value: Any) -> bool:
    return (
        ('minimum' not in rule or value >= rule['minimum'])
        and ('maximum' not in rule or value <= rule['maximum'])
        and ('exclusive_minimum' not in rule or value > rule['exclusive_minimum'])
        and ('enum' not in rule or value in rule['enum'])
    )


def _wanted(rule: dict[str, Any]) -> str:
    if 'enum' in rule:
        text = 'one of ' + ', '.join(rule['enum'])
    else:
        text = {'integer': 'a whole number', 'number': 'a number', 'boolean': 'true or false'}.get(
            rule['type'], 'a string'
        )
    if 'minimum' in rule:
        text += f' from {rule["minimum"]}'
    if 'exclusive_minimum' in rule:
        text += f' above {rule["exclusive_minimum"]}'
    if 'maximum' in rule:
        text += f' to {rule["maximum"]}'
    return text + (' or null' if rule.get('nullable') else '')
