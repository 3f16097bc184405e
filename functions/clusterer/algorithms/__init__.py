"""The clustering algorithms by name, and the check of their parameters.

To add one: a module here, a line in REGISTRY, an entry in parameters.json. A module offers

    NAME                 its name in requests
    ROWS_MAX             rows it can take; above, a sample is clustered and the rest joins the nearest cluster
    CHOOSES_COUNT        True if it decides itself how many clusters there are. Only then is "none" an honest answer,
                         and only then are clusters that chance would explain taken away again
    rows_needed(params)  fewer rows than this cannot make one cluster
    fit(task)            labels, from 0, with -1 for noise, and a membership strength from 0 to 1 for each row

parameters.json is plain data, read here and by the test that compares it with the API's own list. An entry has "type"
(integer, number, string, boolean), "default", and where they apply "nullable", "minimum", "maximum",
"exclusive_minimum", "enum".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from _errors import InvalidParameter, UnknownAlgorithm
from algorithms import hdbscan, kmeans

REGISTRY: dict[str, ModuleType] = {module.NAME: module for module in (hdbscan, kmeans)}
PARAMETERS: dict[str, dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name('parameters.json').read_text(encoding='utf-8')
)


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
        if key not in schema:
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
