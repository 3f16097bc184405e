"""Checks the vectors that a plugin wrote into its feature columns, and packs the good ones as float32.

A cell without a value (None, NaN, NA) is a row without a vector, which is no error. Anything else must be
one-dimensional, numeric, finite (also as float32) and of the declared length.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd

_NUMBERS = frozenset((float, int, bool))
_NUMERIC = "fiub"
"""Booleans count as 0 and 1: among numbers numpy does not tell them apart."""


def pack(cells: list, dims: int) -> tuple[list[int | None], np.ndarray, dict[int, tuple[str, str]]]:
    """Packs the cells of one feature column.

    Returns for each cell its place in the matrix or None, the matrix (float32, C order, one row for each good
    vector), and for each bad cell (code, message).
    """
    present = [i for i, cell in enumerate(cells) if not _is_missing(cell)]
    places: list[int | None] = [None] * len(cells)
    faults: dict[int, tuple[str, str]] = {}
    matrix = _all_at_once([cells[i] for i in present], dims)
    if matrix is None:
        good = []
        for i in present:
            vector, fault = _one(cells[i], dims)
            if fault is not None:
                faults[i] = fault
            else:
                places[i] = len(good)
                good.append(vector)
        matrix = np.stack(good) if good else np.empty((0, dims), dtype=np.float32)
    else:
        for place, i in enumerate(present):
            places[i] = place
    return places, matrix, faults


def _all_at_once(cells: list, dims: int) -> np.ndarray | None:
    """The matrix of all cells if every one is good; None if any must be looked at by itself."""
    if not cells:
        return np.empty((0, dims), dtype=np.float32)
    kinds = {type(cell) for cell in cells}
    if kinds == {list}:
        return _lists_at_once(cells, dims)
    if kinds != {np.ndarray} or any(c.shape != (dims,) or c.dtype.kind not in _NUMERIC for c in cells):
        return None
    try:
        with np.errstate(over="ignore"):
            matrix = np.array(cells)
            if matrix.dtype.kind not in _NUMERIC:
                return None
            matrix = matrix.astype(np.float32)
    except (ValueError, OverflowError):
        return None
    if matrix.shape != (len(cells), dims) or not np.isfinite(matrix).all():
        return None
    return matrix


def _lists_at_once(cells: list, dims: int) -> np.ndarray | None:
    """As _all_at_once for lists. ``struct`` turns them into float32 twice as fast as numpy."""
    # Of an array with one number struct would make a number; such lists are looked at one by one.
    if any(len(cell) != dims or type(cell[0]) not in _NUMBERS for cell in cells):
        return None
    write = struct.Struct(f"<{dims}f").pack
    try:
        block = b"".join([write(*cell) for cell in cells])
    except (struct.error, OverflowError, TypeError, ValueError):
        return None
    matrix = np.frombuffer(block, dtype="<f4").reshape(len(cells), dims)
    return matrix if np.isfinite(matrix).all() else None


def _one(cell: Any, dims: int) -> tuple[np.ndarray | None, tuple[str, str] | None]:
    wanted = f"expected {dims} numbers"
    if isinstance(cell, (str, bytes, dict, set)):
        return None, ("vector_not_numeric", f"{wanted}, got {type(cell).__name__}")
    try:
        array = np.asarray(cell)
        if array.dtype.kind == "O" and all(map(_is_number, array.flat)):
            array = array.astype(np.float64)
    except ValueError:
        if isinstance(cell, (list, tuple)):
            return None, ("vector_wrong_shape", f"{wanted}, got lists of unequal length")
        return None, ("vector_not_numeric", f"{wanted}, got {type(cell).__name__}, which is no array")
    except OverflowError:
        return None, ("vector_not_finite", "an integer is too large for a float")
    if array.dtype.kind not in _NUMERIC:
        return None, ("vector_not_numeric", f"{wanted}, got {_kind(array)}")
    if array.shape != (dims,):
        return None, ("vector_wrong_shape", f"{wanted}, got shape {array.shape}")
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        first = int(np.flatnonzero(~np.isfinite(vector))[0])
        return None, (
            "vector_not_finite",
            f"the number at index {first} is {vector[first]}, which is not finite as float32",
        )
    return vector, None


def _kind(array: np.ndarray) -> str:
    if array.dtype.kind == "O":
        odd = next((v for v in array.flat if not _is_number(v)), None)
        return f"a list with {type(odd).__name__}"
    return {"U": "text", "S": "bytes", "c": "complex numbers"}.get(array.dtype.kind, str(array.dtype))


def _is_number(value: Any) -> bool:
    """Also decimals, fractions and whatever else becomes a float; not arrays, which say so of one element."""
    kind = type(value)
    return isinstance(value, (int, float)) or (hasattr(kind, "__float__") and not hasattr(kind, "__len__"))


def _is_missing(cell: Any) -> bool:
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    return isinstance(cell, (float, np.floating)) and cell != cell
