"""Lambda entry of the plugin runner: runs users' Python over rows of data and gives back checked vectors.

The function has no rights; archives, rows and results come and go by presigned addresses. Event::

    {"operation": "run" | "embed" | "check",
     "plugin": {"plugin_id", "sha256", "archive_url", "root": "text_embed/" or "", "extractor_id"},
     "features": [{"name", "dims"}], "parameters": {}, "batch_size": 64,
     "rows": [{"row": 0, "data": "...", ...}],       # or "rows_url": address of that list as JSON
     "realtime": false,                               # embed by realtime.py instead of the batch steps
     "result_url": address for PUT or null, "deadline_ms": 60000}

Answer of run and embed (``result_at_url`` with counts instead, when it is large and there is a
``result_url``)::

    {"outputs": [{"row", "ordinal", "columns": {}, "features": {name: index of the vector or null}}],
     "dropped": [rows that the plugin made no output of],
     "vectors": {name: {"dims", "count", "data_base64": float32, little endian}},
     "failures": [{"row", "code", "message", "retryable"}], "warnings": [], "logs": "...",
     "timings": {"load_ms", "run_ms", "total_ms", "plugin_cpu_ms"}}

A failure of the whole call is ``{"error": {"code", "message", "retryable"}, "logs", "timings"}``. ``check``
answers ``{"ok", "load_ms", "isolation", "logs"}``. All codes are in ``_errors.py``.
"""

from __future__ import annotations

import _limits

# Before anything else: the environment holds keys, and from here on no process of the same user can read it.
_limits.hide_from_children()

import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import _blobs  # noqa: E402
import _fetch  # noqa: E402
from _call import Call, FrameRuns, read_call  # noqa: E402
from _errors import RunnerError  # noqa: E402
from _plugins import Plugins  # noqa: E402
from _probe import run_all  # noqa: E402
from _processes import Worker  # noqa: E402
from _reply import assemble  # noqa: E402

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
    sha256 = ""
    try:
        call = read_call(event, remaining() if remaining else None)
        sha256 = call.sha256
        reply = _serve(plugins, call, int(memory) if memory else None, began)
    except RunnerError as fault:
        reply = {"error": fault.to_wire(), "timings": {"total_ms": _ms(time.monotonic() - began)}}
        if isinstance(event, dict) and event.get("operation") == "check":
            reply["ok"] = False
    reply["logs"] = plugins.after_call(sha256)
    reply = _deliver(reply, event, sha256)
    print(json.dumps(_summary(event, reply, began)))
    return reply


def _environment() -> Plugins:
    global _plugins
    if _plugins is None:
        _plugins = Plugins()
    return _plugins


def _serve(plugins: Plugins, call: Call, memory_mb: int | None, began: float) -> dict:
    def worker() -> Worker:
        return plugins.worker(
            call.sha256, call.archive_url, call.root, call.plugin_id, memory_mb, call.deadline
        )

    def lose(_: Worker, at_once: bool) -> str:
        return plugins.lose(call.sha256, at_once)

    runs = FrameRuns(call, worker, lose)
    if call.operation == "check":
        isolation = runs.prepare().isolation
        return {"ok": True, "load_ms": _ms(runs.load_seconds), "isolation": isolation}
    blobs = None
    failures: list[tuple[int, str, str]] = []
    row_order = {row["row"]: index for index, row in enumerate(call.rows)}
    if any(row.get("blob_url") for row in call.rows):
        blobs = plugins.make_folder("blobs")
        failures = _blobs.fetch_all(call.rows, blobs, call.deadline)
        gone = {row for row, _, _ in failures}
        call.rows[:] = [row for row in call.rows if row["row"] not in gone]
    try:
        runs = FrameRuns(call, worker, lose)
        runs.prepare()
        started = time.monotonic()
        outcome = run_all(len(call.rows), 1 if call.realtime else call.batch_size, runs, call.deadline)
        run_seconds = time.monotonic() - started
    finally:
        if blobs is not None:
            shutil.rmtree(blobs, ignore_errors=True)
    failures += [(call.rows[position]["row"], code, message) for position, code, message in outcome.failures]
    reply = assemble(outcome.frames, row_order, call.features, failures)
    reply["timings"] = {
        "load_ms": _ms(runs.load_seconds),
        "run_ms": _ms(run_seconds),
        "total_ms": _ms(time.monotonic() - began),
        "plugin_cpu_ms": round(runs.cpu_ms, 1),
    }
    return reply


def _deliver(reply: dict, event: dict, sha256: str) -> dict:
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
