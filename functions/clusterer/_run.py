"""One cluster run: vectors and texts in, the whole result out. No network, no clock but for the timings.

Normalise (cosine), ask whether there is structure, reduce, cluster, take away what chance would explain, name,
describe, map. Data without clusters is a result with a sentence, not an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import _identity
import _label
import _metrics
import _structure
import algorithms
import reduce
from _event import Request
from algorithms.task import Fit, Task
from reduce import pca, umap
from reduce.neighbours import Neighbourhood, nearest, neighbour_count

_CLUSTER_DIMS = 5
_MANY_ROWS_DIMS = 15
_MANY_ROWS_MAP_DIMS = 50
_REDUCED_ROWS_MIN = 6
_LAID_OUT_ROWS_MIN = 4
_ONE_THREAD_ROWS_MAX = 5_000


@dataclass
class _Found:
    """What clustering made of the usable rows, and why, if it made nothing."""

    labels: np.ndarray
    strengths: np.ndarray
    notes: list[str] = field(default_factory=list)
    reason: str | None = None
    sentence: str | None = None
    pipeline: dict[str, Any] = field(default_factory=dict)


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[f'{step}_seconds'] = round(time.perf_counter() - wall, 3)
        self.seconds[f'{step}_cpu_seconds'] = round(time.process_time() - cpu, 3)


def run(request: Request, vectors: np.ndarray, document_ids: list[str], texts: list[str]) -> dict[str, Any]:
    """The result object of a run. vectors: (rows, dims) float32; document_ids and texts in the same order.

    Equal input, seed and library versions give an equal result, but for "timings".
    """
    if request.rows >= _structure.ROWS_MIN:
        # Loaded before the limit below, so that it reaches their threads in the first run of a process as in the next.
        import sklearn.cluster  # noqa: F401

    # Small matrices are multiplied sooner than a second thread wakes up; on a busy machine the waiting threads cost
    # several times the work.
    with threadpool_limits(limits=1 if request.rows <= _ONE_THREAD_ROWS_MAX else None):
        return _run(request, vectors, document_ids, texts)


def _run(request: Request, vectors: np.ndarray, document_ids: list[str], texts: list[str]) -> dict[str, Any]:
    watch = _Stopwatch()
    n = request.rows
    with watch('prepare'):
        points, usable = _comparable(request, vectors)
    neighbourhood = Neighbourhood(points)
    with watch('cluster'):
        found = _cluster(request, neighbourhood, n)
    with watch('map'):
        places, map_pipeline = _map(request, neighbourhood)

    labels = np.full(n, -1, np.int64)
    strengths = np.zeros(n)
    labels[usable] = _by_size(found.labels)
    strengths[usable] = np.where(labels[usable] >= 0, found.strengths, 0.0)
    coordinates = np.zeros((n, request.map_dims))
    coordinates[usable] = places
    names = _identity.names(labels, document_ids, request.previous)
    with watch('metrics'):
        metrics = _metrics.score(points, labels[usable], n, request.seed)
    with watch('label'):
        clusters = _describe(request, points, usable, labels, strengths, names, document_ids, texts)

    member_names = np.array([*names, _identity.NOISE], dtype=object)[labels]
    axes = ('x', 'y', 'z')[: request.map_dims]
    unusable = n - usable.shape[0]
    return {
        'num_clusters': len(names),
        'num_points': n,
        'metrics': metrics,
        'clusters': clusters,
        'members': [
            {'document_id': document, 'cluster_id': name, 'probability': probability}
            for document, name, probability in zip(
                document_ids, member_names.tolist(), np.round(strengths, 4).tolist(), strict=True
            )
        ],
        'points': [
            {'document_id': document, **dict(zip(axes, place, strict=True))}
            for document, place in zip(document_ids, np.round(coordinates, 5).tolist(), strict=True)
        ],
        'message': _message(found, labels, len(names), n, unusable),
        'degenerate_detail': _detail(found, request, n, unusable),
        'label_source': 'ctfidf',
        'pipeline': {
            'metric': request.metric,
            'normalised': request.metric == 'cosine',
            'unusable_vectors': unusable,
            **found.pipeline,
            'map': map_pipeline,
            'metrics_space': 'vectors',
            'seed': request.seed,
        },
        'timings': watch.seconds,
    }


def no_vectors(request: Request) -> np.ndarray:
    """The vectors of a run without documents."""
    return np.zeros((0, max(request.dims, 1)), np.float32)


def _comparable(request: Request, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that can be compared, (m, dims) float32 and of unit length under cosine, and their row numbers.

    A vector with a value that is not finite cannot be compared. One of zeros has no direction, so it cannot be under
    cosine and dot either; under euclid it is a place like any other.
    """
    wide = vectors.astype(np.float32, copy=False)
    # float64 so that the length of a large float32 vector does not overflow.
    length = np.sqrt(np.einsum('ij,ij->i', wide, wide, dtype=np.float64))
    good = np.isfinite(length)
    if request.metric != 'euclid':
        good &= length > 1e-12
    usable = np.flatnonzero(good)
    points = wide[usable]
    if request.metric == 'cosine':
        points = (points / length[usable, None]).astype(np.float32)
    return points, usable


def _cluster(request: Request, neighbourhood: Neighbourhood, rows: int) -> _Found:
    algorithm = algorithms.REGISTRY[request.algorithm]
    points = neighbourhood.points
    m = points.shape[0]
    directions = request.metric == 'cosine'
    nothing = _Found(np.full(m, -1, np.int64), np.zeros(m))
    nothing.pipeline = {'rows_clustered': 0, 'algorithm': {'name': request.algorithm, 'params': request.params}}
    if rows == 0:
        return _because(nothing, 'no_documents', 'There are no documents with a vector of this feature yet.')
    if m == 0:
        return _because(
            nothing, 'no_usable_vectors', f'None of the {rows} documents has a usable vector (zero or not finite).'
        )
    needed = algorithm.rows_needed(request.params)
    if m < needed:
        documents = '1 document' if m == 1 else f'{m} documents'
        return _because(
            nothing,
            'too_few_documents',
            f'A cluster needs at least {needed} documents (min_cluster_size) and there {"is" if m == 1 else "are"} '
            f'only {documents} with a usable vector, so there are no clusters yet.',
        )
    distinct = np.unique(_row_keys(points)).shape[0]
    if algorithm.CHOOSES_COUNT and distinct == 1 and not request.params.get('allow_single_cluster'):
        return _because(
            nothing, 'identical_vectors', f'All {m} vectors are identical, so there is nothing to tell them apart by.'
        )

    if algorithm.CHOOSES_COUNT and distinct > 1 and m < _structure.ROWS_MIN:
        return _because(
            nothing,
            'too_few_documents',
            f'{m} documents are too few to tell groups from chance; from {_structure.ROWS_MIN} on it can be told.',
        )

    finding = _structure.examine(points, directions, request.seed)
    nothing.pipeline['structure'] = _rounded(asdict(finding))
    if algorithm.CHOOSES_COUNT and distinct > 1 and not finding.found:
        return _because(
            nothing,
            'no_structure',
            f'The {m} vectors have no structure beyond chance: which documents are near each other looks random, so no '
            'clusters were made. Embeddings that do not carry meaning, such as hashes, look like this.',
        )

    space, reduction = _reduced(request, neighbourhood)
    fit, sampled = _fitted(request, algorithm, space, distinct)
    found = _Found(fit.labels, fit.strengths, list(fit.notes))
    if sampled:
        found.notes.append(
            f'{sampled} of {m} documents were clustered; each other document joined the nearest cluster if it lies '
            'within its reach.'
        )
    dissolved = 0
    if algorithm.CHOOSES_COUNT and distinct > 1:
        held = _structure.held(points, found.labels, directions, request.seed)
        dissolved = sum(not kept for kept in held.values())
        for label, kept in held.items():
            if not kept:
                found.labels = np.where(found.labels == label, -1, found.labels)
        if dissolved:
            groups = '1 group was' if dissolved == 1 else f'{dissolved} groups were'
            found.notes.append(f'{groups} left out because chance would explain {"it" if dissolved == 1 else "them"}.')
    elif finding.tested and not finding.found:
        found.notes.append(
            'The vectors have no structure beyond chance, so the borders between these clusters are arbitrary.'
        )
    found.pipeline = {
        'rows_clustered': sampled or m,
        'reduction': reduction,
        'algorithm': {
            'name': request.algorithm,
            'params': request.params,
            'implementation': fit.implementation,
        },
        'structure': {**_rounded(asdict(finding)), 'clusters_dissolved': dissolved},
    }
    if not (found.labels >= 0).any():
        return _because(
            found,
            'all_noise',
            f'No group among the {m} documents is dense and large enough to be a cluster. '
            'A smaller min_cluster_size finds smaller groups.',
        )
    return found


def _reduced(request: Request, neighbourhood: Neighbourhood) -> tuple[np.ndarray, dict[str, Any]]:
    """The space to cluster in: few dimensions, where density means something."""
    m, d = neighbourhood.points.shape
    if m > umap.ROWS_LAID_OUT_MAX:
        dims = min(_MANY_ROWS_DIMS, d)
        space = pca.components(neighbourhood.points, dims, request.seed)
        return space, {'method': pca.NAME, 'n_components': dims}
    if d <= _CLUSTER_DIMS or m < _REDUCED_ROWS_MIN:
        return neighbourhood.points.astype(np.float64), {'method': 'none', 'n_components': d}
    dims = min(_CLUSTER_DIMS, m - 2)
    space = umap.layout(neighbourhood, dims, request.seed, umap.HEAP_CURVE)
    return space, {'method': umap.NAME, 'n_components': dims, 'neighbours': neighbour_count(m)}


def _fitted(request: Request, algorithm: Any, space: np.ndarray, distinct: int) -> tuple[Fit, int]:
    """Clusters all rows, or a sample where the algorithm cannot take them all. Returns (fit, sample size or 0)."""
    m = space.shape[0]
    if m <= algorithm.ROWS_MAX:
        return algorithm.fit(Task(space, request.params, distinct, request.seed)), 0
    chosen = np.sort(np.random.default_rng([request.seed, 4]).permutation(m)[: algorithm.ROWS_MAX])
    sample = space[chosen]
    fit = algorithm.fit(Task(sample, request.params, min(distinct, chosen.shape[0]), request.seed))
    labels = np.full(m, -1, np.int64)
    strengths = np.zeros(m)
    labels[chosen], strengths[chosen] = fit.labels, fit.strengths
    count = int(fit.labels.max()) + 1
    if count:
        centres = np.stack([sample[fit.labels == label].mean(axis=0) for label in range(count)])
        own_distance = np.linalg.norm(sample - centres[fit.labels], axis=1)
        reach = np.array([own_distance[fit.labels == label].max() for label in range(count)])
        others = np.setdiff1d(np.arange(m), chosen, assume_unique=True)
        indices, distances = nearest(centres, 1, queries=space[others])
        closest, distance = indices[:, 0], distances[:, 0]
        inside = (distance <= reach[closest]) | (not algorithm.CHOOSES_COUNT)
        labels[others] = np.where(inside, closest, -1)
        relative = distance / np.maximum(reach[closest], 1e-12)
        strengths[others] = np.where(inside, np.clip(1.0 - relative, 0.0, 1.0), 0.0)
    return Fit(labels, strengths, fit.implementation, fit.notes), chosen.shape[0]


def _map(request: Request, neighbourhood: Neighbourhood) -> tuple[np.ndarray, dict[str, Any]]:
    """Coordinates to draw the usable rows at. Fewer than four rows, or equal ones, have nothing to lay out."""
    points = neighbourhood.points
    m = points.shape[0]
    method = request.map_method
    if m < _LAID_OUT_ROWS_MIN or np.ptp(points, axis=0).max() == 0:
        method = pca.NAME
    if method == umap.NAME and m > umap.ROWS_LAID_OUT_MAX and points.shape[1] > _MANY_ROWS_MAP_DIMS:
        neighbourhood = Neighbourhood(pca.components(points, _MANY_ROWS_MAP_DIMS, request.seed))
    places = reduce.method(method).embed(neighbourhood, request.map_dims, request.seed)
    return places, {'method': method, 'n_components': request.map_dims}


def _describe(
    request: Request,
    points: np.ndarray,
    usable: np.ndarray,
    labels: np.ndarray,
    strengths: np.ndarray,
    names: list[str],
    document_ids: list[str],
    texts: list[str],
) -> list[dict[str, Any]]:
    position = np.full(labels.shape[0], -1, np.int64)
    position[usable] = np.arange(usable.shape[0])
    centres, typical = [], []
    for label in range(len(names)):
        rows = np.flatnonzero(labels == label)
        centre = points[position[rows]].mean(axis=0, dtype=np.float64)
        if request.metric == 'cosine':
            centre /= max(float(np.linalg.norm(centre)), 1e-12)
        distance = np.linalg.norm(points[position[rows]] - centre, axis=1)
        centres.append(centre)
        typical.append(rows[np.argsort(np.round(distance, 9), kind='stable')])

    options = request.labels
    samples = [_samples(rows, texts, max(options.samples_per_cluster, 1), options.sample_chars) for rows in typical]
    descriptions = _label.describe(texts, labels.tolist(), options.keywords, samples)
    return [
        {
            'cluster_id': names[label],
            'num_members': int(rows.shape[0]),
            'label': about.label,
            'summary': about.summary,
            'keywords': about.keywords,
            'centroid_vector': np.round(centres[label], 7).tolist(),
            'representative_ids': [document_ids[row] for row in rows[: max(options.samples_per_cluster, 1)].tolist()],
            'samples': samples[label][: options.samples_per_cluster],
        }
        for label, (rows, about) in enumerate(zip(typical, descriptions, strict=True))
    ]


def _samples(rows: np.ndarray, texts: list[str], wanted: int, chars_max: int) -> list[str]:
    """Texts near the centre, cut to size, each once."""
    result: list[str] = []
    for row in rows.tolist():
        text = texts[row].strip()[:chars_max]
        if text and text not in result:
            result.append(text)
        if len(result) == wanted:
            break
    return result


def _by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered from the largest down; of equal ones, the one that appears first comes first."""
    kinds, first, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    numbers = np.full((int(labels.max()) + 1 if labels.size else 0) + 1, -1, np.int64)
    numbers[kinds[order]] = np.arange(kinds.shape[0])
    return numbers[labels]


def _row_keys(points: np.ndarray) -> np.ndarray:
    """One value per row, equal for equal rows. The zeros of either sign are one zero."""
    rows = np.ascontiguousarray(points + 0.0)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def _because(found: _Found, reason: str, sentence: str) -> _Found:
    found.reason, found.sentence = reason, sentence
    return found


def _message(found: _Found, labels: np.ndarray, count: int, rows: int, unusable: int) -> str:
    if found.sentence is not None:
        sentences = [found.sentence]
    else:
        documents = '1 document' if rows == 1 else f'{rows} documents'
        sentences = [f'Found {count} cluster{"" if count == 1 else "s"} in {documents}.']
        loose = int((labels < 0).sum())
        if loose:
            sentences.append(f'{loose} belong{"s" if loose == 1 else ""} to none.')
    if unusable and found.reason != 'no_usable_vectors':
        sentences.append(
            f'{unusable} document{" has" if unusable == 1 else "s have"} a vector that cannot be compared '
            f'(zero or not finite) and count{"s" if unusable == 1 else ""} as noise.'
        )
    return ' '.join([*sentences, *found.notes])


def _detail(found: _Found, request: Request, rows: int, unusable: int) -> dict[str, Any] | None:
    if found.reason is None:
        return None
    return {'reason': found.reason, 'rows': rows, 'usable_rows': rows - unusable, 'params': request.params}


def _rounded(finding: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in finding.items()}
