"""Every clustering algorithm against naive facts: partitions, counts, centroids, odd inputs, caps and sameness."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from test_clusterer import (
    assert_consistent,
    blobs,
    cluster,
    clusterer,
    labels_of,
    places_of,
    without_timings,
)

ALGORITHMS = sorted(clusterer.algorithms.REGISTRY)
CHOOSING = {name for name, module in clusterer.algorithms.REGISTRY.items() if module.CHOOSES_COUNT}
COUNT = {
    'kmeans': 'n_clusters',
    'agglomerative': 'n_clusters',
    'spectral': 'n_clusters',
    'gaussian_mixture': 'n_components',
}
PCA_MAP = {'method': 'pca', 'n_components': 2}


def asked(name, count=None, **params):
    """An algorithm as a request names it, told how many clusters to make if it has to be told."""
    if count is not None and name in COUNT:
        params[COUNT[name]] = count
    return {'name': name, 'params': params}


def run(points, name, count=None, **event):
    params = event.pop('params', {})
    return cluster(points, algorithm=asked(name, count, **params), **{'metric': 'euclid', 'map': PCA_MAP, **event})


def cosines_to(centre, rows):
    return rows @ centre / (np.linalg.norm(rows, axis=1) * np.linalg.norm(centre))


# --- facts that hold for all


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('space', ['auto', 'none', 'pca', 'umap'])
def test_separate_groups_come_back_in_every_space_to_cluster_in(name, space):
    points, truth = blobs(4, 4, 30, 24, spread=0.25)
    result = run(points, name, 4, reduction={'method': space})
    assert_consistent(result, 120)
    named = [(a, b) for a, b in zip(truth, labels_of(result), strict=True) if b != 'noise']
    assert len(named) >= 108
    assert adjusted_rand_score(*zip(*named, strict=True)) > 0.95
    assert result['sampling'] == {'rows': 120, 'clustered': 120, 'assigned': 0, 'cap': result['sampling']['cap']}


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('metric', ['cosine', 'dot', 'euclid'])
def test_centroids_figures_and_representatives_are_those_of_the_members(name, metric):
    points, _ = blobs(6, 3, 25, 16, spread=0.3)
    points = np.vstack([points, points[:5], points[:5]]).astype(np.float32)
    result = run(points, name, 3, metric=metric)
    assert_consistent(result, 85)
    labels = np.array(labels_of(result))
    rows = points.astype(np.float64)
    if metric == 'cosine':
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    sizes, mean, least, total = [], 0.0, 1.0, 0
    assert result['num_clusters'] >= 2
    for entry in result['clusters']:
        members = np.flatnonzero(labels == entry['cluster_id'])
        centre = rows[members].mean(axis=0)
        if metric == 'cosine':
            centre /= np.linalg.norm(centre)
        assert np.allclose(entry['centroid_vector'], centre, atol=1e-4)
        alike = cosines_to(centre, rows[members])
        assert entry['mean_cosine_similarity'] == pytest.approx(alike.mean(), abs=1e-4)
        assert entry['min_cosine_similarity'] == pytest.approx(alike.min(), abs=1e-4)
        chosen = [int(document[4:]) for document in entry['representative_ids']]
        assert len({points[row].tobytes() for row in chosen}) == len(chosen)
        distance = np.linalg.norm(rows - centre, axis=1)
        assert distance[chosen].tolist() == pytest.approx(sorted(distance[chosen].tolist()))
        different = {points[row].tobytes(): row for row in reversed(members)}.values()
        nearest = sorted(distance[row] for row in different)[: len(chosen)]
        assert distance[chosen].tolist() == pytest.approx(nearest, abs=1e-5)
        sizes.append(members.size)
        mean, least, total = mean + alike.sum(), min(least, alike.min()), total + members.size
    shares = np.array(sizes) / total
    metrics = result['metrics']
    assert sizes == sorted(sizes, reverse=True)
    assert metrics['cluster_size_entropy'] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-5)
    assert metrics['mean_cosine_to_centroid'] == pytest.approx(mean / total, abs=1e-4)
    assert metrics['min_cosine_to_centroid'] == pytest.approx(least, abs=1e-4)
    assert metrics['noise_ratio'] == pytest.approx(1 - total / 85, abs=1e-5)


@pytest.mark.parametrize('name', ALGORITHMS)
def test_the_same_run_gives_the_same_bits_and_another_order_the_same_groups(name):
    points, truth = blobs(5, 4, 25, 16, spread=0.3)
    first = run(points, name, 4)
    assert without_timings(first) == without_timings(run(points, name, 4))
    order = np.random.default_rng(1).permutation(100)
    other = run(points[order], name, 4)
    before = np.array(labels_of(first))[order]
    assert adjusted_rand_score(before, labels_of(other)) > 0.9
    assert adjusted_rand_score(truth, labels_of(first)) > 0.9


@pytest.mark.parametrize('name', ALGORITHMS)
def test_ids_stay_when_documents_come_and_go(name):
    points, _ = blobs(8, 3, 24, 16, spread=0.25)
    params = {'bandwidth_quantile': 0.2} if name == 'mean_shift' else {}
    ids = [f'doc_{i}' for i in range(72)]
    first = run(points, name, 3, ids=ids, params=params)
    before = dict(zip(ids, labels_of(first), strict=True))
    fresh, _ = blobs(3, 1, 24, 16, spread=0.25)
    kept = [i for i in range(72) if i % 4]
    names = [f'new_{i}' for i in range(24)] + [ids[i] for i in kept]
    vectors = np.vstack([fresh * 2, points[kept]])
    again = run(vectors, name, 4, ids=names, previous={'assignments': before}, params=params)
    assert_consistent(again, 78)
    after = dict(zip(names, labels_of(again), strict=True))
    both = [i for i in names if i in before and 'noise' not in (before[i], after[i])]
    assert len(both) >= 45
    assert all(after[i] == before[i] for i in both)
    assert not {after[f'new_{i}'] for i in range(24)} & {before[i] for i in both}


# --- odd inputs


ODD = {
    'one row': np.ones((1, 8)),
    'two rows': np.eye(2, 8),
    'three rows': np.eye(3, 8),
    'five rows of one number': np.arange(5.0)[:, None],
    'all equal': np.tile(np.arange(1.0, 9.0), (20, 1)),
    'all zeros': np.zeros((20, 8)),
    'two places': np.repeat(np.eye(2, 8), 15, axis=0),
    'three places and a stray': np.vstack([np.repeat(np.eye(3, 8), 9, axis=0), np.full((1, 8), 50.0)]),
    'one dimension': np.repeat([[0.0], [1.0], [10.0]], 10, axis=0) + np.linspace(0, 0.1, 30)[:, None],
    'noise': np.random.default_rng(0).standard_normal((60, 16)),
    'broken rows': np.vstack([np.full((3, 8), np.nan), np.full((3, 8), np.inf), np.zeros((3, 8)), np.eye(8)]),
    'a line': np.linspace(0, 1, 40)[:, None] * np.ones((1, 8)),
    'huge and tiny': np.vstack([np.eye(8) * 1e18, np.eye(8) * 1e-18]),
}


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('data', ODD)
def test_odd_inputs_are_results_with_a_sentence(name, data):
    for metric in ('cosine', 'euclid'):
        for event in ({}, {'reduction': {'method': 'none'}}):
            result = run(ODD[data], name, metric=metric, **event)
            assert_consistent(result, len(ODD[data]))
            assert np.isfinite(places_of(result)).all()
            if name in CHOOSING and data in ('noise', 'all equal', 'one row', 'two rows'):
                assert result['num_clusters'] == 0


@pytest.mark.parametrize('name', sorted(COUNT))
def test_more_clusters_than_different_vectors_are_lowered_with_a_note_by_all_that_are_told_a_count(name):
    points = np.repeat(np.random.default_rng(0).standard_normal((3, 16)), 10, axis=0)
    result = run(points, name, 8)
    assert_consistent(result, 30)
    assert result['num_clusters'] <= 3
    assert f'{COUNT[name]} was lowered from 8 to 3' in result['message']
    single = run(np.ones((6, 4)), name, 2)
    assert single['num_clusters'] == 1
    assert 'there is only 1 different vector' in single['message']


@pytest.mark.parametrize('name', sorted(COUNT))
def test_a_count_makes_that_many_clusters_even_of_random_directions_and_says_that_they_are_arbitrary(name):
    points = np.random.default_rng(2).standard_normal((80, 32))
    result = run(points, name, 5)
    assert result['num_clusters'] == 5
    assert result['metrics']['noise_ratio'] == 0
    assert 'arbitrary' in result['message']


# --- caps


@pytest.mark.parametrize('name', ALGORITHMS)
def test_above_its_cap_each_algorithm_clusters_a_sample_and_the_answer_says_so(name, monkeypatch):
    monkeypatch.setattr(clusterer.algorithms.REGISTRY[name], 'ROWS_MAX', 120)
    points, truth = blobs(3, 3, 100, 16, spread=0.3)
    result = run(points, name, 3)
    assert_consistent(result, 300)
    sampling = result['sampling']
    assert (sampling['rows'], sampling['clustered'], sampling['cap']) == (300, 120, 120)
    clustered = sum(label != 'noise' for label in labels_of(result))
    assert clustered - 120 <= sampling['assigned'] <= 180
    assert '120 of 300 documents were clustered' in result['message']
    named = [(a, b) for a, b in zip(truth, labels_of(result), strict=True) if b != 'noise']
    assert len(named) > 200
    assert adjusted_rand_score(*zip(*named, strict=True)) > 0.95
    assert without_timings(result) == without_timings(run(points, name, 3))


def test_a_wide_space_lowers_the_caps_of_what_compares_all_pairs():
    rows_max, registry = clusterer.algorithms.rows_max, clusterer.algorithms.REGISTRY
    assert {name: rows_max(module, 5) for name, module in registry.items()} == {
        'hdbscan': 100_000,
        'kmeans': 100_000,
        'dbscan': 100_000,
        'gaussian_mixture': 100_000,
        'spectral': 10_000,
        'agglomerative': 10_000,
        'optics': 2_000,
        'mean_shift': 2_000,
    }
    assert rows_max(registry['hdbscan'], 128) == rows_max(registry['dbscan'], 128) == 20_000
    assert rows_max(registry['kmeans'], 128) == 100_000


# --- each by its own parameters


def test_dbscan_equals_a_slow_one_and_gives_borders_their_share(monkeypatch):
    points = np.random.default_rng(1).standard_normal((150, 2))
    for limit in (40_000_000, 1_000):
        monkeypatch.setattr(clusterer.algorithms.REGISTRY['dbscan'], '_LISTED_MAX', limit)
        fit = clusterer.algorithms.REGISTRY['dbscan'].fit(
            clusterer.task.Task(points, {'eps': 0.4, 'min_samples': 8, 'metric': 'euclidean'}, 150, 42)
        )
        near = np.linalg.norm(points[:, None] - points[None], axis=2) <= 0.4
        if limit > 1e6:
            core = near.sum(axis=1) >= 8
            assert ((fit.strengths == 1) >= core).all()
            assert ((fit.labels >= 0) == (near & core).any(axis=1)).all()
            group = np.arange(150)
            for _ in range(150):
                group = np.array([group[near[i] & core].min() if core[i] else -1 for i in range(150)])
            assert adjusted_rand_score(group[core], fit.labels[core]) == 1
            border = (fit.labels >= 0) & ~core
            assert fit.strengths[border] == pytest.approx(near[border].sum(axis=1) / 8)
            whole = fit.labels
        else:
            assert 'so wide' in fit.notes[0]
            both = (whole >= 0) & (fit.labels >= 0)
            assert both.sum() > 60


def test_a_radius_wider_than_everything_holds_everything_without_listing_all_pairs(monkeypatch):
    monkeypatch.setattr(clusterer.algorithms.REGISTRY['dbscan'], '_LISTED_MAX', 5_000)
    points, _ = blobs(1, 3, 100, 8)
    result = run(points, 'dbscan', params={'eps': 1e5})
    assert result['num_clusters'] == 1
    assert 'so wide' in result['message']


def test_agglomerative_follows_a_threshold_a_count_or_the_widest_gap():
    points, truth = blobs(2, 5, 12, 16, spread=0.2)
    for linkage in ('ward', 'complete', 'average', 'single'):
        params = {'n_clusters': None, 'linkage': linkage}
        gap = run(points, 'agglomerative', params=params, reduction={'method': 'none'})
        assert gap['pipeline']['algorithm']['chosen'] == {'n_clusters': 5}
        assert adjusted_rand_score(truth, labels_of(gap)) == 1
        heights = hierarchy.linkage(points.astype(np.float32), method=linkage)[:, 2]
        params = {'distance_threshold': (heights[-5] + heights[-4]) / 2, 'linkage': linkage}
        cut = run(points, 'agglomerative', params=params, reduction={'method': 'none'})
        assert adjusted_rand_score(truth, labels_of(cut)) == 1
    assert run(points, 'agglomerative')['num_clusters'] == 2
    both = run(points, 'agglomerative', params={**params, 'n_clusters': 3}, reduction={'method': 'none'})
    assert labels_of(both) == labels_of(cut)
    assert 'distance_threshold decides, so n_clusters, 3, does not count.' in both['message']
    assert 'does not count' not in cut['message']
    table = clusterer.algorithms.PARAMETERS['agglomerative']
    assert table['n_clusters']['default'] == clusterer.algorithms.REGISTRY['agglomerative']._COUNT_DEFAULT


def test_single_linkage_at_a_threshold_is_the_components_of_the_graph_of_near_rows():
    points = np.random.default_rng(3).standard_normal((60, 3)).astype(np.float32)
    result = run(points, 'agglomerative', params={'linkage': 'single', 'distance_threshold': 0.7})
    near = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2) <= 0.7
    count, truth = connected_components(near)
    assert result['num_clusters'] == count
    assert adjusted_rand_score(truth, labels_of(result)) == 1


def test_spectral_clustering_separates_rings_and_parts_without_any_tie():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    points, truth = np.vstack([ring, 3 * ring]), np.repeat([0, 1], 60)
    for params in (
        {},
        {'affinity': 'rbf', 'gamma': 4.0},
        {'assign_labels': 'cluster_qr'},
        {'assign_labels': 'discretize'},
    ):
        result = run(points, 'spectral', 2, params=params)
        assert adjusted_rand_score(truth, labels_of(result)) == 1, params
    apart = np.repeat(np.arange(6.0) * 100, 12)[:, None] + np.linspace(0, 1, 72)[:, None]
    result = run(apart, 'spectral', 6)
    assert adjusted_rand_score(np.repeat(np.arange(6), 12), labels_of(result)) == 1
    assert run(apart, 'spectral', 3)['num_clusters'] == 3


def test_a_mixture_tells_overlapping_groups_of_different_shape_apart():
    rng = np.random.default_rng(4)
    flat = rng.standard_normal((150, 2)) * [4.0, 0.2]
    tall = rng.standard_normal((150, 2)) * [0.2, 4.0] + [0.0, 6.0]
    truth = np.repeat([0, 1], 150)
    result = run(np.vstack([flat, tall]), 'gaussian_mixture', 2)
    assert adjusted_rand_score(truth, labels_of(result)) > 0.8
    assert run(np.vstack([flat, tall]), 'gaussian_mixture', 1)['num_clusters'] == 1


def test_mean_shift_goes_on_without_bins_and_may_leave_orphans():
    points, truth = blobs(7, 4, 15, 16, spread=0.2)
    wide, _ = blobs(7, 4, 8, 64, spread=0.2)
    twice = np.repeat(wide, 2, axis=0)
    result = run(twice, 'mean_shift', params={'bin_seeding': True, 'bandwidth': 3.0}, reduction={'method': 'none'})
    assert 'bin_seeding found no place' in result['message']
    assert result['num_clusters'] == 4
    lonely = np.vstack([points, np.full((1, 16), 40.0)])
    kept = run(lonely, 'mean_shift', params={'cluster_all': False, 'bandwidth': 3.0}, reduction={'method': 'none'})
    assert adjusted_rand_score(truth, labels_of(kept)[:60]) == 1


def test_optics_finds_groups_of_different_density_and_takes_sizes_as_shares():
    rng = np.random.default_rng(5)
    centres = np.eye(3, 8) * 20
    points = np.vstack([c + s * rng.standard_normal((40, 8)) for c, s in zip(centres, (0.2, 0.8, 2.0), strict=True)])
    for params in ({'min_cluster_size': 0.2}, {'min_cluster_size': 25}, {'cluster_method': 'dbscan', 'eps': 8.0}):
        result = run(points, 'optics', params=params, reduction={'method': 'none'})
        named = [(a // 40, b) for a, b in enumerate(labels_of(result)) if b != 'noise']
        assert len({b for _, b in named}) == 3, params
        assert adjusted_rand_score(*zip(*named, strict=True)) == 1


def test_parameters_that_change_nothing_are_accepted_and_named():
    points, _ = blobs(1, 3, 20, 8)
    result = run(points, 'kmeans', 3, params={'verbose': 2, 'copy_x': None})
    assert 'without effect here, because they change no result: verbose, copy_x.' in result['message']
    for name, ignored in clusterer.algorithms.IGNORED.items():
        assert not set(ignored) & set(clusterer.algorithms.PARAMETERS[name])


# --- preprocessing, the space, the map


def step(name, **params):
    return {'step': name, 'params': params}


def test_steps_are_what_their_names_say_in_the_order_of_the_request():
    rows = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32) * [1, 5, 0.1, 2, 0, 3] + 7
    rows = rows.astype(np.float32)

    def done(*names):
        return clusterer.preprocess.apply(tuple(clusterer.preprocess.Step(name) for name in names), rows, 42)

    assert np.allclose(np.linalg.norm(done('l2_normalize'), axis=1), 1, atol=1e-5)
    assert np.allclose(done('center').mean(axis=0), 0, atol=1e-5)
    assert np.allclose(done('standardize').std(axis=0), [1, 1, 1, 1, 0, 1], atol=1e-4)
    assert np.allclose(np.cov(done('whiten').T, bias=True), np.diag([1, 1, 1, 1, 1, 0]), atol=1e-3)
    distances = lambda some: np.linalg.norm(some[:, None] - some[None], axis=2)  # noqa: E731
    assert np.allclose(distances(done('pca')), distances(rows), atol=1e-3)
    centred = done('center')
    unit = centred / np.linalg.norm(centred, axis=1)[:, None]
    assert np.allclose(done('center', 'l2_normalize'), unit, atol=1e-5)
    short = clusterer.preprocess.apply((clusterer.preprocess.Step('pca', 2),), rows, 42)
    assert short.shape == (50, 2)


def test_preprocessing_shows_groups_that_scale_hid_and_leaves_the_centroids_in_the_vectors_own_space():
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(3), 40)
    groups = np.eye(6)[truth] + 0.05 * rng.standard_normal((120, 6))
    points = np.column_stack([rng.standard_normal((120, 2)) * 100, groups])
    plain = run(points, 'kmeans', 3, reduction={'method': 'none'})
    result = run(points, 'kmeans', 3, preprocessing=[step('standardize')], reduction={'method': 'none'})
    assert adjusted_rand_score(truth, labels_of(plain)) < 0.3
    assert adjusted_rand_score(truth, labels_of(result)) > 0.9
    assert all(len(entry['centroid_vector']) == 8 for entry in result['clusters'])
    labels = np.array(labels_of(result))
    entry = result['clusters'][0]
    assert np.allclose(entry['centroid_vector'], points[labels == entry['cluster_id']].mean(axis=0), atol=1e-3)
    assert result['pipeline']['preprocessing'] == [{'name': 'standardize', 'components': None}]


@pytest.mark.parametrize(
    'steps', [['center'], ['standardize', 'l2_normalize'], ['whiten'], ['pca'], ['l2_normalize', 'center']]
)
@pytest.mark.parametrize('data', ODD)
def test_preprocessing_of_odd_inputs_is_a_result_too(steps, data):
    for metric in ('cosine', 'euclid'):
        result = run(ODD[data], 'hdbscan', metric=metric, preprocessing=[step(name) for name in steps])
        assert_consistent(result, len(ODD[data]))


def test_a_row_that_loses_its_direction_by_preprocessing_is_noise():
    points, _ = blobs(1, 3, 20, 16)
    points[7] = np.delete(points, 7, axis=0).mean(axis=0)
    result = run(points, 'kmeans', 3, metric='cosine', preprocessing=[step('center')])
    assert labels_of(result)[7] == 'noise'
    assert result['sampling']['rows'] == 59


@pytest.mark.parametrize('method', ['umap', 'pca', 'tsne'])
@pytest.mark.parametrize('dims', [2, 3])
def test_every_map_keeps_groups_together_and_repeats_itself(method, dims, monkeypatch):
    monkeypatch.setitem(clusterer.tsne.ROWS_LAID_OUT_MAX, dims, 90)
    points, truth = blobs(2, 3, 50, 30, spread=0.3)
    chart = {'method': method, 'n_components': dims}
    result = run(points, 'kmeans', 3, map=chart)
    places = places_of(result)
    assert places.shape == (150, dims) and np.isfinite(places).all()
    near = NearestNeighbors(n_neighbors=5).fit(places).kneighbors(return_distance=False)
    assert (truth[near] == truth[:, None]).mean() > 0.97
    assert result['pipeline']['map']['rows_laid_out'] == (90 if method == 'tsne' else 150)
    assert places_of(run(points, 'kmeans', 3, map=chart)).tolist() == places.tolist()


@pytest.mark.parametrize('rows', [1, 2, 3, 4, 5, 7])
def test_few_rows_have_a_place_on_a_tsne_map(rows):
    points = np.random.default_rng(rows).standard_normal((rows, 3))
    for dims in (2, 3):
        result = run(points, 'kmeans', 2, map={'method': 'tsne', 'n_components': dims})
        assert places_of(result).shape == (rows, dims) and np.isfinite(places_of(result)).all()


def test_the_space_is_as_asked_and_no_wider_than_the_data_allow():
    points, _ = blobs(1, 3, 30, 12)
    for asked_space, given in (
        ({'method': 'none'}, {'method': 'none', 'n_components': 12}),
        ({'method': 'pca', 'n_components': 4}, {'method': 'pca', 'n_components': 4}),
        ({'method': 'pca', 'n_components': 90}, {'method': 'pca', 'n_components': 12}),
        ({'method': 'umap', 'n_components': 3}, {'method': 'umap', 'n_components': 3, 'neighbours': 11}),
        ({'method': 'auto'}, {'method': 'umap', 'n_components': 5, 'neighbours': 11}),
    ):
        assert run(points, 'hdbscan', reduction=asked_space)['pipeline']['reduction'] == given


@pytest.mark.parametrize(
    ('change', 'error', 'words'),
    [
        ({'preprocessing': [{'step': 'scale'}]}, 'UnknownAlgorithm', r'\[0\].step: expected one of l2_normalize'),
        ({'preprocessing': [step('center', n_components=2)]}, 'InvalidEvent', 'takes no parameters'),
        ({'preprocessing': [step('pca', n_components=0)]}, 'InvalidEvent', 'from 1 to 4096'),
        ({'preprocessing': [step('pca')] * 6}, 'InvalidEvent', 'at most 5'),
        ({'reduction': {'method': 'tsne'}}, 'UnknownAlgorithm', 'reduction.method: expected one of auto, none'),
        ({'reduction': {'n_components': 101}}, 'InvalidEvent', 'from 1 to 100'),
        ({'algorithm': asked('kmeans', init='furthest')}, 'InvalidParameter', 'one of'),
        ({'algorithm': asked('dbscan', metric_params={})}, 'InvalidParameter', 'has no such parameter; it takes eps'),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(change, error, words):
    with pytest.raises(getattr(clusterer.errors, error), match=words):
        cluster(np.ones((3, 4)), **change)


def test_parameters_at_the_ends_of_their_ranges_run():
    points, _ = blobs(1, 3, 20, 8)
    for name, schema in clusterer.algorithms.PARAMETERS.items():
        for key, rule in schema.items():
            values = list(rule.get('enum', []))
            if rule['type'] == 'boolean':
                values = [True, False]
            if rule['type'] in ('integer', 'number'):
                low = rule.get('minimum', rule.get('exclusive_minimum', 0))
                least = low + (1e-6 if 'exclusive_minimum' in rule else 0)
                values = [least, *([rule['maximum']] if key not in ('n_init', 'max_iter') else [])]
                values += [None] if rule.get('nullable') else []
            for value in values:
                result = run(points, name, params={key: value})
                json.dumps(result, allow_nan=False)
                assert_consistent(result, 60)
                assert not math.isnan(result['metrics']['noise_ratio'])
