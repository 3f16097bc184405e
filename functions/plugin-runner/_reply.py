"""Checks what a worker answered for one frame, and puts the reply of a call together.

A worker is a process with foreign code in it, so its answer may say anything. Only what was asked for is
taken over: rows of this frame, features of this call, vectors of the right length with finite numbers, codes
of the table.
"""

from __future__ import annotations

import array
import base64
import collections
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from _errors import CODES, TRACEBACK_CHARS_MAX, cut, failure
from _shape import COLUMN_NAME_CHARS_MAX, COLUMNS_MAX, OUTPUTS_PER_ROW_MAX
from _wire import WireError

WARNINGS_MAX = 20
_NESTED_MAX = 30


class Fault(NamedTuple):
    """Why a frame or a row failed; ``traceback`` is the way of an error through the plugin."""

    code: str
    message: str
    traceback: str | None = None


@dataclass
class FrameReply:
    """One frame's checked answer: ``error`` is set if the frame failed as a whole.

    Entry i of ``rows``, of each list in ``places`` (one for each feature) and of ``columns`` belong to one
    output.
    """

    error: Fault | None = None
    rows: list[int] = field(default_factory=list)
    places: list[list[int | None]] = field(default_factory=list)
    columns: list[dict] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    failures: list[tuple] = field(default_factory=list)
    """Of rows that failed in a frame that did not: (row, code, message, traceback)."""

    warnings: list[str] = field(default_factory=list)
    cpu_ms: float = 0.0
    worn: bool = False
    """Whether the process had run other frames before this one, in this call or an earlier one."""


def check_frame(
    header: dict,
    blocks: list[bytes],
    frame: tuple[int, int],
    rows: list[int],
    features: list[tuple[str, int]],
) -> FrameReply:
    """``rows`` are the row numbers of the frame. Raises WireError if anything is not as it must be."""
    if header.get("frame") != list(frame):
        raise WireError("the answer is for another frame")
    cpu_ms = header.get("cpu_ms")
    reply = FrameReply(cpu_ms=float(cpu_ms) if type(cpu_ms) in (int, float) else 0.0)
    if "error" in header:
        reply.error = check_fault(header["error"])
        return reply
    reply.counts = _check_blocks(header.get("vectors"), blocks, features)
    reply.blocks = blocks
    known = set(rows)
    reply.failures = [_failure(entry, known) for entry in _list(header, "failures")]
    failed = {entry[0] for entry in reply.failures}
    if len(failed) != len(reply.failures):
        raise WireError("a row failed twice")
    reply.rows = _integers(_list(header, "rows"))
    seen = set(reply.rows)
    if not seen <= known or seen & failed:
        raise WireError("an output is of a row that was not asked for, or that failed")
    if len(seen) != len(reply.rows) and max(collections.Counter(reply.rows).values()) > OUTPUTS_PER_ROW_MAX:
        raise WireError(f"a row has more than {OUTPUTS_PER_ROW_MAX} outputs")
    reply.places = _list(header, "places")
    if len(reply.places) != len(features):
        raise WireError("the places are not those of the features asked for")
    for places, count in zip(reply.places, reply.counts):
        used = _integers([p for p in places if p is not None]) if isinstance(places, list) else None
        if (
            used is None
            or len(places) != len(reply.rows)
            or (used and not 0 <= min(used) <= max(used) < count)
        ):
            raise WireError("an output refers to a vector that is not there")
    reply.columns = _columns(header.get("columns"), header.get("absent"), len(reply.rows))
    reply.warnings = [cut(str(w)) for w in _list(header, "warnings")[:WARNINGS_MAX]]
    return reply


def assemble(
    frames: list[FrameReply],
    row_order: dict[int, int],
    features: list[tuple[str, int]],
    failures: list[tuple],
    python_warnings: dict[str, int],
) -> dict:
    """The parts ``outputs``, ``dropped``, ``vectors``, ``failures`` and ``warnings`` of a reply, in the order
    of the rows."""
    outputs: list[dict] = []
    blocks: list[list[bytes]] = [[] for _ in features]
    counts = [0] * len(features)
    warnings: dict[str, None] = {}
    failed = list(failures)
    names = [name for name, _ in features]
    ordinals: dict[int, int] = {}
    for frame in frames:
        shifted = [
            [None if place is None else place + base for place in places]
            for places, base in zip(frame.places, counts)
        ]
        features_of_rows = [dict(zip(names, places)) for places in zip(*shifted)] or [{} for _ in frame.rows]
        for row, columns, own in zip(frame.rows, frame.columns, features_of_rows):
            ordinal = ordinals.get(row, 0)
            ordinals[row] = ordinal + 1
            outputs.append({"row": row, "ordinal": ordinal, "columns": columns, "features": own})
        for index, block in enumerate(frame.blocks):
            blocks[index].append(block)
            counts[index] += frame.counts[index]
        failed += frame.failures
        warnings.update(dict.fromkeys(frame.warnings))
    outputs.sort(key=lambda o: (row_order[o["row"]], o["ordinal"]))
    failed.sort(key=lambda f: row_order[f[0]])
    answered = {o["row"] for o in outputs} | {f[0] for f in failed}
    if outputs and features and not any(counts):
        # Each may have its reason. All of them mostly got what the plugin does not read: texts instead of files.
        many = f"none of {len(outputs)} outputs has a vector, so no search finds them"
        one = "the one output has no vector, so no search finds it"
        warnings = {many if len(outputs) > 1 else one: None, **warnings}
    return {
        "outputs": outputs,
        "dropped": [row for row in row_order if row not in answered],
        "vectors": {
            name: {
                "dims": dims,
                "count": counts[index],
                "data_base64": base64.b64encode(b"".join(blocks[index])).decode("ascii"),
            }
            for index, (name, dims) in enumerate(features)
        },
        "failures": [failure(*entry) for entry in failed],
        "warnings": (list(warnings) + counted(python_warnings))[: 2 * WARNINGS_MAX],
    }


def counted(python_warnings: dict[str, int]) -> list[str]:
    """What Python warned of while the plugin ran, each once with its number."""
    return [
        text if count == 1 else f"{text} [{count} times]"
        for text, count in list(python_warnings.items())[:WARNINGS_MAX]
    ]


def check_python_warnings(found: object) -> list[tuple[str, int]]:
    """The pairs of text and number in a worker's answer. Raises WireError."""
    if found is None:
        return []
    if not isinstance(found, list) or not all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and type(pair[1]) is int
        and 0 < pair[1] < 2**53
        for pair in found
    ):
        raise WireError("the warnings do not have the right form")
    return [(cut(text), count) for text, count in found[:WARNINGS_MAX]]


def all_finite(block: bytes) -> bool:
    """Whether a block of little-endian float32 holds neither NaN nor infinity."""
    # Those have all bits of the exponent set, so that the last byte is 7f or ff. Real vectors hold no such
    # byte, and looking for it is a thousand times faster than unpacking.
    last = block[3::4]
    if b"\x7f" not in last and b"\xff" not in last:
        return True
    return all(map(math.isfinite, array.array("f", block)))


def _check_blocks(vectors: object, blocks: list[bytes], features: list[tuple[str, int]]) -> list[int]:
    if not isinstance(vectors, list) or len(vectors) != len(features) or len(blocks) != len(features):
        raise WireError("the vectors are not those of the features asked for")
    counts = []
    for entry, block, (name, dims) in zip(vectors, blocks, features):
        if (
            not isinstance(entry, list)
            or entry[:2] != [name, dims]
            or len(entry) != 3
            or type(entry[2]) is not int
        ):
            raise WireError("the vectors are not those of the features asked for")
        if entry[2] < 0 or len(block) != entry[2] * dims * 4:
            raise WireError(f"the block of {name} has {len(block)} bytes for {entry[2]} vectors")
        if not all_finite(block):
            raise WireError(f"a vector of {name} is not finite")
        counts.append(entry[2])
    return counts


def _columns(columns: object, absent: object, count: int) -> list[dict]:
    """The plugin's columns, turned into one dict for each output."""
    if not isinstance(columns, dict) or not isinstance(absent, dict):
        raise WireError("the columns do not have the right form")
    if len(columns) > COLUMNS_MAX:
        raise WireError(f"there are more than {COLUMNS_MAX} columns")
    outputs: list[dict] = [{} for _ in range(count)]
    for name, cells in columns.items():
        if not isinstance(cells, list) or len(cells) != count or len(name) > COLUMN_NAME_CHARS_MAX:
            raise WireError("a column does not have one value for each output, or its name is too long")
        if not all(_is_flat(cell) for cell in cells if type(cell) in (list, dict)):
            raise WireError("a value is nested too deeply")
        left_out = set(_integers(_list(absent, name))) if name in absent else ()
        for index, (output, cell) in enumerate(zip(outputs, cells)):
            if index not in left_out:
                output[name] = cell
    return outputs


def _integers(values: list) -> list[int]:
    # type, not isinstance: true would be taken for 1.
    if not set(map(type, values)) <= {int}:
        raise WireError("a number is not an integer")
    return values


def _is_flat(cell: list | dict) -> bool:
    waiting: list[tuple[object, int]] = [(cell, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _NESTED_MAX:
            return False
        inner = value.values() if isinstance(value, dict) else value
        waiting += [(part, depth + 1) for part in inner if type(part) in (list, dict)]
    return True


def _failure(entry: object, known: set[int]) -> tuple:
    if not isinstance(entry, list) or len(entry) != 3 or type(entry[0]) is not int or entry[0] not in known:
        raise WireError("a failure does not have the right form")
    return (entry[0], *check_fault(entry[1:]))


def check_fault(entry: object) -> Fault:
    """A worker's [code, message] or [code, message, traceback]. Raises WireError."""
    if (
        not isinstance(entry, list)
        or len(entry) not in (2, 3)
        or not isinstance(entry[0], str)
        or entry[0] not in CODES
        or not isinstance(entry[1], str)
        or not (entry[2:] in ([], [None]) or isinstance(entry[2], str))
    ):
        raise WireError("an error does not have the right form")
    traceback = entry[2][:TRACEBACK_CHARS_MAX] if len(entry) == 3 and entry[2] is not None else None
    return Fault(entry[0], cut(entry[1]), traceback)


def _list(header: dict, name: str) -> list:
    value = header.get(name)
    if not isinstance(value, list):
        raise WireError(f"{name} is not a list")
    return value
