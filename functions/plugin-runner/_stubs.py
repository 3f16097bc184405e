"""Modules of the hosted product that plugins import, as far as a plugin can use them here.

They hold no services: a base class for realtime.py, the declarative form of a pipeline, two helpers that call
a function for each item, and two that find files of the archive. What would need a service says so when it is
called.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pandas as pd

from _shape import ROW_COLUMN

ALWAYS = "ALWAYS"


class BaseInferenceService:
    """Base class of realtime services; accepts any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.config = kwargs.get("config")


class RowCondition:
    """Which rows a step of a declared pipeline works on, by the type of their blob."""

    ALWAYS = ALWAYS
    IS_TEXT = "IS_TEXT"
    IS_IMAGE = "IS_IMAGE"
    IS_VIDEO = "IS_VIDEO"
    IS_AUDIO = "IS_AUDIO"
    IS_PDF = "IS_PDF"


@dataclass
class StepDefinition:
    """One step of a declared pipeline: a class whose instances take and return a DataFrame."""

    service_class: Any
    resource_type: Any = "cpu"
    config: dict | None = None
    condition: str = ALWAYS
    enabled: bool = True


@dataclass
class PipelineDefinition:
    """A declared pipeline."""

    name: str = ""
    version: str = ""
    steps: list = field(default_factory=list)


class PipelineSteps(list):
    """A list of steps that is also its own result object, with ``steps`` and ``prepare``."""

    prepare = None

    @property
    def steps(self) -> list:
        return list(self)


class DeclaredStep:
    """Runs a StepDefinition: rows that do not meet its condition pass unchanged, in their places."""

    def __init__(self, definition: Any, construct: Callable) -> None:
        self.condition = getattr(definition, "condition", ALWAYS) or ALWAYS
        config = dict(getattr(definition, "config", None) or {})
        service = definition.service_class
        self.service = (
            construct(service, {**config, "config": config}) if isinstance(service, type) else service
        )
        self.__name__ = getattr(service, "__name__", type(service).__name__)

    def __call__(self, batch: pd.DataFrame) -> Any:
        if self.condition == ALWAYS:
            return self.service(batch)
        chosen = _meets(batch, str(self.condition))
        if not chosen.any():
            return batch
        made = self.service(batch[chosen].reset_index(drop=True))
        if chosen.all() or not isinstance(made, pd.DataFrame):
            return made
        joined = pd.concat([batch[~chosen], made], ignore_index=True)
        if ROW_COLUMN not in joined.columns:
            return joined
        places = {number: place for place, number in enumerate(batch[ROW_COLUMN])}
        order = joined[ROW_COLUMN].map(places).argsort(kind="stable")
        return joined.iloc[order].reset_index(drop=True)


def build_pipeline_steps(definition: Any, *args: Any, base_steps: Any = None, **kwargs: Any) -> PipelineSteps:
    """The steps of a declared pipeline; the runner makes them callable."""
    steps = definition.get("steps", []) if isinstance(definition, dict) else definition.steps
    return PipelineSteps([*(base_steps or []), *steps])


def parallel_io(items: Any, process_fn: Callable, max_workers: int | None = None, **kwargs: Any) -> list:
    """Calls a function for each item, in order. One after the other: a worker has one core."""
    return [process_fn(item) for item in items]


async def concurrent_api_calls(
    items: Any, async_fn: Callable, max_concurrent: int = 10, **kwargs: Any
) -> list:
    """Awaits a coroutine function for each item, at most ``max_concurrent`` at a time; results in order."""
    gate = asyncio.Semaphore(max(1, max_concurrent))

    async def one(item: Any) -> Any:
        async with gate:
            return await async_fn(item)

    return list(await asyncio.gather(*(one(item) for item in items)))


class Assets:
    """The files that a plugin brings in its archive."""

    def __init__(self, plugin_folder: str) -> None:
        self._folder = Path(plugin_folder).resolve()

    def download_asset(self, name: Any, *args: Any, **kwargs: Any) -> str:
        """The path of a file of the archive. Raises FileNotFoundError that says what to do for any other."""
        name = str(name)
        if "://" in name:
            raise FileNotFoundError(
                f"asset {name[:200]!r}: a plugin has no network; put the file into the archive and name it by its path there"
            )
        path = (self._folder / name.lstrip("/")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise FileNotFoundError(f"asset {name[:200]!r} is not in the archive, beside manifest.py or below it")
        return str(path)

    def open_asset(self, name: Any, mode: str = "rb", **kwargs: Any) -> Any:
        """The file opened for reading."""
        return open(self.download_asset(name), mode, **kwargs)


def not_available(name: str) -> Callable:
    """Stands for something that needs a service of the hosted product."""

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{name} is not available here: a plugin runs without services and without network; "
            "bring models in the archive and load them by path"
        )

    return missing


def install(plugin_folder: str) -> None:
    """Makes the modules importable, except those for which the plugin brings a package of its own."""
    assets = Assets(plugin_folder)
    files = {"open_asset": assets.open_asset, "download_asset": assets.download_asset}
    members = {
        "shared.plugins": files,
        "shared.plugins.inference.serve": {"BaseInferenceService": BaseInferenceService},
        "shared.plugins.sdk": {
            "parallel_io": parallel_io,
            "concurrent_api_calls": concurrent_api_calls,
            **files,
        },
        "shared.inference.registry": {"get_batch_service": not_available("get_batch_service")},
        "engine.models": {
            name: not_available(name) for name in ("load_hf_model", "load_namespace_model", "lazy_model")
        },
        "engine.plugins.extractors.pipeline": {
            "PipelineDefinition": PipelineDefinition,
            "StepDefinition": StepDefinition,
            "RowCondition": RowCondition,
            "build_pipeline_steps": build_pipeline_steps,
        },
    }
    for path, contents in members.items():
        parts = path.split(".")
        root = Path(plugin_folder)
        if any(
            (base / parts[0]).is_dir() or (base / f"{parts[0]}.py").is_file()
            for base in (root, root / "vendor")
        ):
            continue
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if name not in sys.modules:
                module = ModuleType(name)
                module.__path__ = []
                sys.modules[name] = module
                if depth > 1:
                    setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], module)
        sys.modules[path].__dict__.update(contents)


def _meets(batch: pd.DataFrame, condition: str) -> pd.Series:
    kind = condition.rsplit(".", 1)[-1].removeprefix("IS_").lower()
    nothing = pd.Series([""] * len(batch), index=batch.index, dtype=object)
    types = batch.get("blob_type", nothing).map(lambda v: str(v or "").lower())
    mimes = batch.get("mime_type", nothing).map(lambda v: str(v or "").lower())
    return (types == kind) | mimes.map(lambda mime: kind in mime.replace("/", " ").split())
