"""One cluster run: vectors and texts in, the whole result out. No network, no clock but for the timings.

Preprocess, normalise (cosine), ask whether there is structure, reduce, cluster, take away what chance would explain,
name, describe, map. Data without clusters is a result with a sentence, not an error.
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
import _preprocess
import _structure
import algorithms
import reduce
from _event import Request
from algorithms.task import Fit, Task
from reduce import pca, tsne, umap
from reduce.neighbours import Neighbourhood, nearest, neighbour_count

_CLUSTER_DIMS = 5
_MANY_ROWS_DIMS = 15
_MANY_ROWS_MAP_DIMS = 50
_HASH_BLOCK_ROWS = 10_000
_ROWS_PER_BLUR = 100
_REDUCED_ROWS_MIN = 6
_LAID_OUT_ROWS_MIN = 4
_ONE_THREAD_ROWS_MAX = 5_000


@dataclass(frozen=True)
class _Rows:
    """The rows that can be compared. numbers: their row numbers. own: (m, dims) float32, the vectors themselves, of
    unit length under cosine: centroids and metrics are theirs. points: what is clustered and mapped, after
    preprocessing; the same array where there is none."""

    numbers: np.ndarray
    own: np.ndarray
    points: np.ndarray


@dataclass
class _Found:
    """What clustering made of the usable rows, and why, if it made nothing. sampled: which rows the algorithm saw, None
    for all; cap: how many it takes."""

    labels: np.ndarray
    strengths: np.ndarray
    cap: int = 0
    sampled: np.ndarray | None = None
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

    # Small matrices are multiplied sooner than a second thread wakes up, and the small ones of principal components are
    # most of a run without a layout; on a busy machine the waiting threads cost several times the work.
    linear = request.map_method == pca.NAME and _space_method(request, request.rows, request.dims) != umap.NAME
    few = request.rows <= _ONE_THREAD_ROWS_MAX
    with threadpool_limits(limits=1 if few or linear else None):
        return _run(request, vectors, document_ids, texts)


def _run(request: Request, vectors: np.ndarray, document_ids: list[str], texts: list[str]) -> dict[str, Any]:
    watch = _Stopwatch()
    n = request.rows
    with watch('prepare'):
        rows = _comparable(request, vectors)
    usable = rows.numbers
    neighbourhood = Neighbourhood(rows.points)
    with watch('cluster'):
        found = _cluster(request, rows, neighbourhood, n)
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
        metrics = _metrics.score(rows.own, labels[usable], n, request.seed)
        alike = _metrics.cosines(rows.own, labels[usable], len(names))
        metrics |= _metrics.overall(alike)
    with watch('label'):
        clusters = _describe(request, rows, labels, names, alike, document_ids, texts)

    member_names = np.array([*names, _identity.NOISE], dtype=object)[labels]
    axes = ('x', 'y', 'z')[: request.map_dims]
    unusable = n - usable.shape[0]
    return {
        'num_clusters': len(names),
        'num_points': n,
        'metrics': metrics,
        'sampling': _sampling(found, usable.shape[0]),
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
        'message': _message(found, request, labels, len(names), n, unusable),
        'degenerate_detail': _detail(found, request, n, unusable),
        'label_source': 'ctfidf',
        'pipeline': {
            'metric': request.metric,
            'normalised': request.metric == 'cosine',
            'unusable_vectors': unusable,
            'preprocessing': [asdict(step) for step in request.preprocessing],
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


def _comparable(request: Request, vectors: np.ndarray) -> _Rows:
    """The rows that can be compared.

    A vector with a value that is not finite cannot be compared. One of zeros has no direction, so it cannot be under
    cosine and dot either; under euclid it is a place like any other. Preprocessing may leave a row without direction.
    """
    wide = vectors.astype(np.float32, copy=False)
    length = _lengths(wide)
    numbers = np.flatnonzero(_has_place(request, length))
    raw = wide if numbers.shape[0] == wide.shape[0] else wide[numbers]
    if not request.preprocessing:
        own = _scaled(request, raw, length[numbers])
        return _Rows(numbers, own, own)
    points = _preprocess.apply(request.preprocessing, raw, request.seed)
    after = _lengths(points)
    # A difference of equal numbers is not always exactly zero.
    floor = 1e-6 * (float(after.mean()) if after.size else 0.0)
    kept = np.flatnonzero(_has_place(request, np.where(after > floor, after, 0.0)))
    own = _scaled(request, raw[kept], length[numbers[kept]])
    return _Rows(numbers[kept], own, _scaled(request, points[kept], after[kept]))


def _lengths(points: np.ndarray) -> np.ndarray:
    # float64 so that the length of a large float32 vector does not overflow.
    return np.sqrt(np.einsum('ij,ij->i', points, points, dtype=np.float64))


def _has_place(request: Request, length: np.ndarray) -> np.ndarray:
    return np.isfinite(length) & ((request.metric == 'euclid') | (length > 1e-12))


def _scaled(request: Request, points: np.ndarray, length: np.ndarray) -> np.ndarray:
    if request.metric != 'cosine':
        return points
    return np.divide(points, length[:, None], out=np.empty_like(points), casting='same_kind')


def _cluster(request: Request, usable: _Rows, neighbourhood: Neighbourhood, rows: int) -> _Found:
    algorithm = algorithms.REGISTRY[request.algorithm]
    points = usable.points
    m = points.shape[0]
    directions = request.metric == 'cosine'
    nothing = _Found(np.full(m, -1, np.int64), np.zeros(m), algorithm.ROWS_MAX, np.zeros(m, bool))
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
            f'A cluster needs at least {needed} documents ({algorithm.NEEDED_BY}) and there '
            f'{"is" if m == 1 else "are"} only {documents} with a usable vector, so there are no clusters yet.',
        )
    distinct = _distinct_rows(points)
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

    # Few components left by preprocessing say nothing either way; then the vectors themselves are asked.
    asked = points if _structure.testable(points, directions) else usable.own
    finding = _structure.examine(asked, directions, request.seed)
    nothing.pipeline['structure'] = _rounded(asdict(finding))
    if algorithm.CHOOSES_COUNT and distinct > 1 and not finding.found:
        return _because(
            nothing,
            'no_structure',
            f'The {m} vectors have no structure beyond chance: which documents are near each other looks random, so no '
            'clusters were made. Embeddings that do not carry meaning, such as hashes, look like this.',
        )

    space, reduction = _reduced(request, neighbourhood, distinct)
    cap = algorithms.rows_max(algorithm, space.shape[1])
    fit, sampled = _fitted(request, algorithm, space, distinct, _blur(reduction, m), cap)
    found = _Found(fit.labels, fit.strengths, cap, sampled, list(fit.notes))
    if sampled is not None:
        reach = ' if it lies within its reach' if algorithm.CHOOSES_COUNT else ''
        found.notes.append(
            f'{cap} of {m} documents were clustered, a sample of the size that {request.algorithm} takes; each other '
            f'document joined the nearest cluster{reach}.'
        )
    dissolved = 0
    if algorithm.CHOOSES_COUNT and distinct > 1:
        held = _structure.held(asked, found.labels, directions, request.seed)
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
        'rows_clustered': m if sampled is None else int(sampled.sum()),
        'reduction': reduction,
        'algorithm': {
            'name': request.algorithm,
            'params': request.params,
            'implementation': fit.implementation,
            'chosen': fit.chosen,
        },
        'structure': {**_rounded(asdict(finding)), 'clusters_dissolved': dissolved},
    }
    if not (found.labels >= 0).any():
        return _because(
            found,
            'all_noise',
            f'No group among the {m} documents is dense and large enough to be a cluster. '
            + (algorithm.ADVICE if algorithm.CHOOSES_COUNT else ''),
        )
    return found


def _space_method(request: Request, rows: int, dims: int) -> str:
    """How the space to cluster in is made. Left open: a layout up to 20,000 rows, principal components above, the
    vectors themselves if they are short."""
    if request.space != 'auto':
        return request.space
    if rows > umap.ROWS_LAID_OUT_MAX:
        return pca.NAME
    return 'none' if dims <= (request.space_dims or _CLUSTER_DIMS) else umap.NAME


def _reduced(
    request: Request, neighbourhood: Neighbourhood, distinct: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The space to cluster in: few dimensions, where density means something."""
    points = neighbourhood.points
    m, d = points.shape
    method, wanted = _space_method(request, m, d), request.space_dims
    # A layout needs rows to tell apart: one spot would be scattered by the random start.
    if method == umap.NAME and (m < _REDUCED_ROWS_MIN or distinct == 1):
        method = 'none'
    if method == pca.NAME:
        dims = min(wanted or _MANY_ROWS_DIMS, d)
        return pca.components(points, dims, request.seed), {'method': pca.NAME, 'n_components': dims}
    if method == umap.NAME:
        dims = min(wanted or _CLUSTER_DIMS, m - 2)
        space = umap.embed(_layable(neighbourhood, request.seed), dims, request.seed, umap.HEAP_CURVE)
        neighbours = neighbour_count(min(m, umap.ROWS_LAID_OUT_MAX))
        return space, {'method': umap.NAME, 'n_components': dims, 'neighbours': neighbours}
    return points.astype(np.float64), {'method': 'none', 'n_components': d}


def _blur(reduction: dict[str, Any], rows: int) -> int:
    """Below how many rows the density of a layout means nothing: its neighbours, in small sets at most one row in a
    hundred, so that their small groups stay."""
    return min(reduction.get('neighbours', 0), rows // _ROWS_PER_BLUR)


def _layable(neighbourhood: Neighbourhood, seed: int) -> Neighbourhood:
    """Many long rows are shortened first, or the search for the places of all rows would take most of the time."""
    m, d = neighbourhood.points.shape
    if m > umap.ROWS_LAID_OUT_MAX and d > _MANY_ROWS_MAP_DIMS:
        return Neighbourhood(pca.components(neighbourhood.points, _MANY_ROWS_MAP_DIMS, seed))
    return neighbourhood


def _fitted(
    request: Request, algorithm: Any, space: np.ndarray, distinct: int, blur: int, cap: int
) -> tuple[Fit, np.ndarray | None]:
    """Clusters all rows, or a sample where the algorithm cannot take them all. Returns (fit, the sampled rows or None).

    Several threads add up their shares in the order they finish, so that the last bits would differ between runs.
    """
    with threadpool_limits(limits=1, user_api='openmp'):
        return _fitted_alone(request, algorithm, space, distinct, blur, cap)


def _fitted_alone(
    request: Request, algorithm: Any, space: np.ndarray, distinct: int, blur: int, cap: int
) -> tuple[Fit, np.ndarray | None]:
    m = space.shape[0]
    if m <= cap:
        return algorithm.fit(Task(space, request.params, distinct, request.seed, blur)), None
    chosen = np.sort(np.random.default_rng([request.seed, 4]).permutation(m)[:cap])
    sample = space[chosen]
    fit = algorithm.fit(Task(sample, request.params, min(distinct, cap), request.seed, blur))
    labels = np.full(m, -1, np.int64)
    strengths = np.zeros(m)
    labels[chosen], strengths[chosen] = fit.labels, fit.strengths
    kinds = np.unique(fit.labels[fit.labels >= 0])
    if kinds.shape[0]:
        centres = np.stack([sample[fit.labels == label].mean(axis=0) for label in kinds])
        reach = np.array(
            [
                np.linalg.norm(sample[fit.labels == label] - centre, axis=1).max()
                for label, centre in zip(kinds, centres, strict=True)
            ]
        )
        others = np.setdiff1d(np.arange(m), chosen, assume_unique=True)
        indices, distances = nearest(centres, 1, queries=space[others])
        closest, distance = indices[:, 0], distances[:, 0]
        inside = (distance <= reach[closest]) | (not algorithm.CHOOSES_COUNT)
        labels[others] = np.where(inside, kinds[closest], -1)
        relative = distance / np.maximum(reach[closest], 1e-12)
        strengths[others] = np.where(inside, np.clip(1.0 - relative, 0.0, 1.0), 0.0)
    sampled = np.zeros(m, bool)
    sampled[chosen] = True
    return Fit(labels, strengths, fit.implementation, fit.notes, fit.chosen), sampled


def _sampling(found: _Found, rows: int) -> dict[str, int]:
    """How many of the usable rows the algorithm saw, and how many of the others joined a cluster afterwards."""
    if found.sampled is None:
        return {'rows': rows, 'clustered': rows, 'assigned': 0, 'cap': found.cap}
    assigned = int((found.labels[~found.sampled] >= 0).sum())
    return {'rows': rows, 'clustered': int(found.sampled.sum()), 'assigned': assigned, 'cap': found.cap}


def _map(request: Request, neighbourhood: Neighbourhood) -> tuple[np.ndarray, dict[str, Any]]:
    """Coordinates to draw the usable rows at. Fewer than four rows, or equal ones, have nothing to lay out."""
    points = neighbourhood.points
    m = points.shape[0]
    method = request.map_method
    if m < _LAID_OUT_ROWS_MIN or np.ptp(points, axis=0).max() == 0:
        method = pca.NAME
    if method == umap.NAME:
        neighbourhood = _layable(neighbourhood, request.seed)
    chart = reduce.method(method)
    places = chart.embed(neighbourhood, request.map_dims, request.seed)
    laid_out = {umap.NAME: umap.ROWS_LAID_OUT_MAX, tsne.NAME: tsne.ROWS_LAID_OUT_MAX[request.map_dims]}.get(method, m)
    return places, {'method': method, 'n_components': request.map_dims, 'rows_laid_out': min(m, laid_out)}


def _describe(
    request: Request,
    usable: _Rows,
    labels: np.ndarray,
    names: list[str],
    alike: np.ndarray,
    document_ids: list[str],
    texts: list[str],
) -> list[dict[str, Any]]:
    position = np.full(labels.shape[0], -1, np.int64)
    position[usable.numbers] = np.arange(usable.numbers.shape[0])
    wanted = max(request.labels.samples_per_cluster, 1)
    centres, typical, shown = [], [], []
    for label in range(len(names)):
        rows = np.flatnonzero(labels == label)
        own = usable.own[position[rows]]
        centre = own.mean(axis=0, dtype=np.float64)
        if request.metric == 'cosine':
            centre /= max(float(np.linalg.norm(centre)), 1e-12)
        distance = np.linalg.norm(own - centre, axis=1)
        order = np.argsort(np.round(distance, 9), kind='stable')
        centres.append(centre)
        typical.append(rows[order])
        shown.append(rows[order[_first_different(own[order], wanted)]])

    options = request.labels
    samples = [_samples(rows, texts, wanted, options.sample_chars) for rows in typical]
    descriptions = _label.describe(texts, labels.tolist(), options.keywords, samples)
    return [
        {
            'cluster_id': names[label],
            'num_members': int(rows.shape[0]),
            'label': about.label,
            'summary': about.summary,
            'keywords': about.keywords,
            'centroid_vector': np.round(centres[label], 7).tolist(),
            **_metrics.of_cluster(alike, label),
            'representative_ids': [document_ids[row] for row in shown[label].tolist()],
            'samples': samples[label][: options.samples_per_cluster],
        }
        for label, (rows, about) in enumerate(zip(typical, descriptions, strict=True))
    ]


def _first_different(vectors: np.ndarray, wanted: int) -> list[int]:
    """The first rows, without those that equal an earlier one: copies of one document represent nothing more."""
    seen: set[bytes] = set()
    result: list[int] = []
    for at in range(vectors.shape[0]):
        key = (vectors[at] + 0.0).tobytes()
        if key not in seen:
            seen.add(key)
            result.append(at)
            if len(result) == wanted:
                break
    return result


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


def _distinct_rows(points: np.ndarray) -> int:
    """How many different rows there are, by 64-bit hashes of them, block by block. The zeros of either sign are one."""
    n, d = points.shape
    factors = np.random.default_rng(11).integers(0, 2**64, size=d, dtype=np.uint64) | np.uint64(1)
    keys = np.empty(n, np.uint64)
    for start in range(0, n, _HASH_BLOCK_ROWS):
        words = np.ascontiguousarray(points[start : start + _HASH_BLOCK_ROWS] + np.float32(0.0)).view(np.uint32)
        # Floats end in zeros, which a product would keep; spread each word over all its bits first.
        words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
        words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
        keys[start : start + _HASH_BLOCK_ROWS] = ((words ^ (words >> 16)).astype(np.uint64) * factors).sum(axis=1)
    return np.unique(keys).shape[0]


def _because(found: _Found, reason: str, sentence: str) -> _Found:
    found.reason, found.sentence = reason, sentence
    return found


def _message(
    found: _Found, request: Request, labels: np.ndarray, count: int, rows: int, unusable: int
) -> str:
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
    if request.ignored:
        it = 'it changes no result' if len(request.ignored) == 1 else 'they change no result'
        sentences.append(f'Accepted and without effect here, because {it}: {", ".join(request.ignored)}.')
    return ' '.join([*sentences, *found.notes])


def _detail(found: _Found, request: Request, rows: int, unusable: int) -> dict[str, Any] | None:
    if found.reason is None:
        return None
    return {'reason': found.reason, 'rows': rows, 'usable_rows': rows - unusable, 'params': request.params}


def _rounded(finding: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in finding.items()}
