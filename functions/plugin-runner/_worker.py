"""The process that runs one plugin: forked by the zygote, confined, then told by messages what to do.

It is the plugin's process and nothing here is a boundary; the handler keeps the time, checks each answer and
ends the process. Messages (see ``_wire.py``): ``load``, then any number of ``run``. Each ``run`` is answered
by ``ready`` (or ``fatal``) and then by one message per frame.
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
from typing import Any

import pandas as pd

import _limits
import _wire
from _contract import Pipeline, build_pipeline, cut_frame, make_table
from _errors import cut
from _faults import ContractFault, code_of, describe, describe_load
from _loader import Plugin
from _output import FrameOutput, collect
from _realtime import Realtime
from _shape import ROW_COLUMN

LOG_BYTES_MAX = 64 * 1024
_BUILT_MAX = 4
_REPLY_BYTES_MAX = _wire.MESSAGE_BYTES_MAX - 1024


def main(read_fd: int, write_fd: int, log_fd: int, order: dict, parent_pid: int) -> None:
    """Never returns: confines the process, serves messages until the pipe closes, then ends without
    clean-up."""
    try:
        _redirect(log_fd)
        isolation = _limits.apply(order["memory_bytes"], order["scratch"], parent_pid)
        os.environ.update(HOME=order["scratch"], TMPDIR=order["scratch"])
        _Worker(read_fd, write_fd, isolation).serve()
    except _wire.PeerGone:
        os._exit(0)
    except BaseException as fault:
        # The last words go to the log, from where the handler quotes them.
        os.write(2, f"worker: {type(fault).__name__}: {fault}\n".encode("utf-8", "replace"))
        os._exit(70)


class _Worker:
    def __init__(self, read_fd: int, write_fd: int, isolation: dict) -> None:
        self.pid = os.getpid()
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.isolation = isolation
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
            sys.stdout.buffer.restart()
            _limits.allow_cpu_seconds(message["cpu_seconds"])
            {"load": self.load, "run": self.run}[message["op"]](message)

    def send(self, message: list[bytes]) -> None:
        if os.getpid() != self.pid:
            # The plugin forked and its child came back out of the plugin's code. It must not speak in our
            # name.
            os._exit(0)
        _wire.write_blocking(self.write_fd, message)

    def load(self, message: dict) -> None:
        folder = message["folder"]
        try:
            self.plugin = Plugin(folder, message["package"])
            self.plugin.module("pipeline")
        except BaseException as fault:
            # BaseException: sys.exit() at import is a load error too.
            self.send(_wire.encode({"fatal": _fatal(fault, folder)}))
            return
        self.send(_wire.encode({"ready": True, "isolation": self.isolation}))

    def run(self, message: dict) -> None:
        if "rows" in message:
            self.take_rows(message["rows"])
        realtime = message["realtime"]
        try:
            work = self.build(message)
        except BaseException as fault:
            self.send(_wire.encode({"fatal": _fatal(fault, self.plugin.folder)}))
            return
        self.send(_wire.encode({"ready": True}))
        features = [(name, dims) for name, dims in message["features"]]
        for start, stop in message["frames"]:
            began = time.process_time()
            try:
                if realtime:
                    output = self.realtime_frame(work, start, stop, message["parameters"], features)
                else:
                    output = self.batch_frame(work, start, stop, features)
                answer = _packed(output, {"frame": [start, stop], "cpu_ms": _ms_since(began)}, features)
            except BaseException as fault:
                error = [code_of(fault), describe(fault, self.plugin.folder)]
                answer = _wire.encode({"frame": [start, stop], "cpu_ms": _ms_since(began), "error": error})
                # A traceback holds the frame's data, which may be what used up the memory.
                fault.__traceback__ = None
            self.send(answer)

    def build(self, message: dict) -> Pipeline | Realtime:
        parameters, realtime = message["parameters"], message["realtime"]
        key = json.dumps([realtime, message["extractor_id"], parameters], sort_keys=True)
        if key not in self.built:
            while len(self.built) >= _BUILT_MAX:
                del self.built[next(iter(self.built))]
            if realtime:
                self.built[key] = Realtime(self.plugin.module("realtime"), parameters, self.loop)
            else:
                self.built[key] = build_pipeline(
                    self.plugin.module("pipeline"),
                    parameters,
                    message["extractor_id"],
                    message["dataset_size"],
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


def _fatal(fault: BaseException, folder: str) -> list[str]:
    code = fault.code if isinstance(fault, ContractFault) else "plugin_load_failed"
    return [code, cut(describe_load(fault, folder))]


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


def _redirect(log_fd: int) -> None:
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
