"""The process that runs one plugin: forked by the zygote, confined, then told by messages what to do.

It is the plugin's process and nothing here is a boundary; the handler keeps the time, checks each answer and
ends the process. Messages (see ``_wire.py``): ``load``, then any number of ``run``. Each ``run`` is answered
by ``ready`` (or ``fatal``) and then by one message per frame; ``answer``, which asks the realtime service,
follows a ``run`` without frames and is answered by one message.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import json
import os
import signal
import sys
import time
import warnings
from typing import Any

import pandas as pd

import _limits
import _wire
from _answer import ANSWER_BYTES_MAX, AnswerFault, to_plain
from _contract import Container, Pipeline, build_pipeline, cut_frame, make_table
from _errors import TRACEBACK_CHARS_MAX, cut
from _faults import ContractFault, code_of, describe, describe_load, traceback_of
from _loader import Plugin
from _output import FrameOutput, collect
from _realtime import Realtime
from _secrets import Mask, Secrets
from _shape import ROW_COLUMN

LOG_BYTES_MAX = 64 * 1024
WARNINGS_MAX = 20
WARNING_CHARS_MAX = 300
_BUILT_MAX = 4
_REPLY_BYTES_MAX = _wire.MESSAGE_BYTES_MAX - 1024


def main(read_fd: int, write_fd: int, log_fd: int, order: dict, work_folder: str, parent_pid: int) -> None:
    """Never returns: confines the process, serves messages until the pipe closes, then ends without
    clean-up."""
    try:
        log = _redirect(log_fd)
        isolation = _limits.apply(order, work_folder, parent_pid)
        os.environ.update(HOME=order["scratch"], TMPDIR=order["scratch"])
        _Worker(read_fd, write_fd, isolation, log).serve()
    except _wire.PeerGone:
        os._exit(0)
    except BaseException as fault:
        # The last words go to the log, from where the handler quotes them.
        os.write(2, f"worker: {type(fault).__name__}: {fault}\n".encode("utf-8", "replace"))
        os._exit(70)


class _Worker:
    def __init__(self, read_fd: int, write_fd: int, isolation: dict, log: "_CappedLog") -> None:
        self.pid = os.getpid()
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.isolation = isolation
        self.log = log
        self.heeded = Heeded()
        self.secrets = Secrets()
        self.mask = Mask({})
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.plugin: Plugin | None = None
        self.built: dict[str, Pipeline | Realtime] = {}
        self.table: Any = None
        self.rows: list[int] = []
        self.data: list = []

    def serve(self) -> None:
        while True:
            message, _ = _wire.read_blocking(self.read_fd)
            self.log.restart()
            _limits.allow_cpu_seconds(message["cpu_seconds"])
            secrets = message.pop("secrets", {})
            self.mask = Mask(secrets)
            self.secrets.open(secrets)
            del secrets
            try:
                {"load": self.load, "run": self.run, "answer": self.answer}[message["op"]](message)
            finally:
                # Nothing of them stays here until the next call.
                self.secrets.close()
                self.mask = Mask({})
                del message

    def send(self, message: list[bytes], last: bool = True) -> None:
        """``last``: who reads it may take the call for over, so its secrets go first."""
        if last:
            self.secrets.close()
        if os.getpid() != self.pid:
            # The plugin forked and its child came back out of the plugin's code. It must not speak in our
            # name.
            os._exit(0)
        _wire.write_blocking(self.write_fd, message)

    def load(self, message: dict) -> None:
        folder = message["folder"]
        self.heeded.begin(folder)
        try:
            self.plugin = Plugin(folder, message["package"])
            self.plugin.module("pipeline")
        except BaseException as fault:
            # BaseException: sys.exit() at import is a load error too.
            self.send(_wire.encode({"fatal": self.fatal(fault, folder)}))
            return
        self.send(_wire.encode({"ready": True, "isolation": self.isolation}))

    def run(self, message: dict) -> None:
        if "rows" in message:
            self.take_rows(message["rows"])
        realtime = message["realtime"]
        try:
            work = self.build(message)
        except BaseException as fault:
            self.send(_wire.encode({"fatal": self.fatal(fault, self.plugin.folder)}))
            return
        features = [(name, dims) for name, dims in message["features"]]
        left = len(message["frames"])
        self.send(_wire.encode({"ready": True, "python_warnings": self.heeded.take()}), last=left == 0)
        for start, stop in message["frames"]:
            began = time.process_time()
            try:
                if realtime:
                    output = self.realtime_frame(work, start, stop, message["parameters"], features)
                else:
                    output = self.batch_frame(work, start, stop, features)
                head = {"frame": [start, stop], "cpu_ms": _ms_since(began), "python_warnings": self.heeded.take()}
                answer = _packed(output, head, features)
            except BaseException as fault:
                error = self.error(fault)
                answer = _wire.encode(
                    {
                        "frame": [start, stop],
                        "cpu_ms": _ms_since(began),
                        "error": error,
                        "python_warnings": self.heeded.take(),
                    }
                )
            left -= 1
            self.send(answer, last=left == 0)

    def answer(self, message: dict) -> None:
        began = time.process_time()
        parameters = message["parameters"]
        try:
            service = self.realtime(parameters)
            plain = to_plain(service.answer(message["inputs"], parameters))
            answer = _wire.encode(
                {"answer": plain, "cpu_ms": _ms_since(began), "python_warnings": self.heeded.take()}
            )
            if sum(map(len, answer)) > ANSWER_BYTES_MAX:
                raise AnswerFault("realtime_wrong_answer", f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        except BaseException as fault:
            error = self.error(fault)
            answer = _wire.encode(
                {"error": error, "cpu_ms": _ms_since(began), "python_warnings": self.heeded.take()}
            )
        self.send(answer)

    def error(self, fault: BaseException) -> list:
        """What a frame's answer says of what was raised."""
        folder = self.plugin.folder
        trace = traceback_of(fault, folder)
        told = [
            code_of(fault),
            cut(self.mask(describe(fault, folder))),
            None if trace is None else self.mask(trace)[:TRACEBACK_CHARS_MAX],
        ]
        # A traceback holds the frame's data, which may be what used up the memory.
        BaseException.with_traceback(fault, None)
        return told

    def fatal(self, fault: BaseException, folder: str) -> list:
        code = fault.code if isinstance(fault, ContractFault) else "plugin_load_failed"
        trace = traceback_of(fault, folder)
        return [
            code,
            cut(self.mask(describe_load(fault, folder))),
            None if trace is None else self.mask(trace)[:TRACEBACK_CHARS_MAX],
        ]

    def realtime(self, parameters: dict) -> Realtime:
        return self.build({"parameters": parameters, "realtime": True, "extractor_id": ""})

    def build(self, message: dict) -> Pipeline | Realtime:
        parameters, realtime = message["parameters"], message["realtime"]
        key = json.dumps([realtime, "" if realtime else message["extractor_id"], parameters], sort_keys=True)
        if key not in self.built:
            while len(self.built) >= _BUILT_MAX:
                del self.built[next(iter(self.built))]
            if realtime:
                module = self.plugin.module("realtime")
                self.built[key] = Realtime(module, parameters, Container(self.secrets), self.loop)
            else:
                self.built[key] = build_pipeline(
                    self.plugin.module("pipeline"),
                    parameters,
                    message["extractor_id"],
                    message["dataset_size"],
                    Container(self.secrets),
                    self.loop,
                )
        return self.built[key]

    def take_rows(self, rows: dict) -> None:
        self.rows = rows["numbers"]
        self.table = make_table(self.rows, rows["columns"], rows["constants"])
        self.data = self.table["data"].tolist()

    def batch_frame(
        self, work: Pipeline, start: int, stop: int, features: list[tuple[str, int]]
    ) -> FrameOutput:
        result = work.run(cut_frame(self.table, start, stop))
        return collect(result, self.rows[start:stop], self.data[start:stop], features)

    def realtime_frame(
        self, work: Realtime, start: int, stop: int, parameters: dict, features: list[tuple[str, int]]
    ) -> FrameOutput:
        rows, data = self.rows[start:stop], self.data[start:stop]
        names = [name for name, _ in features]
        vectors = [work.embed(text, parameters, names) for text in data]
        columns = {
            name: pd.Series([vector[i] for vector in vectors], dtype=object) for i, name in enumerate(names)
        }
        return collect(pd.DataFrame({ROW_COLUMN: rows, **columns}), rows, data, features)


def _packed(output: FrameOutput, header: dict, features: list[tuple[str, int]]) -> list[bytes]:
    message = _wire.encode(
        {
            **header,
            "rows": output.rows,
            "places": output.places,
            "columns": output.columns,
            "absent": output.absent,
            "vectors": [[name, dims, len(matrix)] for (name, dims), matrix in zip(features, output.matrices)],
            "failures": output.failures,
            "warnings": output.warnings,
        },
        [matrix.tobytes() for matrix in output.matrices],
    )
    size = sum(len(part) for part in message)
    if size > _REPLY_BYTES_MAX:
        raise ContractFault(
            "result_too_large", f"the frame's result has {size} bytes; at most {_REPLY_BYTES_MAX} can be sent"
        )
    return message


def _ms_since(began: float) -> float:
    return round((time.process_time() - began) * 1000, 3)


class _CappedLog(io.RawIOBase):
    """Where print goes: passes on so many bytes between two messages and drops the rest, without an error."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self.left = LOG_BYTES_MAX
        self.pid = os.getpid()

    def restart(self) -> None:
        self.left = LOG_BYTES_MAX

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.fd

    def write(self, data: Any) -> int:
        taken = bytes(data[: self.left]) if self.left else b""
        if taken:
            self.left -= os.write(self.fd, taken)
        return len(data)


class Heeded:
    """Collects Python's warnings, each once with its number, instead of printing them."""

    def __init__(self) -> None:
        self.folder = ""
        self.counts: dict[str, int] = {}

    def begin(self, folder: str) -> None:
        """From now on warnings are collected; those about ways to write code only of the plugin's own."""
        self.folder = folder
        warnings.resetwarnings()
        # Each time, not once for each place: the number is what tells a slip from a flood.
        warnings.simplefilter("always")
        for category in (ImportWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = self.show

    def show(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        """Python calls this for each warning."""
        own = filename.startswith(self.folder)
        if issubclass(category, DeprecationWarning) and not own:
            return
        place = filename[len(self.folder) :].lstrip("/") if own else os.path.basename(filename)
        text = f"{category.__name__}: {str(message)[:WARNING_CHARS_MAX]} ({place}:{lineno})"
        if text in self.counts or len(self.counts) < WARNINGS_MAX:
            self.counts[text] = self.counts.get(text, 0) + 1

    def take(self) -> list:
        """What was collected since the last time, as pairs of text and number."""
        if not self.counts:
            return []
        taken, self.counts = self.counts, {}
        return [list(pair) for pair in taken.items()]


def _redirect(log_fd: int) -> "_CappedLog":
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    for fd in (null, log_fd):
        os.close(fd)
    log = _CappedLog(1)
    sys.stdout = io.TextIOWrapper(log, encoding="utf-8", errors="backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(log, encoding="utf-8", errors="backslashreplace", write_through=True)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.enable(file=2, all_threads=False)
    return log
