"""Asks a plugin's realtime service on a worker, and checks what it answers."""

from __future__ import annotations

import time
from typing import Any

import _wire
from _answer import ANSWER_BYTES_MAX, AnswerFault, check_answer
from _call import CPU_SECONDS_SPARE, Call, FrameRuns
from _errors import RunnerError
from _processes import Worker
from _reply import check_fault

_MESSAGE_BYTES_SPARE = 64 * 1024
_FINAL = ("plugin_timeout", "plugin_disk")


def ask_realtime(call: Call, runs: FrameRuns) -> Any:
    """The answer as plain data. Raises RunnerError.

    A worker that has served other calls may have been spoilt by one; then a new one is asked once more.
    """
    worker = runs.prepare()
    worn = worker.frames_run > 0
    try:
        return _ask(call, runs, worker)
    except RunnerError as fault:
        if not worn or fault.code in _FINAL or not runs.renew(False):
            raise
    return _ask(call, runs, runs.prepare())


def _ask(call: Call, runs: FrameRuns, worker: Worker) -> Any:
    seconds = call.deadline - time.monotonic()
    message = {
        "op": "answer",
        "inputs": call.inputs,
        "parameters": call.parameters,
        "secrets": call.secrets,
        "cpu_seconds": 2 * max(0.0, seconds) + CPU_SECONDS_SPARE,
    }
    worker.frames_run += 1
    try:
        worker.channel.send(message, call.deadline)
        header, _ = worker.channel.receive(call.deadline)
        runs.note_warnings(header)
        cpu_ms = header.get("cpu_ms")
        runs.cpu_ms += float(cpu_ms) if type(cpu_ms) in (int, float) else 0.0
        if "error" in header:
            code, text, traceback = check_fault(header["error"])
            raise RunnerError("realtime_failed" if code == "plugin_row_failed" else code, text, traceback)
        if "answer" not in header:
            raise _wire.WireError("there is no answer in it")
        if worker.channel.received_bytes > ANSWER_BYTES_MAX + _MESSAGE_BYTES_SPARE:
            raise AnswerFault("realtime_wrong_answer", f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        check_answer(header["answer"], call.features, call.inputs)
        return header["answer"]
    except AnswerFault as fault:
        raise RunnerError(fault.code, str(fault)) from None
    except _wire.OutOfTime:
        runs.lose(worker, True)
        raise RunnerError(
            "plugin_timeout", f"the realtime service did not answer within {seconds:.1f} s"
        ) from None
    except _wire.PeerGone:
        raise RunnerError("plugin_died", f"the realtime service: {runs.lose(worker, False)}") from None
    except _wire.Overdrawn as fault:
        runs.lose(worker, True)
        raise RunnerError("plugin_disk", str(fault)) from None
    except _wire.WireError as fault:
        runs.lose(worker, True)
        raise RunnerError("plugin_protocol_error", str(fault)) from None
