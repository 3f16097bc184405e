"""Names for the clusters of a run. A cluster that an earlier run already had keeps its name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

NOISE = 'noise'
_NAME = re.compile(r'cl_(0|[1-9][0-9]{0,8})')
_SAME_SHARE_MIN = 0.5


def names(labels: np.ndarray, document_ids: list[str], previous: dict[str, str]) -> list[str]:
    """A name "cl_<n>" for each label 0, 1, ...

    previous: document id -> cluster id of the earlier run. Names go where they keep most documents in place, and only
    where the shared documents are at least half of the smaller of the two; other clusters get numbers never used
    before.
    """
    count = int(labels.max()) + 1 if labels.size else 0
    old = {document: name for document, name in previous.items() if _NAME.fullmatch(name)}
    next_number = 1 + max((int(name[3:]) for name in old.values()), default=-1)
    kept = _matches(labels, count, document_ids, old)
    result = []
    for label in range(count):
        if label in kept:
            result.append(kept[label])
        else:
            result.append(f'cl_{next_number}')
            next_number += 1
    return result


def _matches(labels: np.ndarray, count: int, document_ids: list[str], old: dict[str, str]) -> dict[int, str]:
    if not old or count == 0:
        return {}
    from scipy.optimize import linear_sum_assignment

    old_names = sorted(set(old.values()), key=lambda name: int(name[3:]))
    column = {name: i for i, name in enumerate(old_names)}
    shared = np.zeros((count, len(old_names)))
    for label, document in zip(labels.tolist(), document_ids, strict=True):
        if label >= 0 and document in old:
            shared[label, column[old[document]]] += 1
    new_sizes = np.bincount(labels[labels >= 0], minlength=count)
    # Documents that are gone cannot be shared: an old cluster counts by those that are still here.
    present = set(document_ids)
    old_counts = Counter(name for document, name in old.items() if document in present)
    old_sizes = np.array([old_counts[name] for name in old_names])
    smaller = np.minimum(new_sizes[:, None], old_sizes[None, :])
    eligible = np.where((shared > 0) & (shared >= _SAME_SHARE_MIN * smaller), shared, 0.0)
    pairs = zip(*linear_sum_assignment(eligible, maximize=True), strict=True)
    return {int(label): old_names[i] for label, i in pairs if eligible[label, i] > 0}
