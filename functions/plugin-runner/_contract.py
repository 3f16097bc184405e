"""What the warehouse and a plugin's pipeline.py agree on: how it is called, what it is given, what it must
give back.

``build_steps`` is preferred, else ``extract``; each gets by keyword only the arguments that its signature
names. The steps are callables or classes, DataFrame in, DataFrame out, sync or async.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Callable

import numpy as np
import pandas as pd

from _dataset import Dataset, to_frame
from _faults import ContractFault
from _secrets import Secrets
from _shape import INPUT_COLUMNS, ROW_COLUMN
from _stubs import DeclaredStep

_COPY_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3


class Request(dict):
    """A dict whose keys are attributes as well, at every depth:
    ``extractor_request.extractor_config.parameters``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"extractor_request has no {name!r}; it has {', '.join(map(repr, self))}"
            ) from None

    @classmethod
    def of(cls, value: Any) -> Any:
        """Converts dicts at every depth."""
        if isinstance(value, dict):
            return cls({key: cls.of(inner) for key, inner in value.items()})
        return [cls.of(inner) for inner in value] if isinstance(value, list) else value


class Container:
    """Stands where the hosted product passes its services. Here it has ``secrets``; asking for another one
    says so."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"container.{name} is not available: a plugin runs without services and without network; "
            "of the container there is container.secrets.get(name) and container.secrets.list()"
        )


class Pipeline:
    """The steps of one plugin, built for one set of parameters."""

    def __init__(
        self, steps: list[Callable], prepare: Callable | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.steps = steps
        self.prepare = prepare
        self._loop = loop

    def run(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Runs prepare and the steps over one frame. Raises what the plugin raises, or ContractFault."""
        if self.prepare is not None:
            frame = self._table(resolve(self.prepare(Dataset(frame)), self._loop), "prepare")
        for index, step in enumerate(self.steps):
            if frame.empty:
                break
            frame = self._table(resolve(step(frame), self._loop), f"step {index} ({_name_of(step)})")
        return frame

    def _table(self, result: Any, who: str) -> pd.DataFrame:
        frame = to_frame(result)
        if frame is None:
            raise ContractFault(
                "step_wrong_return",
                f"{who} returned {type(result).__name__}; it must return a pandas DataFrame",
            )
        return frame


def build_pipeline(
    module: Any,
    parameters: dict,
    extractor_id: str,
    dataset_size: int,
    container: Container,
    loop: asyncio.AbstractEventLoop,
) -> Pipeline:
    """Calls the plugin's entry and makes its steps callable. Raises what the plugin raises, or
    ContractFault."""
    offered = {
        "extractor_request": make_request(parameters, extractor_id),
        "base_steps": [],
        "dataset_size": dataset_size,
        "content_flags": {},
    }
    entry = getattr(module, "build_steps", None)
    if callable(entry):
        result = resolve(
            call_with_accepted(entry, {**offered, "container": container}, "build_steps"), loop
        )
    else:
        entry = getattr(module, "extract", None)
        if not callable(entry):
            raise ContractFault("plugin_load_failed", "pipeline.py defines neither build_steps nor extract")
        result = resolve(call_with_accepted(entry, offered, "extract"), loop)
    steps, prepare = _parts(result)
    if prepare is not None and not callable(prepare):
        raise ContractFault("plugin_load_failed", f"prepare is a {type(prepare).__name__}, not a function")
    return Pipeline([_callable(index, s) for index, s in enumerate(steps) if _enabled(s)], prepare, loop)


def make_request(parameters: dict, extractor_id: str) -> Request:
    """The ``extractor_request`` of a collection: its parameters under both names that plugins use."""
    return Request.of(
        {
            "feature_extractor_id": extractor_id,
            "extractor_config": {
                "feature_extractor_id": extractor_id,
                "parameters": parameters,
                "params": parameters,
            },
        }
    )


def call_with_accepted(function: Callable, offered: dict[str, Any], name: str | None = None) -> Any:
    """Calls with those of the offered arguments that the signature names; with ``**kwargs``, all of them."""
    name = name or _name_of(function)
    try:
        wanted = inspect.signature(function).parameters.values()
    except ValueError:
        # Some callables written in C have no signature; they take what they are given.
        return function()
    if any(p.kind is p.VAR_KEYWORD for p in wanted):
        return function(**offered)
    positional, keywords = [], {}
    for parameter in wanted:
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.name not in offered:
            if parameter.default is parameter.empty:
                raise ContractFault(
                    "plugin_load_failed",
                    f'{name} requires the argument "{parameter.name}", which is not offered; give it a default '
                    f"(offered are {', '.join(offered)})",
                )
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(offered[parameter.name])
        else:
            keywords[parameter.name] = offered[parameter.name]
    return function(*positional, **keywords)


def resolve(value: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """The value itself, or what the coroutine gives."""
    return loop.run_until_complete(_await(value)) if inspect.isawaitable(value) else value


def make_table(rows: list[int], columns: dict[str, list], constants: dict[str, Any]) -> pd.DataFrame:
    """The rows of a call as one table, of which frames are cut.

    ``rows`` are the rows' numbers, ``columns`` the values by column; a column of ``constants`` has one value
    in all rows, and one that is in neither is None. Every column holds objects. With its own string type,
    pandas 3 turns None into NaN, and a plugin that embeds ``str(value)`` would embed "nan".
    """
    cells = np.empty((len(rows), len(INPUT_COLUMNS)), dtype=object)
    for position, name in enumerate(INPUT_COLUMNS):
        if name in columns:
            # Value by value: numpy would take a list of equally long lists for a second dimension.
            values = np.empty(len(rows), dtype=object)
            values[:] = columns[name]
            cells[:, position] = values
        elif isinstance(constants.get(name), (list, dict)):
            cells[:, position] = [constants[name] for _ in rows]
        else:
            cells[:, position] = constants.get(name)
    table = pd.DataFrame(cells, columns=list(INPUT_COLUMNS), dtype=object)
    table[ROW_COLUMN] = np.array(rows, dtype=np.int64)
    return table


def cut_frame(table: pd.DataFrame, start: int, stop: int) -> pd.DataFrame:
    """A frame of its own for the plugin, which may change it in place without changing the table."""
    frame = table.iloc[start:stop]
    if not _COPY_ON_WRITE:
        frame = frame.copy()
    frame.index = pd.RangeIndex(stop - start)
    return frame


def rows_of(result: pd.DataFrame, given: list[int]) -> list[int]:
    """Which input row each row of the result belongs to. Raises ContractFault if that cannot be told."""
    columns = [c for c in result.columns if c == ROW_COLUMN]
    if not columns:
        if len(result) == len(given):
            return given
        raise ContractFault(
            "row_identity_lost",
            f"the steps made {len(result)} rows of {len(given)} and dropped the column {ROW_COLUMN}; keep that column, "
            "it tells which input a row came from",
        )
    values = result[ROW_COLUMN].tolist() if len(columns) == 1 else [None]
    if values == given:
        return given
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    known = set(given)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in known:
            raise ContractFault(
                "row_identity_lost",
                f"the column {ROW_COLUMN} holds a value that was not given; leave it as it is",
            )
    return [int(value) for value in values]


async def _await(value: Any) -> Any:
    return await value


def _parts(result: Any) -> tuple[list, Any]:
    if isinstance(result, dict):
        steps, prepare = result.get("steps"), result.get("prepare")
    elif isinstance(result, (list, tuple)):
        steps, prepare = list(result), getattr(result, "prepare", None)
    else:
        steps, prepare = getattr(result, "steps", None), getattr(result, "prepare", None)
    if steps is None or isinstance(steps, (str, bytes)) or not hasattr(steps, "__iter__"):
        raise ContractFault(
            "plugin_load_failed",
            f'the entry returned {type(result).__name__} without a list of steps; return {{"steps": [...], "prepare": fn}}',
        )
    steps = list(steps)
    if not steps and prepare is None:
        raise ContractFault("plugin_load_failed", "the entry returned no steps")
    return steps, prepare


def _enabled(step: Any) -> bool:
    return not hasattr(step, "service_class") or getattr(step, "enabled", True)


def _callable(index: int, step: Any) -> Callable:
    if hasattr(step, "service_class"):
        return DeclaredStep(step, call_with_accepted)
    if inspect.isclass(step):
        return call_with_accepted(step, {})
    if not callable(step):
        raise ContractFault(
            "plugin_load_failed",
            f"step {index} is a {type(step).__name__}; a step is a function, an object or a class",
        )
    return step


def _name_of(thing: Any) -> str:
    return getattr(thing, "__name__", None) or type(thing).__name__
