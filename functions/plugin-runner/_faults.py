"""Turns what a plugin raised into one short message that names the plugin's own file and line."""

from __future__ import annotations

import traceback
from types import TracebackType

from _errors import cut

LOAD_LINES = 4


class ContractFault(Exception):
    """The plugin broke a rule of the contract; the code says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def code_of(fault: BaseException) -> str:
    """The code of the table for something raised while rows were processed."""
    if isinstance(fault, ContractFault):
        return fault.code
    return "plugin_memory" if isinstance(fault, MemoryError) else "plugin_row_failed"


def describe(fault: BaseException, folder: str) -> str:
    """``ValueError: no good (pipeline.py:42 in embed)``: the last line of the plugin that the error went
    through."""
    try:
        if isinstance(fault, ContractFault):
            return cut(str(fault))
        place = _place(fault, folder)
        return cut(_headline(fault) + (f" ({place})" if place else ""))
    except MemoryError:
        return type(fault).__name__


def describe_load(fault: BaseException, folder: str) -> str:
    """As describe, with the last few lines of the way through the plugin."""
    if isinstance(fault, ContractFault):
        return cut(str(fault))
    frames = [_line(frame, folder) for frame in _frames(fault.__traceback__, folder)]
    if isinstance(fault, SyntaxError) and fault.filename and fault.filename.startswith(folder):
        frames.append(f"{_short(fault.filename, folder)}:{fault.lineno}")
    way = " <- ".join(reversed(frames[-LOAD_LINES:]))
    return cut(_headline(fault) + (f" ({way})" if way else ""))


def _headline(fault: BaseException) -> str:
    if isinstance(fault, SyntaxError):
        return f"{type(fault).__name__}: {fault.msg}"
    try:
        text = str(fault)
    except Exception as inner:
        # The error's own __str__ is the plugin's code too.
        text = f"(its text cannot be made: {type(inner).__name__})"
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def _place(fault: BaseException, folder: str) -> str:
    frames = _frames(fault.__traceback__, folder)
    return _line(frames[-1], folder) if frames else ""


def _frames(trace: TracebackType | None, folder: str) -> list[traceback.FrameSummary]:
    # A recursion error has a thousand frames; only the ends are looked at.
    summary = traceback.StackSummary.extract(traceback.walk_tb(trace), limit=-200, lookup_lines=False)
    return [frame for frame in summary if frame.filename.startswith(folder)]


def _line(frame: traceback.FrameSummary, folder: str) -> str:
    return f"{_short(frame.filename, folder)}:{frame.lineno} in {frame.name}"


def _short(filename: str, folder: str) -> str:
    return filename[len(folder) :].lstrip("/") or filename
