"""One call: what was asked for, checked; and the runs of its frames on a worker that is replaced when it is
lost."""

from __future__ import annotations

import io
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator

import _fetch
import _wire
from _answer import INPUT_BYTES_MAX
from _errors import RunnerError, WorkerGone
from _processes import START_SECONDS_MAX, Worker
from _probe import Frame
from _reply import Fault, FrameReply, check_frame, check_python_warnings
from _secrets import read_secrets
from _shape import INPUT_COLUMNS

OPERATIONS = ("run", "embed", "check", "realtime")
ROWS_MAX = 10_000
ROWS_BYTES_MAX = 64 * 1024 * 1024
FEATURES_MAX = 8
DIMS_MAX = 4096
BATCH_SIZE_MAX = 1000
DEADLINE_MS_MAX = 900_000
MEMORY_MB_MIN = 64
MEMORY_MB_MAX = 10_240
RESERVE_SECONDS = 10.0
RESULT_BYTES_MAX = 144 * 1024 * 1024
"""Of all frames of a call: they are joined in the handler's memory."""

CPU_SECONDS_SPARE = 10.0
_CHEAP_LOAD_SECONDS = 2.0
_DEAR_RENEWALS_MAX = 3


@dataclass(frozen=True)
class Call:
    """A checked event. ``deadline`` is on the clock of ``time.monotonic()``."""

    operation: str
    plugin_id: str
    sha256: str
    archive_url: str
    root: str
    extractor_id: str
    features: list[tuple[str, int]]
    parameters: dict
    batch_size: int
    rows: list[dict]
    realtime: bool
    result_url: str | None
    deadline: float
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    memory_mb: int | None = None
    """What the plugin may take beyond the process it is forked from; None: what the function has."""

    inputs: dict = field(default_factory=dict)
    """Of operation realtime: what the service is asked."""

    number: int = field(default_factory=itertools.count(1).__next__)
    """Tells calls apart, so that a worker knows whose rows it holds."""


def read_call(event: dict, remaining_ms: int | None) -> Call:
    """Checks an event; ``remaining_ms`` is what the function has left. Raises RunnerError bad_request or
    rows_download_failed."""
    began = time.monotonic()
    operation = _want(event, "operation", str)
    if operation not in OPERATIONS:
        _bad(f"operation: got {operation!r}, one of {', '.join(OPERATIONS)}")
    plugin = _want(event, "plugin", dict)
    sha256 = _want(plugin, "sha256", str, "plugin.")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        _bad("plugin.sha256 must be 64 lower-case hexadecimal digits")
    root = plugin.get("root") or ""
    if not isinstance(root, str) or root.startswith("/") or ".." in root.split("/"):
        _bad("plugin.root must be a folder inside the archive")
    deadline_ms = event.get("deadline_ms", 60_000)
    if type(deadline_ms) not in (int, float) or not 0 < deadline_ms <= DEADLINE_MS_MAX:
        _bad(f"deadline_ms must be a number above 0 and at most {DEADLINE_MS_MAX}")
    seconds = deadline_ms / 1000
    if remaining_ms is not None:
        # The reply must still be written and sent before the function is cut off.
        left = remaining_ms / 1000
        seconds = min(seconds, left - min(RESERVE_SECONDS, left / 4))
    deadline = began + seconds
    batch_size = event.get("batch_size", 64)
    if type(batch_size) is not int or not 1 <= batch_size <= BATCH_SIZE_MAX:
        _bad(f"batch_size must be an integer from 1 to {BATCH_SIZE_MAX}")
    parameters = event.get("parameters") or {}
    if not isinstance(parameters, dict):
        _bad("parameters must be an object")
    result_url = event.get("result_url")
    if result_url is not None and not isinstance(result_url, str):
        _bad("result_url must be an address or null")
    return Call(
        operation=operation,
        plugin_id=_want(plugin, "plugin_id", str, "plugin."),
        sha256=sha256,
        archive_url=_want(plugin, "archive_url", str, "plugin."),
        root=root,
        extractor_id=str(plugin.get("extractor_id") or ""),
        features=_features(event),
        parameters=parameters,
        batch_size=batch_size,
        rows=_rows(event, deadline) if operation in ("run", "embed") else [],
        realtime=event.get("realtime") is True,
        result_url=result_url,
        deadline=deadline,
        secrets=read_secrets(event.get("secrets"), _bad),
        memory_mb=_memory_mb(event),
        inputs=_inputs(event) if operation == "realtime" else {},
    )


class FrameRuns:
    """Runs the frames of one call, in order, with a time for each; a worker that hangs or dies is
    replaced."""

    def __init__(self, call: Call, worker: Callable[[], Worker], lose: Callable[[Worker, bool], str]) -> None:
        """``worker`` gives a loaded worker, ``lose`` ends it (at once or after it ended by itself) and says
        how."""
        self._call = call
        self._worker = worker
        self.lose = lose
        self._row_numbers = [row["row"] for row in call.rows]
        self.has_run = False
        self.cpu_ms = 0.0
        self.load_seconds = 0.0
        self.result_bytes = 0
        self.renewals = 0
        self.python_warnings: dict[str, int] = {}

    def prepare(self) -> Worker:
        """A worker with the steps built and the rows at hand. Raises RunnerError."""
        began = time.monotonic()
        worker = self._ready([])
        self.load_seconds += time.monotonic() - began
        return worker

    def renew(self, proven: bool) -> bool:
        """Ends the worker, so that the next frames get a new one; whether it did. Without proof that it is
        spoilt a worker that took long to load stays."""
        worker = self._worker()
        if worker.load_seconds > _CHEAP_LOAD_SECONDS and not (proven and self.renewals < _DEAR_RENEWALS_MAX):
            return False
        self.renewals += 1
        self.lose(worker, True)
        return True

    def __call__(
        self, frames: list[Frame], limit: Callable[[Frame, int], float]
    ) -> Iterator[tuple[Frame, FrameReply]]:
        waiting = list(frames)
        while waiting and time.monotonic() < self._call.deadline:
            try:
                worker = self._ready(waiting)
            except RunnerError as fault:
                if not self.has_run:
                    raise
                # It did load before, so the rows that it has not seen fail, and the results so far are kept.
                for frame in waiting:
                    yield (
                        frame,
                        FrameReply(error=Fault("plugin_not_probed", f"no new process for it: {fault.message}")),
                    )
                return
            while waiting:
                frame = waiting[0]
                worn = worker.frames_run > 0
                reply, lost = self._receive(worker, frame, limit(frame, len(waiting)))
                worker.frames_run += 1
                reply.worn = worn
                self.has_run = True
                self.cpu_ms += reply.cpu_ms
                waiting.pop(0)
                yield frame, reply
                if lost:
                    break

    def _ready(self, frames: list[Frame]) -> Worker:
        worker = self._worker()
        was_used = worker.rows_of_call is not None
        try:
            return self._begin(worker, frames)
        except RunnerError as fault:
            # It may have ended since it was last used, together with the zygote for instance; or what the
            # plugin did in an earlier call keeps it from building its steps now.
            if not isinstance(fault, WorkerGone) and not was_used:
                raise
        return self._begin(self._worker(), frames)

    def _begin(self, worker: Worker, frames: list[Frame]) -> Worker:
        call = self._call
        seconds = call.deadline - time.monotonic()
        message = {
            "op": "run",
            "frames": frames,
            "features": call.features,
            "parameters": call.parameters,
            "extractor_id": call.extractor_id,
            "dataset_size": len(call.rows),
            "realtime": call.realtime,
            "secrets": call.secrets,
            "cpu_seconds": 2 * seconds + CPU_SECONDS_SPARE,
        }
        if worker.rows_of_call != call.number:
            message["rows"] = by_column(call.rows)
        try:
            answer = worker.ask(
                message, min(call.deadline, time.monotonic() + START_SECONDS_MAX), "building the steps of"
            )
            self.note_warnings(answer)
        except RunnerError:
            self.lose(worker, True)
            raise
        worker.rows_of_call = call.number
        return worker

    def _receive(self, worker: Worker, frame: Frame, seconds: float) -> tuple[FrameReply, bool]:
        give_up_at = min(time.monotonic() + seconds, self._call.deadline)
        try:
            header, blocks = worker.channel.receive(give_up_at)
            reply = check_frame(
                header, blocks, frame, self._row_numbers[frame[0] : frame[1]], self._call.features
            )
            self.note_warnings(header)
            self.result_bytes += worker.channel.received_bytes
            if self.result_bytes > RESULT_BYTES_MAX:
                self.result_bytes -= worker.channel.received_bytes
                message = f"the results of the call have more than {RESULT_BYTES_MAX} bytes"
                reply = FrameReply(error=Fault("outputs_too_large", message), cpu_ms=reply.cpu_ms)
            return reply, False
        except _wire.OutOfTime:
            self.lose(worker, True)
            return FrameReply(error=Fault("plugin_timeout", f"not finished after {seconds:.1f} s")), True
        except _wire.PeerGone:
            return FrameReply(error=Fault("plugin_died", self.lose(worker, False))), True
        except _wire.Overdrawn as fault:
            self.lose(worker, True)
            return FrameReply(error=Fault("plugin_disk", str(fault))), True
        except _wire.WireError as fault:
            self.lose(worker, True)
            return FrameReply(error=Fault("plugin_protocol_error", str(fault))), True

    def note_warnings(self, header: dict) -> None:
        """Adds what Python warned of, by a worker's answer. Raises WireError."""
        for text, count in check_python_warnings(header.get("python_warnings")):
            self.python_warnings[text] = self.python_warnings.get(text, 0) + count


def by_column(rows: list[dict]) -> dict:
    """The rows as the worker takes them: lists by column, and columns with one value only once."""
    columns: dict[str, list] = {}
    constants: dict[str, object] = {}
    for name in INPUT_COLUMNS:
        values = [row.get(name) for row in rows]
        first = values[0] if values else None
        # Only for texts and None does "equal" mean the same; true equals 1.
        if (first is None or isinstance(first, str)) and values.count(first) == len(values):
            constants[name] = first
        else:
            columns[name] = values
    return {"numbers": [row["row"] for row in rows], "columns": columns, "constants": constants}


def _rows(event: dict, deadline: float) -> list[dict]:
    rows = event.get("rows")
    if rows is None:
        url = event.get("rows_url")
        if not isinstance(url, str):
            _bad("the event needs rows or rows_url")
        file = io.BytesIO()
        try:
            _fetch.get(url, file, ROWS_BYTES_MAX, deadline)
            rows = json.loads(file.getvalue())
        except (_fetch.FetchError, ValueError) as fault:
            raise RunnerError("rows_download_failed", f"rows_url: {fault}") from None
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        _bad("rows must be a list of objects, each with an integer row")
    if len(rows) > ROWS_MAX:
        _bad(f"{len(rows)} rows; at most {ROWS_MAX} are taken in one call")
    given = [r.get("row") for r in rows]
    if not set(map(type, given)) <= {int}:
        _bad("rows must be a list of objects, each with an integer row")
    if len(set(given)) != len(given) or (given and not 0 <= min(given) <= max(given) < 2**53):
        _bad("the rows' numbers must be different, not negative, and below 2^53")
    return rows


def _memory_mb(event: dict) -> int | None:
    limits = event.get("limits")
    if limits is None:
        return None
    memory_mb = limits.get("memory_mb") if isinstance(limits, dict) else 0
    if memory_mb is not None and (
        type(memory_mb) is not int or not MEMORY_MB_MIN <= memory_mb <= MEMORY_MB_MAX
    ):
        _bad(f"limits.memory_mb must be an integer from {MEMORY_MB_MIN} to {MEMORY_MB_MAX}")
    return memory_mb


def _inputs(event: dict) -> dict:
    inputs = _want(event, "inputs", dict)
    if len(json.dumps(inputs)) > INPUT_BYTES_MAX:
        _bad(f"inputs has more than {INPUT_BYTES_MAX} bytes")
    return inputs


def _features(event: dict) -> list[tuple[str, int]]:
    features = event.get("features", [])
    if not isinstance(features, list) or len(features) > FEATURES_MAX:
        _bad(f"features must be a list of at most {FEATURES_MAX}")
    found = []
    for feature in features:
        name = feature.get("name") if isinstance(feature, dict) else None
        dims = feature.get("dims") if isinstance(feature, dict) else None
        if not isinstance(name, str) or type(dims) is not int or not 1 <= dims <= DIMS_MAX:
            _bad(f"each feature needs a name and dims from 1 to {DIMS_MAX}")
        found.append((name, dims))
    if len({name for name, _ in found}) != len(found):
        _bad("two features have the same name")
    return found


def _want(container: dict, key: str, kind: type, where: str = ""):
    value = container.get(key) if isinstance(container, dict) else None
    if not isinstance(value, kind):
        _bad(f"{where}{key} must be a {kind.__name__}")
    return value


def _bad(message: str) -> None:
    raise RunnerError("bad_request", message)
