"""What an algorithm is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """points: (n, dims) float64 in the space to cluster in, euclidean. distinct_rows: how many different vectors the
    points stand for, which bounds the number of meaningful clusters. seed: for algorithms that draw numbers."""

    points: np.ndarray
    params: dict[str, Any]
    distinct_rows: int
    seed: int


@dataclass(frozen=True)
class Fit:
    """labels: (n,) int64 from 0, -1 for noise. strengths: (n,) from 0 to 1. implementation: the library that did it.
    notes: sentences for the user about what was changed in the request."""

    labels: np.ndarray
    strengths: np.ndarray
    implementation: str
    notes: list[str] = field(default_factory=list)
