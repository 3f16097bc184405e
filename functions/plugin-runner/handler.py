"""Lambda entry of the plugin runner: runs users' Python over rows of data and gives back checked vectors.

The function has no rights; archives, rows and results come and go by presigned addresses. Event::

    {"operation": "run" | "embed" | "check" | "realtime",
     "plugin": {"plugin_id", "sha256", "archive_url", "root": "text_embed/" or "", "extractor_id"},
     "features": [{"name", "dims"}], "parameters": {}, "batch_size": 64,
     "rows": [{"row": 0, "data": "...", ...}],       # or "rows_url": address of that list as JSON
     "realtime": false,                               # embed by realtime.py instead of the batch steps
     "inputs": {"text": "..."},                       # of operation realtime: what the service is asked
     "secrets": {"NAME": "value"},                    # for container.secrets, during this call
     "limits": {"memory_mb": 1024},                   # of the plugin, beyond the process it is forked from
     "result_url": address for PUT or null, "deadline_ms": 60000}

A row may bring a blob: ``blob_url`` (fetched) or ``blob_base64`` (decoded); the plugin finds it as a file at
``local_path``.

Answer of run and embed (``result_at_url`` with counts instead, when it is large and there is a
``result_url``)::

    {"outputs": [{"row", "ordinal", "columns": {}, "features": {name: index of the vector or null}}],
     "dropped": [rows that the plugin made no output of],
     "vectors": {name: {"dims", "count", "data_base64": float32, little endian}},
     "failures": [{"row", "code", "message", "retryable", "traceback": text or null}],
     "warnings": ["..."], "logs": "...",
     "timings": {"load_ms", "run_ms", "total_ms", "plugin_cpu_ms"}}

``warnings`` are findings of the runner, then what Python warned of, each once with its number; ``logs`` is
what the plugin printed, at most 64 KB. ``realtime`` answers ``{"answer": JSON of the service, "warnings",
"logs", "timings"}``. A failure of the whole call is ``{"error": {"code", "message", "retryable"}, "logs",
"timings"}``, with a ``traceback`` in ``error`` where the plugin raised it. ``check`` answers ``{"ok",
"load_ms", "isolation", "warnings", "logs"}``. All codes are in ``_errors.py``.

Where the function's environment has PLUGIN_EGRESS=on, plugins may use the network; elsewhere the worker
refuses it itself, as far as the kernel helps.
"""

from __future__ import annotations

import _limits

# Before anything else: the environment holds keys, and from here on no process of the same user can read it.
_limits.hide_from_children()

import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import _blobs  # noqa: E402
import _fetch  # noqa: E402
import _scratch  # noqa: E402
from _ask import ask_realtime  # noqa: E402
from _call import Call, FrameRuns, read_call  # noqa: E402
from _errors import RunnerError  # noqa: E402
from _plugins import Plugins  # noqa: E402
from _probe import run_all  # noqa: E402
from _processes import Worker  # noqa: E402
from _reply import assemble, counted  # noqa: E402
from _secrets import Mask  # noqa: E402

INLINE_BYTES_MAX = 4 * 1024 * 1024
"""Larger results go to ``result_url``; Lambda itself ends at 6 MB."""

REPLY_BYTES_MAX = 5_500_000

_plugins: Plugins | None = None


def handler(event: dict, context: Any = None) -> dict:
    """Serves one call; see the head of this file. Only faults of the runner itself raise."""
    began = time.monotonic()
    plugins = _environment()
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    memory = getattr(context, "memory_limit_in_mb", None)
    key, mask = "", Mask({})
    try:
        call = read_call(event, remaining() if remaining else None)
        # The same plugin of another tenant is another plugin.
        key = f"{getattr(context, 'tenant_id', None) or event.get('tenant') or ''} {call.sha256}"
        mask = Mask(call.secrets)
        reply = _serve(plugins, call, key, mask, int(memory) if memory else None, began)
    except RunnerError as fault:
        reply = {"error": mask.everywhere(fault.to_wire()), "timings": {"total_ms": _ms(time.monotonic() - began)}}
        if isinstance(event, dict) and event.get("operation") == "check":
            reply["ok"] = False
    reply["logs"] = plugins.after_call(key, mask)
    reply = _deliver(reply, event)
    print(json.dumps(_summary(event, reply, began)))
    return reply


def _environment() -> Plugins:
    global _plugins
    if _plugins is None:
        _plugins = Plugins(network=os.environ.get("PLUGIN_EGRESS") == "on")
    return _plugins


def _serve(plugins: Plugins, call: Call, key: str, mask: Mask, memory_mb: int | None, began: float) -> dict:
    def worker() -> Worker:
        return plugins.worker(key, call, memory_mb, mask)

    def lose(_: Worker, at_once: bool) -> str:
        return plugins.lose(key, at_once, mask)

    runs = FrameRuns(call, worker, lose)
    if call.operation == "check":
        isolation = runs.prepare().isolation
        warnings = mask.everywhere(counted(runs.python_warnings))
        return {"ok": True, "load_ms": _ms(runs.load_seconds), "isolation": isolation, "warnings": warnings}
    if call.operation == "realtime":
        answer = ask_realtime(call, runs)
        warnings = mask.everywhere(counted(runs.python_warnings))
        timings = {"load_ms": _ms(runs.load_seconds), "total_ms": _ms(time.monotonic() - began)}
        timings["plugin_cpu_ms"] = round(runs.cpu_ms, 1)
        return {"answer": answer, "warnings": warnings, "timings": timings}
    blobs = None
    failures: list[tuple] = []
    row_order = {row["row"]: index for index, row in enumerate(call.rows)}
    if any(map(_blobs.has_blob, call.rows)):
        blobs = plugins.make_blobs()
        failures = _blobs.fetch_all(call.rows, blobs, call.deadline)
        gone = {row for row, _, _ in failures}
        call.rows[:] = [row for row in call.rows if row["row"] not in gone]
    try:
        runs = FrameRuns(call, worker, lose)
        runs.prepare()
        started = time.monotonic()
        size = 1 if call.realtime else call.batch_size
        outcome = run_all(len(call.rows), size, runs, call.deadline, renew=runs.renew)
        run_seconds = time.monotonic() - started
    finally:
        if blobs is not None:
            _scratch.remove(blobs)
    failures += [(call.rows[position]["row"], *fault) for position, *fault in outcome.failures]
    reply = assemble(outcome.frames, row_order, call.features, failures, runs.python_warnings)
    for name in ("failures", "warnings"):
        reply[name] = mask.everywhere(reply[name])
    reply["timings"] = {
        "load_ms": _ms(runs.load_seconds),
        "run_ms": _ms(run_seconds),
        "total_ms": _ms(time.monotonic() - began),
        "plugin_cpu_ms": round(runs.cpu_ms, 1),
    }
    return reply


def _deliver(reply: dict, event: dict) -> dict:
    """The reply itself, or where it was put when it is too large to be returned."""
    if "vectors" not in reply:
        return reply
    size = _size(reply)
    if size <= INLINE_BYTES_MAX:
        return reply
    short = {"logs": reply["logs"], "timings": reply["timings"]}
    url = event.get("result_url")
    if url is None:
        if size <= REPLY_BYTES_MAX:
            return reply
        message = f"the result has about {size} bytes; above {REPLY_BYTES_MAX} a result_url is needed"
        return {"error": RunnerError("result_too_large", message).to_wire(), **short}
    try:
        _fetch.put(url, json.dumps(reply).encode(), time.monotonic() + _fetch.SOCKET_SECONDS)
    except _fetch.FetchError as fault:
        error = RunnerError("result_upload_failed", f"the result could not be uploaded: {fault}")
        return {"error": error.to_wire(), **short}
    counts = {
        "outputs": len(reply["outputs"]),
        "dropped": len(reply["dropped"]),
        "failures": len(reply["failures"]),
    }
    return {"result_at_url": True, **counts, **short}


def _size(reply: dict) -> int:
    """About how many bytes the reply has as JSON, without writing all of it out."""
    names = sum(len(name) + 15 for name in reply["vectors"])
    size = sum(len(block["data_base64"]) + 100 for block in reply["vectors"].values())
    size += len(reply["outputs"]) * (80 + names)
    size += sum(len(json.dumps(output["columns"])) for output in reply["outputs"] if output["columns"])
    return size + len(json.dumps([reply["failures"], reply["dropped"], reply["warnings"], reply["logs"]]))


def _summary(event: Any, reply: dict, began: float) -> dict:
    plugin = event.get("plugin") if isinstance(event, dict) else None
    return {
        "level": "INFO",
        "message": "plugin call",
        "operation": event.get("operation") if isinstance(event, dict) else None,
        "plugin_id": plugin.get("plugin_id") if isinstance(plugin, dict) else None,
        "error": reply.get("error", {}).get("code"),
        "failures": reply["failures"]
        if type(reply.get("failures")) is int
        else len(reply.get("failures", [])),
        "total_ms": _ms(time.monotonic() - began),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
    # Loading numpy and pandas takes longer than everything else; begin while the environment still starts.
    _environment().zygote.start()
