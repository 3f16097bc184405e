"""The table that a plugin's ``prepare`` receives: a DataFrame that also answers to the calls of a Ray
dataset.

Plugins are written for either. Only the calls listed in the class behave as Ray's; everything else is pandas,
and gives plain DataFrames.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable

import numpy as np
import pandas as pd


class Dataset(pd.DataFrame):
    """A DataFrame with ``map_batches``, ``map``, ``flat_map``, ``filter(callable)``, ``count()`` and
    ``to_pandas``."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def map_batches(
        self,
        fn: Any,
        *,
        batch_size: int | str | None = None,
        batch_format: str | None = None,
        fn_args: Any = (),
        fn_kwargs: dict | None = None,
        fn_constructor_args: Any = (),
        fn_constructor_kwargs: dict | None = None,
        **_scheduling: Any,
    ) -> "Dataset":
        """Hands the rows over in frames (dicts of arrays for ``batch_format="numpy"``) and joins what comes
        back.

        Arguments that tell Ray where to run (``num_cpus``, ``concurrency`` ...) have no meaning here and are
        taken as given.
        """
        if inspect.isclass(fn):
            fn = fn(*fn_constructor_args, **(fn_constructor_kwargs or {}))
        size = batch_size if isinstance(batch_size, int) and batch_size > 0 else max(1, len(self))
        parts = []
        for start in range(0, max(1, len(self)), size):
            part = self.to_pandas().iloc[start : start + size].reset_index(drop=True)
            given = {str(name): part[name].to_numpy() for name in part} if batch_format == "numpy" else part
            parts.append(_frame(fn(given, *fn_args, **(fn_kwargs or {})), "map_batches"))
        return Dataset(parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True))

    def map(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        """``fn`` takes and returns a row as a dict. With ``na_action`` it is pandas' cell-wise map."""
        if "na_action" in kwargs:
            return super().map(fn, *args, **kwargs)
        return self._from_rows([fn(row) for row in self._rows()])

    def flat_map(self, fn: Callable, **_scheduling: Any) -> "Dataset":
        """``fn`` takes a row as a dict and returns a list of such rows."""
        return self._from_rows([made for row in self._rows() for made in fn(row)])

    def filter(self, fn: Any = None, *args: Any, **kwargs: Any) -> Any:
        """With a function: keeps the rows (given as dicts) for which it is true. Otherwise pandas' filter of
        labels."""
        if not callable(fn):
            return super().filter(fn, *args, **kwargs) if fn is not None else super().filter(*args, **kwargs)
        kept = np.fromiter((bool(fn(row)) for row in self._rows()), dtype=bool, count=len(self))
        return Dataset(self.to_pandas()[kept].reset_index(drop=True))

    def count(self, *args: Any, **kwargs: Any) -> Any:
        """Without arguments the number of rows; otherwise pandas' count of cells."""
        return super().count(*args, **kwargs) if args or kwargs else len(self)

    def to_pandas(self) -> pd.DataFrame:
        """The same rows as a plain DataFrame."""
        return pd.DataFrame(self)

    def _rows(self) -> list[dict]:
        return self.to_pandas().to_dict("records")

    def _from_rows(self, rows: list[dict]) -> "Dataset":
        if not rows:
            return Dataset(self.to_pandas().iloc[:0])
        # Columns stay objects: type inference would turn None into NaN and whole numbers into floats.
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Dataset(
            pd.DataFrame({n: pd.Series([row.get(n) for row in rows], dtype=object) for n in names})
        )


def to_frame(result: Any) -> pd.DataFrame | None:
    """A plain DataFrame from what ``prepare`` or a step returned; None if it is no table."""
    if isinstance(result, Dataset):
        return result.to_pandas()
    if isinstance(result, pd.DataFrame):
        return result
    convert = getattr(result, "to_pandas", None)
    converted = convert() if callable(convert) and not isinstance(result, pd.Series) else None
    return converted if isinstance(converted, pd.DataFrame) else None


def _frame(result: Any, where: str) -> pd.DataFrame:
    if isinstance(result, dict):
        return pd.DataFrame({n: pd.Series(list(v), dtype=object) for n, v in result.items()})
    frame = to_frame(result)
    if frame is None:
        raise TypeError(f"the function given to {where} returned {type(result).__name__}, not a DataFrame")
    return frame
