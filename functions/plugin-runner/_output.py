"""From the table that the steps gave back to what is sent: outputs per row, packed vectors, failures.

Plain data only: what cannot be said in JSON is left out with a warning.
"""

from __future__ import annotations

import collections
import datetime
import math
from typing import Any

import numpy as np
import pandas as pd

import _vectors
from _contract import rows_of
from _faults import ContractFault
from _shape import COLUMN_NAME_CHARS_MAX, COLUMNS_MAX, INPUT_COLUMNS, OUTPUTS_PER_ROW_MAX

_DEPTH_MAX = 20
_PARTS_MAX = 200_000
_LEFT_OUT = object()


class FrameOutput:
    """What one frame gave, column by column: entry i of each list belongs to row i of the result.

    ``rows``: the input row; ``places``: for each feature the place of the vector in its matrix, or None;
    ``columns``: the plugin's own columns; ``absent``: for a column the entries that have no form in JSON.
    Rows that failed are in ``failures`` only, as [row, code, message].
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.places: list[list[int | None]] = []
        self.matrices: list[np.ndarray] = []
        self.columns: dict[str, list] = {}
        self.absent: dict[str, list[int]] = {}
        self.failures: list[list] = []
        self.warnings: list[str] = []


def collect(
    result: pd.DataFrame, given: list[int], data: list, features: list[tuple[str, int]]
) -> FrameOutput:
    """Checks a result against the rows that were given, and their ``data``.

    Raises ContractFault when the fault concerns the frame as a whole.
    """
    output = FrameOutput()
    output.rows = rows_of(result, given)
    names = set(result.columns)
    faults: dict[int, tuple[str, str]] = {}
    if output.rows is not given:
        for row, count in collections.Counter(output.rows).items():
            if count > OUTPUTS_PER_ROW_MAX:
                faults[row] = (
                    "too_many_outputs",
                    f"{count} outputs of one row; at most {OUTPUTS_PER_ROW_MAX} are allowed",
                )
    output.places = [_feature(result, name in names, name, dims, output, faults) for name, dims in features]
    if features and not any(name in names for name, _ in features):
        _report_no_column(result, given, data, features, output.rows, faults)
    _columns(result, {name for name, _ in features}, output)
    output.failures = [[row, code, message] for row, (code, message) in faults.items()]
    if faults:
        _leave_out(output, [index for index, row in enumerate(output.rows) if row not in faults])
    return output


def _report_no_column(
    result: pd.DataFrame,
    given: list[int],
    data: list,
    features: list[tuple[str, int]],
    rows: list[int],
    faults: dict,
) -> None:
    """A row with content should have had a vector, or None in the column: without the column something is
    misspelt."""
    made = ", ".join(str(c) for c in result.columns if c not in INPUT_COLUMNS and not str(c).startswith("__"))
    there = set(rows)
    for row, value in zip(given, data):
        if row in there and value is not None and str(value).strip():
            faults.setdefault(
                row,
                (
                    "feature_column_missing",
                    f"no step assigned {', '.join(name for name, _ in features)} (new columns: {made or 'none'}); "
                    "assign None where a row has no vector",
                ),
            )


def _leave_out(output: FrameOutput, kept: list[int]) -> None:
    moved = {old: new for new, old in enumerate(kept)}
    output.rows = [output.rows[i] for i in kept]
    output.places = [[places[i] for i in kept] for places in output.places]
    output.columns = {name: [cells[i] for i in kept] for name, cells in output.columns.items()}
    output.absent = {
        name: [moved[i] for i in indexes if i in moved] for name, indexes in output.absent.items()
    }


def _feature(
    result: pd.DataFrame, present: bool, name: str, dims: int, output: FrameOutput, faults: dict
) -> list[int | None]:
    if not present:
        output.matrices.append(np.empty((0, dims), dtype=np.float32))
        return [None] * len(output.rows)
    column = result[name]
    if isinstance(column, pd.DataFrame):
        raise ContractFault("step_wrong_return", f'the steps returned two columns named "{name}"')
    places, matrix, bad = _vectors.pack(column.tolist(), dims)
    for index, (code, message) in bad.items():
        faults.setdefault(output.rows[index], (code, f"{name}: {message}"))
    output.matrices.append(matrix)
    return places


def _columns(result: pd.DataFrame, features: set[str], output: FrameOutput) -> None:
    left_out, wordy = 0, 0
    for position, name in enumerate(result.columns):
        if not isinstance(name, str) or name in INPUT_COLUMNS or name in features or name.startswith("__"):
            continue
        if len(name) > COLUMN_NAME_CHARS_MAX:
            wordy += 1
            continue
        name = _clean(name)
        if len(output.columns) >= COLUMNS_MAX and name not in output.columns:
            left_out += 1
            continue
        cells = [to_json(value) for value in result.iloc[:, position].tolist()]
        absent = [index for index, cell in enumerate(cells) if cell is _LEFT_OUT]
        if absent:
            output.warnings.append(
                f'column "{name[:100]}": {len(absent)} values have no form in JSON and were left out'
            )
            output.absent[name] = absent
            for index in absent:
                cells[index] = None
        output.columns[name] = cells
    if left_out:
        output.warnings.append(
            f"{left_out} columns were left out: at most {COLUMNS_MAX} are kept beside the features"
        )
    if wordy:
        output.warnings.append(
            f"{wordy} columns were left out: their names have more than {COLUMN_NAME_CHARS_MAX} characters"
        )


def to_json(value: Any, depth: int = 0, room: list[int] | None = None) -> Any:
    """A value as JSON can hold it (numbers that are not finite become None), or a mark that it cannot.

    ``room`` counts down the parts that may still come: a list of lists that share their parts is small in
    memory and endless as text.
    """
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, bool):
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, np.generic):
        return to_json(value.item(), depth, room)
    if isinstance(value, int):
        return value if abs(value) < 2**63 else _LEFT_OUT
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    room = [_PARTS_MAX] if room is None else room
    if isinstance(value, np.ndarray):
        value = value.tolist()
        return to_json(value, depth + 1, room)
    if not isinstance(value, (list, tuple, dict)):
        return _LEFT_OUT
    room[0] -= len(value)
    if depth >= _DEPTH_MAX or room[0] < 0:
        return _LEFT_OUT
    keys: Any = None
    if isinstance(value, dict):
        keys, value = list(value), list(value.values())
        if not all(isinstance(key, str) for key in keys):
            return _LEFT_OUT
    parts = []
    for part in value:
        made = to_json(part, depth + 1, room)
        if made is _LEFT_OUT:
            # At once: what follows would be gone through for nothing.
            return _LEFT_OUT
        parts.append(made)
    return parts if keys is None else dict(zip(map(_clean, keys), parts))


def _clean(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    if text.isascii():
        return str(text)
    return text.encode("utf-8", "replace").decode("utf-8")
