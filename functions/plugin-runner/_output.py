"""From the table that the steps gave back to what is sent: outputs per row, packed vectors, failures.

Plain data only: what cannot be said in JSON is left out with a warning.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd

import _vectors
from _contract import INPUT_COLUMNS, rows_of
from _faults import ContractFault

OUTPUTS_PER_ROW_MAX = 100
_DEPTH_MAX = 20
_LEFT_OUT = object()


class FrameOutput:
    """What one frame gave. ``outputs`` has one entry per row of the result: [row, ordinal, places, columns]."""

    def __init__(self) -> None:
        self.outputs: list[list] = []
        self.matrices: list[np.ndarray] = []
        self.failures: list[list] = []
        self.warnings: list[str] = []


def collect(result: pd.DataFrame, given: list[int], filled: set[int], features: list[tuple[str, int]]) -> FrameOutput:
    """Checks a result against the rows that were given (``filled``: those whose data is not blank).

    Raises ContractFault when the fault concerns the frame as a whole.
    """
    rows = rows_of(result, given)
    output = FrameOutput()
    faults: dict[int, tuple[str, str]] = {}
    counts: dict[int, int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    for row, count in counts.items():
        if count > OUTPUTS_PER_ROW_MAX:
            faults[row] = ("too_many_outputs", f"{count} outputs of one row; at most {OUTPUTS_PER_ROW_MAX} are allowed")
    places = [_feature(result, rows, name, dims, output, faults) for name, dims in features]
    if features and not any(name in result.columns for name, _ in features):
        columns = ", ".join(str(c) for c in result.columns if c not in INPUT_COLUMNS and not str(c).startswith("__"))
        for row in counts:
            if row in filled:
                faults.setdefault(row, (
                    "feature_column_missing",
                    f"no step assigned {', '.join(name for name, _ in features)} (new columns: {columns or 'none'}); "
                    "assign None where a row has no vector",
                ))
    extra = _columns(result, {name for name, _ in features}, output)
    ordinals: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row in faults:
            continue
        ordinal = ordinals.get(row, 0)
        ordinals[row] = ordinal + 1
        columns = {name: cells[index] for name, cells in extra.items() if cells[index] is not _LEFT_OUT}
        output.outputs.append([row, ordinal, [place[index] for place in places], columns])
    output.failures = [[row, code, message] for row, (code, message) in faults.items()]
    return output


def _feature(
    result: pd.DataFrame, rows: list[int], name: str, dims: int, output: FrameOutput, faults: dict
) -> list[int | None]:
    if name not in result.columns:
        output.matrices.append(np.empty((0, dims), dtype=np.float32))
        return [None] * len(rows)
    column = result[name]
    if isinstance(column, pd.DataFrame):
        raise ContractFault("step_wrong_return", f'the steps returned two columns named "{name}"')
    places, matrix, bad = _vectors.pack(column.tolist(), dims)
    for index, (code, message) in bad.items():
        faults.setdefault(rows[index], (code, f"{name}: {message}"))
    output.matrices.append(matrix)
    return places


def _columns(result: pd.DataFrame, features: set[str], output: FrameOutput) -> dict[str, list]:
    found: dict[str, list] = {}
    for position, name in enumerate(result.columns):
        if not isinstance(name, str) or name in INPUT_COLUMNS or name in features or name.startswith("__"):
            continue
        cells = [to_json(value) for value in result.iloc[:, position].tolist()]
        lost = sum(cell is _LEFT_OUT for cell in cells)
        if lost:
            output.warnings.append(f'column "{_clean(name)[:100]}": {lost} values have no form in JSON and were left out')
        found[_clean(name)] = cells
    return found


def to_json(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it (numbers that are not finite become None), or a mark that it cannot."""
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, bool):
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, np.generic):
        return to_json(value.item(), depth)
    if isinstance(value, int):
        return value if abs(value) < 2**63 else _LEFT_OUT
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if depth >= _DEPTH_MAX:
        return _LEFT_OUT
    if isinstance(value, np.ndarray):
        value = value.tolist()
        return to_json(value, depth)
    if isinstance(value, (list, tuple)):
        parts = [to_json(part, depth + 1) for part in value]
        return _LEFT_OUT if any(part is _LEFT_OUT for part in parts) else parts
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return _LEFT_OUT
        pairs = {_clean(key): to_json(part, depth + 1) for key, part in value.items()}
        return _LEFT_OUT if any(part is _LEFT_OUT for part in pairs.values()) else pairs
    return _LEFT_OUT


def _clean(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    if text.isascii():
        return str(text)
    return text.encode("utf-8", "replace").decode("utf-8")
