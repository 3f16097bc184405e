"""Turns what a plugin raised into one short message that names the plugin's own file and line."""

from __future__ import annotations

import traceback
from types import TracebackType

from _answer import AnswerFault
from _errors import TRACEBACK_CHARS_MAX

LOAD_LINES = 4
CHAIN_MAX = 3
SOURCE_CHARS_MAX = 200
HEADLINE_CHARS_MAX = 1000
TEXT_CHARS_MAX = 20_000
"""An error's text may be larger than the memory for a copy of it."""


class ContractFault(Exception):
    """The plugin broke a rule of the contract; the code says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def code_of(fault: BaseException) -> str:
    """The code of the table for something raised while rows were processed."""
    if isinstance(fault, (ContractFault, AnswerFault)):
        return fault.code
    return "plugin_memory" if isinstance(fault, MemoryError) else "plugin_row_failed"


def describe(fault: BaseException, folder: str) -> str:
    """``ValueError: no good (pipeline.py:42 in embed)``: the last line of the plugin that the error went
    through."""
    if isinstance(fault, (ContractFault, AnswerFault)):
        return str(fault)
    try:
        frames = _frames(fault.__traceback__, folder)
        return _headline(fault) + (f" ({_line(frames[-1], folder)})" if frames else "") + _remedy(fault)
    except BaseException:
        # Short of memory, or the plugin has patched what is used here.
        return _name(fault)


def describe_load(fault: BaseException, folder: str) -> str:
    """As describe, with the last few lines of the way through the plugin."""
    if isinstance(fault, ContractFault):
        return str(fault)
    try:
        frames = [_line(frame, folder) for frame in _frames(fault.__traceback__, folder)]
        if isinstance(fault, SyntaxError) and fault.filename and fault.filename.startswith(folder):
            frames.append(f"{_short(fault.filename, folder)}:{fault.lineno}")
        way = " <- ".join(reversed(frames[-LOAD_LINES:]))
        return _headline(fault) + (f" ({way})" if way else "") + _remedy(fault)
    except BaseException:
        return _name(fault)


def traceback_of(fault: BaseException, folder: str) -> str | None:
    """The error's way through the plugin's own files in Python's form, with what it was raised from.

    At most TRACEBACK_CHARS_MAX characters, of which the last are kept. None where no line of the plugin is
    concerned.
    """
    try:
        parts, seen, current = [], set(), fault
        while current is not None and id(current) not in seen and len(parts) < CHAIN_MAX:
            seen.add(id(current))
            lines = _traceback_lines(current, folder)
            if lines:
                parts.insert(0, lines)
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        if not parts:
            return None
        text = "\n\nwhich led to\n\n".join(parts)
        if len(text) > TRACEBACK_CHARS_MAX:
            text = "...\n" + text[-(TRACEBACK_CHARS_MAX - 4) :]
        return text.encode("utf-8", "replace").decode("utf-8")
    except BaseException:
        return None


def _traceback_lines(fault: BaseException, folder: str) -> str | None:
    frames = _frames(fault.__traceback__, folder)
    if isinstance(fault, SyntaxError) and str(fault.filename or "").startswith(folder):
        place = f'  File "{_short(fault.filename, folder)}", line {fault.lineno}'
        return "\n".join(["Traceback (most recent call last):", place, _headline(fault)[:HEADLINE_CHARS_MAX]])
    if not frames:
        return None
    lines, repeats, last = ["Traceback (most recent call last):"], 0, None
    for frame in [*frames, None]:
        place = None if frame is None else (frame.filename, frame.lineno, frame.name)
        if place is not None and place == last:
            repeats += 1
            continue
        if repeats:
            lines.append(f"  [the previous line {repeats} more times]")
        repeats, last = 0, place
        if frame is not None:
            lines.append(f'  File "{_short(frame.filename, folder)}", line {frame.lineno}, in {frame.name[:100]}')
            if frame.line:
                lines.append(f"    {frame.line[:SOURCE_CHARS_MAX]}")
    return "\n".join([*lines, _headline(fault)[:HEADLINE_CHARS_MAX]])


def _headline(fault: BaseException) -> str:
    if isinstance(fault, SyntaxError):
        return f"{_name(fault)}: {fault.msg}"
    try:
        text = str(fault)
    except BaseException as inner:
        # The error's own __str__ is the plugin's code too.
        text = f"(its text cannot be made: {_name(inner)})"
    return f"{_name(fault)}: {text[:TEXT_CHARS_MAX]}" if text else _name(fault)


def _remedy(fault: BaseException) -> str:
    """What to do about a fault that says nothing of it itself."""
    if type(fault) is not ModuleNotFoundError:
        return ""
    return (
        "; what the runtime lacks goes under vendor/: once manifest.py names the package in dependencies, validation"
        " says by which command"
    )


def _name(fault: BaseException) -> str:
    return type.__getattribute__(type(fault), "__name__")[:200]


def _frames(trace: TracebackType | None, folder: str) -> list[traceback.FrameSummary]:
    # A recursion error has a thousand frames; only the ends are looked at.
    summary = traceback.StackSummary.extract(traceback.walk_tb(trace), limit=-200, lookup_lines=False)
    return [frame for frame in summary if frame.filename.startswith(folder)]


def _line(frame: traceback.FrameSummary, folder: str) -> str:
    return f"{_short(frame.filename, folder)}:{frame.lineno} in {frame.name}"


def _short(filename: str, folder: str) -> str:
    return filename[len(folder) :].lstrip("/") or filename
