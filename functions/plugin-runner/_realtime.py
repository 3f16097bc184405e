"""Calls a plugin's realtime.py, which embeds one query at a time.

It holds a class whose name ends in ``InferenceService``, or a factory ``get_inference_service``. The service
has ``run_inference(inputs, parameters)`` or is callable, sync or async. It gets ``{"text": query}`` and
answers ``{"embedding": [...]}``, ``{"embeddings": [[...]]}`` or a dict with the features' names.
"""

from __future__ import annotations

import asyncio
import inspect
from types import ModuleType
from typing import Any, Callable

from _contract import Container, call_with_accepted, resolve
from _faults import ContractFault


class Realtime:
    """One instance of a plugin's realtime service."""

    def __init__(
        self, module: ModuleType, parameters: dict, container: Container, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Raises what the plugin raises, or ContractFault realtime_missing."""
        self._loop = loop
        offered = {
            "config": parameters,
            "parameters": parameters,
            "params": parameters,
            "container": container,
            "secrets": container.secrets,
        }
        factory = getattr(module, "get_inference_service", None) or _service_class(module)
        if factory is None:
            raise ContractFault(
                "realtime_missing",
                "realtime.py has neither a class whose name ends in InferenceService nor get_inference_service",
            )
        self._service = resolve(call_with_accepted(factory, offered), loop)
        run = getattr(self._service, "run_inference", None)
        self._call = run if callable(run) else self._service
        if not callable(self._call):
            raise ContractFault(
                "realtime_missing",
                "the realtime service has no run_inference(inputs, parameters) and is not callable",
            )

    def answer(self, inputs: dict, parameters: dict) -> Any:
        """What the service answers to inputs of any form. Raises what it raises."""
        try:
            return self._infer(dict(inputs), parameters)
        except KeyError as fault:
            if fault.args != ("texts",) or "texts" in inputs or "text" not in inputs:
                raise
            # A service that was written for lists only.
            return self._infer({"texts": [inputs["text"]]}, parameters)

    def embed(self, text: Any, parameters: dict, features: list[str]) -> list[Any]:
        """The vectors of one query, one entry for each feature (None where the answer has none)."""
        return _vectors(self.answer({"text": text}, parameters), features)

    def _infer(self, inputs: dict, parameters: dict) -> Any:
        return resolve(_positional(self._call, inputs, parameters), self._loop)


def _service_class(module: ModuleType) -> type | None:
    found = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and name.endswith("InferenceService") and name != "BaseInferenceService"
    ]
    own = [value for value in found if value.__module__ == module.__name__]
    return (own or found or [None])[-1]


def _positional(function: Callable, inputs: dict, parameters: dict) -> Any:
    try:
        inspect.signature(function).bind(inputs, parameters)
    except TypeError:
        return function(inputs)
    return function(inputs, parameters)


def _vectors(answer: Any, features: list[str]) -> list[Any]:
    if isinstance(answer, dict):
        if any(name in answer for name in features):
            return [answer.get(name) for name in features]
        if "embedding" in answer:
            return [answer["embedding"], *([None] * (len(features) - 1))]
        many = answer.get("embeddings")
        if many is not None and len(many) == 1:
            return [many[0], *([None] * (len(features) - 1))]
    got = f"keys {', '.join(map(repr, answer))}" if isinstance(answer, dict) else type(answer).__name__
    raise ContractFault(
        "realtime_wrong_answer",
        f'the realtime service answered with {got}; expected {{"embedding": [...]}} or {{"embeddings": [[...]]}}',
    )
