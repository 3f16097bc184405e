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
from _errors import RunnerError, WorkerGone
from _processes import START_SECONDS_MAX, Worker
from _probe import Frame
from _reply import FrameReply, check_frame
from _shape import INPUT_COLUMNS

OPERATIONS = ("run", "embed", "check")
ROWS_MAX = 10_000
ROWS_BYTES_MAX = 64 * 1024 * 1024
FEATURES_MAX = 8
DIMS_MAX = 4096
BATCH_SIZE_MAX = 1000
DEADLINE_MS_MAX = 900_000
RESERVE_SECONDS = 10.0
_CPU_SECONDS_SPARE = 10.0


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
        rows=[] if operation == "check" else _rows(event, deadline),
        realtime=event.get("realtime") is True,
        result_url=result_url,
        deadline=deadline,
    )


class FrameRuns:
    """Runs the frames of one call, in order, with a time for each; a worker that hangs or dies is
    replaced."""

    def __init__(self, call: Call, worker: Callable[[], Worker], lose: Callable[[Worker, bool], str]) -> None:
        """``worker`` gives a loaded worker, ``lose`` ends it (at once or after it ended by itself) and says
        how."""
        self._call = call
        self._worker = worker
        self._lose = lose
        self._row_numbers = [row["row"] for row in call.rows]
        self.has_run = False
        self.cpu_ms = 0.0
        self.load_seconds = 0.0

    def prepare(self) -> Worker:
        """A worker with the steps built and the rows at hand. Raises RunnerError."""
        began = time.monotonic()
        try:
            worker = self._begin(self._worker(), [])
        except WorkerGone:
            # It may have ended since the last call, together with the zygote for instance.
            worker = self._begin(self._worker(), [])
        self.load_seconds += time.monotonic() - began
        return worker

    def __call__(
        self, frames: list[Frame], limit: Callable[[Frame, int], float]
    ) -> Iterator[tuple[Frame, FrameReply]]:
        waiting = list(frames)
        while waiting and time.monotonic() < self._call.deadline:
            try:
                worker = self._begin(self._worker(), waiting)
            except RunnerError as fault:
                if not self.has_run:
                    raise
                # It did load before, so the rows that it has not seen fail, and the results so far are kept.
                for frame in waiting:
                    yield (
                        frame,
                        FrameReply(error=("plugin_not_probed", f"no new process for it: {fault.message}")),
                    )
                return
            while waiting:
                frame = waiting[0]
                reply, lost = self._receive(worker, frame, limit(frame, len(waiting)))
                self.has_run = True
                self.cpu_ms += reply.cpu_ms
                waiting.pop(0)
                yield frame, reply
                if lost:
                    break

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
            "cpu_seconds": 2 * seconds + _CPU_SECONDS_SPARE,
        }
        if worker.rows_of_call != call.number:
            message["rows"] = by_column(call.rows)
        try:
            worker.ask(
                message, min(call.deadline, time.monotonic() + START_SECONDS_MAX), "building the steps of"
            )
        except RunnerError:
            self._lose(worker, True)
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
            return reply, False
        except _wire.OutOfTime:
            self._lose(worker, True)
            return FrameReply(error=("plugin_timeout", f"not finished after {seconds:.1f} s")), True
        except _wire.PeerGone:
            return FrameReply(error=("plugin_died", self._lose(worker, False))), True
        except _wire.WireError as fault:
            self._lose(worker, True)
            return FrameReply(error=("plugin_protocol_error", str(fault))), True


def by_column(rows: list[dict]) -> dict:
    """The rows as the worker takes them: lists by column, and columns with one value only once."""
    columns: dict[str, list] = {}
    constants: dict[str, object] = {}
    for name in INPUT_COLUMNS:
        values = [row.get(name) for row in rows]
        first = values[0] if values else None
        # `is` first: most such columns hold one object, or None; true must not be taken for 1.
        if all(value is first for value in values) or (
            isinstance(first, str) and values.count(first) == len(values)
        ):
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
    if not isinstance(rows, list) or not all(isinstance(r, dict) and type(r.get("row")) is int for r in rows):
        _bad("rows must be a list of objects, each with an integer row")
    if len(rows) > ROWS_MAX:
        _bad(f"{len(rows)} rows; at most {ROWS_MAX} are taken in one call")
    numbers = {r["row"] for r in rows}
    if len(numbers) != len(rows) or any(not 0 <= number < 2**53 for number in numbers):
        _bad("the rows' numbers must be different, not negative, and below 2^53")
    return rows


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
