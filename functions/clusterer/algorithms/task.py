"""What an algorithm is given, what it gives back, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reduce.neighbours import nearest

_ASKED_NEIGHBOURS = 10
_CURVE_ROWS_MAX = 4_000


@dataclass(frozen=True)
class Task:
    """points: (n, dims) float64 in the space to cluster in, euclidean. distinct_rows: how many different vectors the
    points stand for, which bounds the number of meaningful clusters. seed: for algorithms that draw numbers.
    blur: up to how many rows the density of a layout was made by the layout itself; 0 without a layout."""

    points: np.ndarray
    params: dict[str, Any]
    distinct_rows: int
    seed: int
    blur: int = 0

    @property
    def random_state(self) -> int:
        """The seed that the request names for the algorithm, else the seed of the run."""
        given = self.params.get('random_state')
        return self.seed if given is None else given


@dataclass(frozen=True)
class Fit:
    """labels: (n,) int64 from 0, -1 for noise. strengths: (n,) from 0 to 1. implementation: the library that did it.
    notes: sentences for the user about what was changed in the request. chosen: parameters that the request left open,
    with the values that were found for them."""

    labels: np.ndarray
    strengths: np.ndarray
    implementation: str
    notes: list[str] = field(default_factory=list)
    chosen: dict[str, float] = field(default_factory=dict)


def bounded_count(task: Task, parameter: str, notes: list[str]) -> int:
    """How many clusters to make: as many as asked for, at most one for each different vector. Notes a change."""
    wanted = task.params[parameter]
    count = min(wanted, task.distinct_rows)
    if count < wanted:
        vectors = '1 different vector' if count == 1 else f'{count} different vectors'
        notes.append(
            f'{parameter} was lowered from {wanted} to {count}, because there {"is" if count == 1 else "are"} only '
            f'{vectors}.'
        )
    return count


def agreement(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Strengths for algorithms that have none of their own: the share of a row's ten nearest rows, or as many as its
    cluster has others, that are in its cluster too. 0 for noise. Takes time with the square of the rows."""
    strengths = np.zeros(labels.shape[0])
    members = np.flatnonzero(labels >= 0)
    if members.size == 0:
        return strengths
    sizes = np.bincount(labels[members])
    near = nearest(points, _ASKED_NEIGHBOURS, rows=members)[0]
    asked = np.minimum(sizes[labels[members]] - 1, near.shape[1])
    same = (labels[near] == labels[members][:, None]) & (np.arange(near.shape[1]) < asked[:, None])
    strengths[members] = np.where(asked > 0, same.sum(axis=1) / np.maximum(asked, 1), 1.0)
    return strengths


def nearness(distances: np.ndarray) -> np.ndarray:
    """Strengths from the distances to all centres, (n, clusters): 1 on the nearest centre, 0 halfway to the next."""
    if distances.shape[1] == 1:
        return np.ones(distances.shape[0])
    nearest_two = np.partition(distances, 1, axis=1)[:, :2]
    runner_up = nearest_two[:, 1]
    return np.where(runner_up > 0, 1.0 - nearest_two[:, 0] / np.where(runner_up > 0, runner_up, 1.0), 1.0)


def usual_distance(points: np.ndarray, neighbour: int, seed: int) -> float:
    """A radius from the curve of the distances to the `neighbour`-th nearest row, sorted: where it bends upwards.

    Rows of groups have their neighbours within it, loose rows do not. The bend is the point of the curve farthest below
    the line between its ends (Satopää et al. 2011, "Finding a kneedle in a haystack"). Above 0 unless all rows are
    equal.
    """
    rows = np.sort(np.random.default_rng([seed, 6]).permutation(points.shape[0])[:_CURVE_ROWS_MAX])
    distances = nearest(points, neighbour, rows=rows)[1]
    if distances.shape[1] == 0:
        return 0.0
    curve = np.sort(distances[:, -1])
    span = curve[-1] - curve[0]
    if span <= 0:
        return float(curve[-1])
    below = np.linspace(0.0, 1.0, curve.shape[0]) - (curve - curve[0]) / span
    bend = float(curve[int(below.argmax())])
    return bend if bend > 0 else float(curve[curve > 0][0])
