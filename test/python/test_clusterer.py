"""The clusterer: quality on known data, honesty on data without clusters, sameness of repeated runs, and its wire."""

from __future__ import annotations

import csv
import functools
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'functions' / 'clusterer'
BANKING = ROOT.parent / 'shared' / 'data' / 'banking77' / 'train.csv'


def _load() -> SimpleNamespace:
    """Import the function as Lambda does, with its folder on the path, and leave no trace: other functions have a
    `handler` and an `_errors` of their own."""
    own = {path.stem for path in FOLDER.iterdir() if path.suffix == '.py' or path.is_dir()}
    ours = lambda name: name.split('.')[0] in own  # noqa: E731
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    sys.path.insert(0, str(FOLDER))
    try:
        names = ['handler', '_run', '_event', '_errors', '_transport', '_label', '_identity', '_structure', '_preprocess']
        modules = {name.lstrip('_'): importlib.import_module(name) for name in names}
        for name in (
            'algorithms',
            'algorithms.task',
            'reduce',
            'reduce.neighbours',
            'reduce.pca',
            'reduce.umap',
            'reduce.tsne',
        ):
            modules[name.split('.')[-1]] = importlib.import_module(name)
        return SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


clusterer = _load()


def cluster(vectors, texts=None, ids=None, **event):
    vectors = np.asarray(vectors, dtype=np.float32)
    rows, dims = vectors.shape
    given = {'vectors_url': 'http://x', 'texts_url': 'http://x', 'result_url': 'http://x'}
    request = clusterer.event.parse({'rows': rows, 'dims': dims, **given, **event})
    ids = ids or [f'doc_{i}' for i in range(rows)]
    return clusterer.run.run(request, vectors, ids, texts or [''] * rows)


def hdbscan(**params):
    return {'name': 'hdbscan', 'params': params}


def kmeans(**params):
    return {'name': 'kmeans', 'params': params}


def labels_of(result):
    return [member['cluster_id'] for member in result['members']]


def places_of(result):
    return np.array([[point[axis] for axis in ('x', 'y', 'z') if axis in point] for point in result['points']])


def assert_consistent(result, rows):
    """What holds for every result, with or without clusters."""
    json.dumps(result, allow_nan=False)
    names = [entry['cluster_id'] for entry in result['clusters']]
    assert len(set(names)) == len(names) == result['num_clusters']
    assert result['num_points'] == len(result['members']) == len(result['points']) == rows
    assert set(labels_of(result)) <= {*names, 'noise'}
    for entry in result['clusters']:
        assert entry['num_members'] == labels_of(result).count(entry['cluster_id']) > 0
        assert entry['label']
        assert set(entry['representative_ids']) <= {
            m['document_id'] for m in result['members'] if m['cluster_id'] == entry['cluster_id']
        }
    assert all(0 <= member['probability'] <= 1 for member in result['members'])
    assert all(m['probability'] == 0 for m in result['members'] if m['cluster_id'] == 'noise')
    assert re.fullmatch(r'[A-Z0-9].*\.', result['message'])
    assert (result['degenerate_detail'] is None) == (result['num_clusters'] > 0)
    assert result['label_source'] == 'ctfidf'


def without_timings(result):
    return json.dumps({key: value for key, value in result.items() if key != 'timings'}, sort_keys=True)


def ngram_vectors(texts, dims=128):
    """Hashed character 3- to 5-grams, the project's example text embedding, written again here."""
    result = np.zeros((len(texts), dims))
    for row, text in enumerate(texts):
        for word in re.findall(r'\w+', text.lower()):
            padded = f' {word} '
            for size in (3, 4, 5):
                for start in range(len(padded) - size + 1):
                    code = zlib.crc32(padded[start : start + size].encode())
                    result[row, code % dims] += -1 if code >> 31 else 1
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)


def blobs(seed, centres, rows_each, dims, spread=0.4, loose=0):
    rng = np.random.default_rng(seed)
    middle = np.repeat(rng.standard_normal((centres, dims)), rows_each, axis=0)
    points = middle + spread * rng.standard_normal(middle.shape)
    truth = np.concatenate([np.repeat(np.arange(centres), rows_each), np.full(loose, -1)])
    return np.vstack([points, rng.standard_normal((loose, dims))]), truth


TOPICS = {
    'volcano': [
        'The volcano threw ash over the villages on its southern slope.',
        'Lava crept down the volcano and closed the coastal road.',
        'A plume of volcano ash forced the airline to turn back.',
        'Seismologists listened to tremors under the volcano all night.',
        'The crater of the volcano filled with fresh lava overnight.',
        'Farmers below the volcano swept grey ash from their roofs.',
    ],
    'bread': [
        'Knead the bread dough until it springs back under your thumb.',
        'A slow sourdough starter gives the bread a sharper crust.',
        'The baker slides each bread dough onto a hot stone oven.',
        'Rye flour makes a dense bread that keeps for a week.',
        'Let the dough rise in the oven with only its lamp lit.',
        'Too much flour and the bread crumbles when you slice it.',
    ],
    'chess': [
        'She gave up her bishop and won the chess endgame with a pawn.',
        'The chess champion opened with the queen pawn again.',
        'Every chess endgame of rook and pawn teaches patience.',
        'His knight trapped the queen in the corner of the chess board.',
        'The young chess player lost her bishop in a noisy tournament hall.',
        'A tournament of rapid chess ended in a draw of knight and bishop.',
    ],
    'satellite': [
        'The satellite reached its orbit eight minutes after launch.',
        'A rocket carried the weather satellite into polar orbit.',
        'Engineers lost contact with the satellite behind the moon.',
        'The launch of the rocket was delayed by a leaking valve.',
        'Solar panels on the satellite unfolded once in orbit.',
        'Each rocket stage falls away while the satellite climbs.',
    ],
    'orchestra': [
        'The orchestra tuned its violins before the second symphony.',
        'A guest conductor led the orchestra through a new symphony.',
        'The cello section of the orchestra carried the slow movement.',
        'Her violin concerto was played by a youth orchestra in Bergen.',
        'The conductor asked the orchestra for a softer violin line.',
        'An evening of symphony music closed with a cello solo.',
    ],
    'beehive': [
        'The beekeeper lifted a frame of honey from the hive.',
        'Bees return to the hive with pollen on their legs.',
        'A queen bee may lay a thousand eggs in the hive each day.',
        'Smoke calms the bees while the beekeeper opens the hive.',
        'Clover honey from this hive tastes of early summer.',
        'The beekeeper feeds sugar to the bees when pollen is scarce.',
    ],
}


@functools.cache
def articles():
    """120 short articles on six topics, two sentences each, shuffled. Returns (texts, topics)."""
    texts, topics = [], []
    for topic, sentences in TOPICS.items():
        pairs = list(itertools.permutations(sentences, 2))[:20]
        texts += [f'{first} {second}' for first, second in pairs]
        topics += [topic] * len(pairs)
    order = np.random.default_rng(5).permutation(len(texts))
    return [texts[i] for i in order], [topics[i] for i in order]


@functools.cache
def digits():
    vectors, truth = load_digits(return_X_y=True)
    return cluster(vectors, metric='euclid', algorithm=hdbscan(min_cluster_size=15)), truth


# --- quality on known data


def test_umap_and_hdbscan_find_the_handwritten_digits():
    result, truth = digits()
    assert_consistent(result, len(truth))
    assert adjusted_rand_score(truth, labels_of(result)) >= 0.9
    assert result['metrics']['noise_ratio'] < 0.05
    assert result['pipeline']['reduction'] == {'method': 'umap', 'n_components': 5, 'neighbours': 15}


def test_the_map_keeps_digits_beside_digits_of_the_same_kind():
    result, truth = digits()
    accuracy = cross_val_score(KNeighborsClassifier(10), places_of(result), truth, cv=5).mean()
    assert accuracy >= 0.96


def test_separate_blobs_come_back_as_they_were_made_at_every_size():
    for centres, rows_each, dims in ((2, 3, 32), (3, 10, 16), (8, 40, 128), (4, 400, 32)):
        points, truth = blobs(centres, centres, rows_each, dims)
        result = cluster(points, metric='euclid', algorithm=hdbscan(min_cluster_size=3))
        assert_consistent(result, len(truth))
        assert adjusted_rand_score(truth, labels_of(result)) > 0.99, (centres, rows_each, dims)


def test_articles_on_six_topics_are_told_apart_by_a_weak_text_embedding():
    texts, topics = articles()
    result = cluster(ngram_vectors(texts), texts, algorithm=hdbscan(min_cluster_size=5))
    assert_consistent(result, 120)
    assert result['num_clusters'] >= 5
    assert normalized_mutual_info_score(topics, labels_of(result)) > 0.8


def test_customer_questions_keep_their_clusters_although_their_silhouette_is_low():
    if not BANKING.exists():
        pytest.skip('shared/data/banking77 is not here')
    with BANKING.open(encoding='utf-8', newline='') as file:
        questions = list(csv.DictReader(file))
    intents = sorted({row['category'] for row in questions})
    for first in (0, 30, 60):
        chosen = [
            [row for row in questions if row['category'] == intent][:20] for intent in intents[first : first + 12 : 2]
        ]
        rows = list(itertools.chain.from_iterable(chosen))
        result = cluster(ngram_vectors([row['text'] for row in rows]), [row['text'] for row in rows])
        assert_consistent(result, 120)
        assert result['num_clusters'] >= 2
        assert result['metrics']['silhouette_score'] < 0.2
        assert normalized_mutual_info_score([row['category'] for row in rows], labels_of(result)) > 0.4


def test_kmeans_makes_the_number_of_clusters_that_was_asked_for():
    points, truth = blobs(1, 5, 30, 64)
    result = cluster(points, algorithm=kmeans(n_clusters=5))
    assert_consistent(result, 150)
    assert adjusted_rand_score(truth, labels_of(result)) > 0.99
    assert cluster(points, algorithm=kmeans(n_clusters=3))['num_clusters'] == 3


def test_many_rows_are_reduced_linearly_and_all_of_them_are_placed_on_the_map(monkeypatch):
    monkeypatch.setattr(clusterer.umap, 'ROWS_LAID_OUT_MAX', 300)
    points, truth = blobs(2, 4, 200, 80)
    result = cluster(points, metric='euclid', map={'method': 'umap', 'n_components': 3})
    assert_consistent(result, 800)
    assert result['pipeline']['reduction'] == {'method': 'pca', 'n_components': 15}
    assert adjusted_rand_score(truth, labels_of(result)) > 0.99
    places = places_of(result)
    assert places.shape == (800, 3)
    assert cross_val_score(KNeighborsClassifier(5), places, truth, cv=4).mean() > 0.99


def test_above_the_row_cap_a_sample_is_clustered_and_the_rest_joins_it(monkeypatch):
    monkeypatch.setattr(clusterer.algorithms.REGISTRY['hdbscan'], 'ROWS_MAX', 200)
    points, truth = blobs(3, 3, 150, 16)
    result = cluster(points, metric='euclid')
    assert_consistent(result, 450)
    assert result['pipeline']['rows_clustered'] == 200
    assert '200 of 450 documents were clustered' in result['message']
    named = [(a, b) for a, b in zip(truth, labels_of(result), strict=True) if b != 'noise']
    assert len(named) > 400
    assert adjusted_rand_score(*zip(*named, strict=True)) > 0.99


def test_the_hdbscan_package_takes_over_where_scikit_learn_is_slow(monkeypatch):
    pytest.importorskip('hdbscan')
    monkeypatch.setattr(clusterer.algorithms.REGISTRY['hdbscan'], '_SCIKIT_ROWS_MAX', 100)
    points, truth = blobs(4, 3, 60, 16)
    result = cluster(points, metric='euclid')
    assert result['pipeline']['algorithm']['implementation'] == 'hdbscan'
    assert adjusted_rand_score(truth, labels_of(result)) > 0.99


def test_the_metrics_are_those_of_the_vectors_not_of_the_flattering_layout():
    points, _ = blobs(1, 3, 30, 64, spread=1.2)
    metrics = cluster(points, metric='euclid', algorithm=kmeans(n_clusters=3))['metrics']
    assert 0 < metrics['silhouette_score'] < 0.5
    assert metrics['davies_bouldin_index'] > 0 and metrics['calinski_harabasz_score'] > 0
    assert metrics['noise_ratio'] == 0 and metrics['avg_cluster_size'] == 30


# --- honesty on data without clusters


@pytest.mark.parametrize('rows', [5, 6, 8, 12, 20, 40, 120, 400])
def test_random_directions_give_no_clusters_and_a_sentence_that_says_so(rows):
    for seed in range(3):
        points = np.random.default_rng([rows, seed]).standard_normal((rows, 128))
        result = cluster(points, algorithm=hdbscan(min_cluster_size=3))
        assert_consistent(result, rows)
        assert result['num_clusters'] == 0
        assert result['degenerate_detail']['reason'] == 'no_structure'
        assert 'no structure beyond chance' in result['message']
        assert result['metrics']['noise_ratio'] == 1
        assert len({tuple(place) for place in places_of(result)}) == rows


def test_random_rows_around_real_groups_do_not_become_clusters():
    points, truth = blobs(1, 3, 20, 128, loose=100)
    result = cluster(points, algorithm=hdbscan(min_cluster_size=3))
    assert_consistent(result, 160)
    assert result['num_clusters'] == 3
    assert result['pipeline']['structure']['clusters_dissolved'] > 0
    assert 'chance would explain' in result['message']
    found = np.array(labels_of(result))
    assert (found[truth >= 0] != 'noise').mean() > 0.9
    assert (found[truth < 0] == 'noise').mean() > 0.75


def test_hundreds_of_small_groups_among_noise_are_structure():
    points, _ = blobs(1, 200, 5, 64, loose=2000)
    points = (points - points.mean(axis=0)).astype(np.float32)
    assert clusterer.structure.examine(points, False, 42).found


def test_vectors_that_differ_only_in_length_are_not_structure():
    rng = np.random.default_rng(1)
    points = (rng.standard_normal((300, 64)) * rng.lognormal(0, 0.7, (300, 1))).astype(np.float32)
    assert not clusterer.structure.examine(points, False, 42).found


def test_kmeans_on_random_directions_obeys_but_says_that_its_borders_are_arbitrary():
    points = np.random.default_rng(0).standard_normal((60, 64))
    result = cluster(points, algorithm=kmeans(n_clusters=4))
    assert result['num_clusters'] == 4
    assert 'arbitrary' in result['message']


def test_a_run_without_documents_succeeds():
    result = cluster(np.zeros((0, 128)))
    assert_consistent(result, 0)
    assert result['degenerate_detail']['reason'] == 'no_documents'
    assert result['metrics'] == dict.fromkeys(result['metrics'])


def test_one_document_is_too_few_for_a_cluster_and_the_sentence_says_how_many_it_takes():
    result = cluster(np.ones((1, 128)), ['alone'], algorithm=hdbscan(min_cluster_size=3))
    assert_consistent(result, 1)
    assert result['degenerate_detail']['reason'] == 'too_few_documents'
    assert 'at least 3 documents' in result['message'] and 'only 1 document' in result['message']
    assert places_of(result).tolist() == [[0, 0]]


@pytest.mark.parametrize('rows', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('method', ['umap', 'pca'])
@pytest.mark.parametrize('dims', [1, 2, 64])
def test_tiny_inputs_of_any_shape_are_placed_on_a_map_of_either_size(rows, method, dims):
    points = np.random.default_rng(rows).standard_normal((rows, dims))
    for algorithm in (hdbscan(min_cluster_size=2), kmeans(n_clusters=2)):
        for axes in (2, 3):
            chart = {'method': method, 'n_components': axes}
            result = cluster(points, map=chart, algorithm=algorithm)
            assert_consistent(result, rows)
            assert places_of(result).shape == (rows, axes)
            assert np.isfinite(places_of(result)).all()


def test_fewer_documents_than_the_smallest_cluster_give_no_cluster():
    points, _ = blobs(1, 2, 4, 32)
    result = cluster(points, algorithm=hdbscan(min_cluster_size=20))
    assert_consistent(result, 8)
    assert 'at least 20 documents' in result['message']


def test_equal_vectors_are_reported_as_equal():
    result = cluster(np.tile(np.arange(1.0, 33.0), (12, 1)))
    assert_consistent(result, 12)
    assert result['degenerate_detail']['reason'] == 'identical_vectors'
    assert not places_of(result).any()
    single = cluster(np.tile(np.arange(1.0, 33.0), (12, 1)), algorithm=hdbscan(allow_single_cluster=True))
    assert_consistent(single, 12)


def test_zero_vectors_and_broken_ones_are_noise_and_the_others_are_clustered():
    points, truth = blobs(1, 3, 15, 32)
    points[3] = 0
    points[20] = np.nan
    points[30, 5] = np.inf
    for metric in ('cosine', 'dot'):
        result = cluster(points, metric=metric)
        assert_consistent(result, 45)
        assert result['num_clusters'] == 3
        assert [labels_of(result)[i] for i in (3, 20, 30)] == ['noise'] * 3
        assert result['pipeline']['unusable_vectors'] == 3
        assert '3 documents have a vector that cannot be compared' in result['message']
    only_zeros = cluster(np.zeros((9, 32)))
    assert_consistent(only_zeros, 9)
    assert only_zeros['degenerate_detail']['reason'] == 'no_usable_vectors'
    points, _ = blobs(1, 3, 15, 32)
    points[3] = 0
    one = '1 document has a vector that cannot be compared (zero or not finite) and counts as noise.'
    assert one in cluster(points)['message']


def test_a_zero_vector_is_a_place_like_any_other_under_euclid():
    points, _ = blobs(1, 2, 15, 32)
    points[:15] -= points[:15].mean(axis=0)
    points[0] = 0
    result = cluster(points + 0.0, metric='euclid')
    assert result['pipeline']['unusable_vectors'] == 0
    assert labels_of(result)[0] != 'noise'


def test_extreme_lengths_do_not_overflow():
    points, truth = blobs(1, 3, 15, 32)
    result = cluster(points * 1e19)
    assert adjusted_rand_score(truth, labels_of(result)) > 0.99


def test_structure_without_dense_groups_is_all_noise_with_a_sentence():
    points, _ = blobs(1, 3, 6, 32)
    result = cluster(points, algorithm=hdbscan(min_cluster_size=12))
    assert_consistent(result, 18)
    assert result['num_clusters'] == 0
    assert result['degenerate_detail']['reason'] == 'all_noise'
    assert 'min_cluster_size' in result['message']


def test_more_clusters_than_different_vectors_are_lowered_with_a_note():
    points = np.repeat(np.random.default_rng(0).standard_normal((3, 16)), 10, axis=0)
    result = cluster(points, algorithm=kmeans(n_clusters=8))
    assert_consistent(result, 30)
    assert result['num_clusters'] == 3
    assert 'lowered from 8 to 3' in result['message']


def test_copies_of_a_few_vectors_are_grouped_by_copy():
    points = np.repeat(np.random.default_rng(0).standard_normal((4, 64)), 12, axis=0)
    result = cluster(points)
    assert adjusted_rand_score(np.repeat(np.arange(4), 12), labels_of(result)) > 0.99


# --- the same again


def test_a_repeated_run_gives_the_same_bits_and_another_seed_another_map():
    texts, _ = articles()
    vectors = ngram_vectors(texts)
    first = cluster(vectors, texts)
    assert without_timings(first) == without_timings(cluster(vectors, texts))
    assert first['points'] != cluster(vectors, texts, seed=7)['points']


def test_a_new_process_gives_the_same_bits_whatever_its_hash_seed():
    script = (
        'import hashlib, json, sys; sys.path.insert(0, sys.argv[1]); import numpy as np, _event, _run\n'
        'r = np.random.default_rng(1); v = np.repeat(r.standard_normal((4, 32)), 10, 0)\n'
        'v = (v + .4 * r.standard_normal((40, 32))).astype("f4")\n'
        'e = {"rows": 40, "dims": 32, "vectors_url": "x", "texts_url": "x", "result_url": "x"}\n'
        'e["algorithm"] = {"name": sys.argv[2]}\n'
        'texts = [f"red green word{i // 10}" for i in range(40)]\n'
        'o = _run.run(_event.parse(e), v, [str(i) for i in range(40)], texts)\n'
        'o.pop("timings"); print(hashlib.sha256(json.dumps(o).encode()).hexdigest())'
    )

    def start(name, hash_seed):
        return subprocess.Popen(
            [sys.executable, '-c', script, str(FOLDER), name],
            stdout=subprocess.PIPE,
            env={**os.environ, 'PYTHONHASHSEED': hash_seed},
        )

    for name in ('hdbscan', 'kmeans', 'spectral'):
        runs = [start(name, seed) for seed in ('1', '2')]
        answers = [process.communicate()[0] for process in runs]
        assert [process.returncode for process in runs] == [0, 0]
        assert len(answers[0].strip()) == 64
        assert answers[0] == answers[1]


def test_the_order_of_the_documents_does_not_change_who_is_together():
    points, truth = blobs(1, 5, 20, 64)
    order = np.random.default_rng(0).permutation(100)
    result = cluster(points[order])
    assert adjusted_rand_score(truth[order], labels_of(result)) > 0.99


def test_clusters_keep_their_ids_when_documents_come_and_go():
    points, truth = blobs(1, 4, 20, 64)
    ids = [f'doc_{i}' for i in range(80)]
    first = cluster(points, ids=ids)
    before = dict(zip(ids, labels_of(first), strict=True))
    # Most of the largest cluster goes, so that sizes, and with them the natural numbering, are turned over.
    kept = [i for i in range(80) if not (before[ids[i]] == 'cl_0' and i % 20 >= 6)]
    fresh, _ = blobs(9, 1, 15, 64)
    vectors = np.vstack([fresh, points[kept]])
    names = [f'new_{i}' for i in range(15)] + [ids[i] for i in kept]
    again = cluster(vectors, ids=names, previous={'assignments': before})
    after = dict(zip(names, labels_of(again), strict=True))
    assert all(after[name] == before[name] for name in names if name in before and after[name] != 'noise')
    assert {after[f'new_{i}'] for i in range(15)} == {'cl_4'}
    assert_consistent(again, len(names))


def test_a_split_cluster_leaves_its_id_to_the_larger_part_and_old_ids_are_not_used_again():
    names = clusterer.identity.names
    ids = [str(i) for i in range(10)]
    old = {**dict.fromkeys(ids, 'cl_3'), 'gone': 'cl_7', 'bad': 'noise', 'odd': 'cl_x'}
    assert names(np.array([0] * 6 + [1] * 4), ids, old) == ['cl_3', 'cl_8']
    assert names(np.array([1] * 6 + [0] * 4), ids, old) == ['cl_8', 'cl_3']
    assert names(np.array([0] * 10), ids, {'0': 'cl_5', **{f'x{i}': 'cl_5' for i in range(9)}}) == ['cl_5']
    assert names(np.full(10, -1), ids, old) == []


# --- labels


def test_labels_name_the_topic_in_clean_words():
    texts, topics = articles()
    result = cluster(ngram_vectors(texts), texts, algorithm=kmeans(n_clusters=6))
    members = dict(zip((m['document_id'] for m in result['members']), topics, strict=True))
    signature = {
        'volcano': {'volcano', 'lava', 'ash'},
        'bread': {'bread', 'dough', 'flour', 'oven'},
        'chess': {'chess', 'bishop', 'pawn', 'endgame'},
        'satellite': {'satellite', 'rocket', 'orbit', 'launch'},
        'orchestra': {'orchestra', 'symphony', 'violin', 'conductor', 'cello'},
        'beehive': {'hive', 'honey', 'beekeeper', 'bees'},
    }
    assert len({entry['label'] for entry in result['clusters']}) == 6
    for entry in result['clusters']:
        topic = members[entry['representative_ids'][0]]
        words = re.findall(r'\w+', entry['label'])
        assert set(words) & signature[topic], (topic, entry['label'])
        assert len(set(words)) == len(words)
        assert not {'the', 'of', 'a', 'with', 'and', 'her'} & set(words)
        assert len(entry['label']) <= 80
        spoken = [word for keyword in entry['keywords'] for word in keyword.split()]
        assert len(set(spoken)) == len(spoken)
        assert entry['summary'].startswith(f'{entry["num_members"]} of 120 documents')
        assert len(entry['samples']) == 10 and all(0 < len(sample) <= 200 for sample in entry['samples'])


def test_the_weights_are_those_of_the_formula():
    texts, topics = articles()
    names = sorted(TOPICS)
    counts, in_texts, in_cluster = {name: {} for name in names}, {}, {name: {} for name in names}
    for text, topic in zip(texts, topics, strict=True):
        runs = clusterer.label.terms(text)
        found = [word for run in runs for word in run]
        found += [f'{a} {b}' for run in runs for a, b in itertools.pairwise(run) if a != b]
        for term in found:
            counts[topic][term] = counts[topic].get(term, 0) + 1
        for term in set(found):
            in_texts[term] = in_texts.get(term, 0) + 1
            in_cluster[topic][term] = in_cluster[topic].get(term, 0) + 1
    mean_terms = sum(sum(own.values()) for own in counts.values()) / len(names)
    labels = [names.index(topic) for topic in topics]
    described = clusterer.label.describe(texts, labels, 10, [['']] * len(names))
    for name, about in zip(names, described, strict=True):
        total = sum(counts[name].values())
        weight = {
            term: times / total * np.log(1 + mean_terms / sum(own.get(term, 0) for own in counts.values()))
            for term, times in counts[name].items()
            if in_texts[term] >= 3 and in_cluster[name][term] > 1
        }
        listed = [weight[keyword] for keyword in about.keywords]
        assert listed[0] == pytest.approx(max(weight.values()))
        assert listed == pytest.approx(sorted(listed, reverse=True))
        # Whatever weighs more than the last keyword and is not listed repeats a word of one that is.
        spoken = {word for keyword in about.keywords for word in keyword.split()}
        for term, value in weight.items():
            if value > listed[-1] + 1e-9 and term not in about.keywords:
                assert any(word[:3] == other[:3] for word in term.split() for other in spoken), term


def test_of_equal_terms_the_pair_of_words_is_chosen():
    texts = ['red apple', 'red apple', 'blue apple', 'blue whale', 'blue whale']
    found = clusterer.label.describe(texts, [0, 0, 0, 1, 1], 10, [['red apple'], ['blue whale']])
    assert found[0].keywords == ['apple', 'red']
    assert found[1].keywords == ['blue whale'] and found[1].label == 'blue whale'


def test_pairs_of_words_are_neighbours_in_the_text_and_stop_words_never_show():
    assert clusterer.label.terms("I can't say: the wrong PIN was blocked!") == [['wrong', 'pin'], ['blocked']]
    assert clusterer.label.terms('See https://evil.example/x?y=1 or a@b.example <b>now</b> 2024') == []
    assert clusterer.label.terms('x' * 41 + ' Öl, größer') == [['öl'], ['größer']]


def test_forms_of_one_word_are_listed_once():
    texts = ['verify verification verifies card cards'] * 3 + ['boat river'] * 3
    found = clusterer.label.describe(texts, [0, 0, 0, 1, 1, 1], 10, [texts[:1], texts[3:4]])
    words = ' '.join(found[0].keywords).split()
    assert sum(word.startswith('veri') for word in words) <= 2
    assert len(found[0].keywords) <= 2


def test_two_clusters_of_the_same_words_get_different_labels():
    texts = ['red apple pie'] * 6
    found = clusterer.label.describe(texts, [0, 0, 1, 1, 2, 2], 5, [['red apple pie']] * 3)
    assert len({about.label for about in found}) == 3


def test_clusters_without_any_words_are_still_named_and_hostile_text_stays_text():
    blank = clusterer.label.describe(['', '  ', '12 34'], [0, 0, 1], 5, [[''], ['12 34']])
    assert [about.label for about in blank] == ['cluster 1', 'cluster 2']
    hostile = ['<script>alert("x")</script> ignore previous instructions ' + 'zw\u200b ' * 50] * 4
    label = clusterer.label.describe(hostile, [0] * 4, 5, [hostile[:1]])[0]
    assert all(re.fullmatch(r'[\w ,]+', text) for text in [label.label, *label.keywords])


def test_label_options_choose_how_much_is_shown():
    texts, _ = articles()
    options = {'samples_per_cluster': 2, 'sample_chars': 15, 'keywords': False}
    result = cluster(ngram_vectors(texts), texts, labels=options, algorithm=kmeans(n_clusters=6))
    for entry in result['clusters']:
        assert entry['keywords'] == [] and entry['label']
        assert len(entry['samples']) == 2 and all(len(sample) <= 15 for sample in entry['samples'])
        assert len(entry['representative_ids']) == 2


# --- parts against slow references


def test_nearest_neighbours_equal_those_of_a_full_search():
    rng = np.random.default_rng(3)
    for n, d, k in ((2, 1, 5), (7, 3, 3), (60, 20, 15), (200, 5, 10)):
        points = rng.standard_normal((n, d)) + 1000.0
        full = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(full, np.inf)
        indices, distances = clusterer.neighbours.nearest(points, k)
        wanted = np.sort(full, axis=1)[:, : min(k, n - 1)]
        assert np.allclose(distances, wanted, atol=1e-3)
        assert np.allclose(np.take_along_axis(full, indices, axis=1), wanted, atol=1e-3)
        some = np.arange(0, n, 2)
        assert (clusterer.neighbours.nearest(points, k, rows=some)[0] == indices[some]).all()
        own, zero = clusterer.neighbours.nearest(points, 1, queries=points)
        assert (own[:, 0] == np.arange(n)).all() and np.allclose(zero, 0, atol=1e-3)


def test_the_neighbour_graph_is_symmetric_and_each_row_belongs_fully_to_its_nearest():
    points = np.random.default_rng(2).standard_normal((80, 10))
    graph = clusterer.neighbours.Neighbourhood(points).graph
    assert abs(graph - graph.T).max() < 1e-12
    assert graph.data.min() > 0 and graph.data.max() <= 1 + 1e-12
    assert np.allclose(graph.max(axis=1).toarray(), 1)


def test_principal_components_equal_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(4)
    for n, d in ((50, 8), (8, 50), (1200, 700)):
        points = rng.standard_normal((n, 4)) @ np.diag([9, 5, 3, 2]) @ rng.standard_normal((4, d))
        left, values, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
        got = clusterer.pca.components(points, 3, 1)
        assert np.allclose(np.abs(got), np.abs(left[:, :3] * values[:3]), atol=1e-2 * values[0] / np.sqrt(n))
        assert (got == clusterer.pca.components(points, 3, 1)).all()


# --- the wire


@pytest.fixture
def store():
    """A loopback object store: GET what was put under a path, PUT anything, and some paths that fail."""

    class Store(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.split('?')[0]
            server.seen.append(('GET', path))
            if path == '/moved':
                self.send_response(302)
                self.send_header('Location', '/secret')
                self.end_headers()
                return
            fails = server.failures.get(path, [])
            status = fails.pop(0) if fails else 200 if path in server.objects else 404
            cut = status == 'cut'
            body = server.objects.get(path, b'') if status in (200, 'cut') else b'<Error>no</Error>'
            self.send_response(200 if cut else status)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def do_PUT(self):
            path = self.path.split('?')[0]
            server.seen.append(('PUT', path))
            server.objects[path] = self.rfile.read(int(self.headers['Content-Length']))
            self.send_response(200)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(('127.0.0.1', 0), Store)
    server.objects, server.failures, server.seen = {}, {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True)
    thread.start()
    server.url = f'http://127.0.0.1:{server.server_port}'
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def put_run(store, vectors, texts, **event):
    vectors = np.asarray(vectors, dtype='<f4')
    store.objects['/vectors'] = vectors.tobytes()
    lines = [json.dumps({'document_id': f'doc_{i}', 'text': text}) for i, text in enumerate(texts)]
    store.objects['/texts'] = '\n'.join(lines).encode()
    return {
        'vectors_url': f'{store.url}/vectors?X-Amz-Signature=s3cr3t',
        'texts_url': f'{store.url}/texts?X-Amz-Signature=s3cr3t',
        'result_url': f'{store.url}/result?X-Amz-Signature=s3cr3t',
        'rows': vectors.shape[0],
        'dims': vectors.shape[1],
        **event,
    }


def test_the_handler_reads_clusters_writes_and_answers_with_a_summary_only(store):
    texts, topics = articles()
    event = put_run(
        store,
        ngram_vectors(texts),
        texts,
        metric='cosine',
        algorithm=hdbscan(min_cluster_size=5),
        map={'method': 'umap', 'n_components': 2},
        labels={'samples_per_cluster': 10, 'sample_chars': 200, 'keywords': True},
        seed=42,
    )
    summary = clusterer.handler.handler(event, None)
    result = json.loads(store.objects['/result'])
    assert_consistent(result, 120)
    assert summary == {
        'num_clusters': result['num_clusters'],
        'num_points': 120,
        'message': result['message'],
        'noise_ratio': result['metrics']['noise_ratio'],
    }
    assert [m['document_id'] for m in result['members']] == [f'doc_{i}' for i in range(120)]
    assert all(len(entry['centroid_vector']) == 128 for entry in result['clusters'])
    assert result['timings']['read_seconds'] >= 0
    assert normalized_mutual_info_score(topics, labels_of(result)) > 0.8

    again = clusterer.handler.handler({**event, 'previous': {'result_url': f'{store.url}/result'}}, None)
    assert again == summary
    assert json.loads(store.objects['/result'])['members'] == result['members']


def test_a_run_of_nothing_reads_nothing_and_still_writes_a_result(store):
    event = {'rows': 0, 'dims': 128, 'result_url': f'{store.url}/result'}
    assert clusterer.handler.handler(event, None)['num_clusters'] == 0
    assert store.seen == [('PUT', '/result')]


def test_a_server_error_is_tried_again_and_a_refusal_is_not(store, monkeypatch):
    monkeypatch.setattr(clusterer.transport, '_PAUSE_SECONDS', 0)
    event = put_run(store, np.eye(3), ['a', 'b', 'c'])
    store.failures['/vectors'] = [503, 500]
    assert clusterer.handler.handler(event, None)['num_points'] == 3
    store.seen.clear()
    store.failures['/texts'] = [403, 403, 403]
    with pytest.raises(clusterer.errors.TransferFailed, match='/texts: status 403') as caught:
        clusterer.handler.handler(event, None)
    assert 's3cr3t' not in str(caught.value)
    assert store.seen.count(('GET', '/texts')) == 1


def test_a_connection_that_breaks_half_way_is_tried_again(store, monkeypatch):
    monkeypatch.setattr(clusterer.transport, '_PAUSE_SECONDS', 0)
    event = put_run(store, np.eye(3), ['a', 'b', 'c'])
    store.failures['/vectors'] = ['cut', 'cut']
    assert clusterer.handler.handler(event, None)['num_points'] == 3
    store.failures['/vectors'] = ['cut'] * 3
    with pytest.raises(clusterer.errors.TransferFailed, match='/vectors: the connection broke'):
        clusterer.handler.handler(event, None)


def test_redirects_are_not_followed(store):
    event = put_run(store, np.eye(3), ['a', 'b', 'c'])
    with pytest.raises(clusterer.errors.TransferFailed, match='status 302'):
        clusterer.handler.handler({**event, 'vectors_url': f'{store.url}/moved'}, None)
    assert ('GET', '/secret') not in store.seen


def test_data_that_does_not_fit_the_event_is_refused_in_words(store):
    event = put_run(store, np.eye(3), ['a', 'b', 'c'])
    mismatch = clusterer.errors.InputMismatch
    with pytest.raises(mismatch, match='expected 4 x 3 float32 = 48 bytes, got 36'):
        clusterer.handler.handler({**event, 'rows': 4}, None)
    with pytest.raises(mismatch, match='got more than 24'):
        clusterer.handler.handler({**event, 'rows': 2}, None)
    store.objects['/texts'] = b'{"document_id": "a", "text": null}\n{"document_id": "b"}\n'
    with pytest.raises(mismatch, match='expected 3 lines, one for each vector, got 2'):
        clusterer.handler.handler(event, None)
    store.objects['/texts'] += b'{oops}\n'
    with pytest.raises(mismatch, match='line 3 is not JSON'):
        clusterer.handler.handler(event, None)
    store.objects['/texts'] = b'["a"]\n' * 3
    with pytest.raises(mismatch, match='line 1 needs a "document_id" string'):
        clusterer.handler.handler(event, None)
    with pytest.raises(clusterer.errors.InputTooLarge, match='one run holds'):
        clusterer.handler.handler({**event, 'rows': 1_000_000, 'dims': 4096}, None)
    with pytest.raises(clusterer.errors.InvalidEvent, match='https:// or http://'):
        clusterer.handler.handler({**event, 'vectors_url': 'file:///etc/passwd'}, None)


@pytest.mark.parametrize(
    ('change', 'error', 'words'),
    [
        ({'algorithm': {'name': 'hdbscam'}}, 'UnknownAlgorithm', 'expected one of agglomerative, dbscan'),
        ({'map': {'method': 'isomap'}}, 'UnknownAlgorithm', 'expected one of pca, tsne, umap'),
        ({'algorithm': {'name': 'hdbscan', 'params': {'eps': 1}}}, 'InvalidParameter', 'has no such parameter'),
        ({'algorithm': hdbscan(min_cluster_size=1)}, 'InvalidParameter', 'from 2 to 100000, got 1'),
        ({'algorithm': hdbscan(min_cluster_size='5')}, 'InvalidParameter', "a whole number .* got '5'"),
        ({'algorithm': hdbscan(min_cluster_size=True)}, 'InvalidParameter', 'a whole number'),
        ({'algorithm': hdbscan(alpha=0)}, 'InvalidParameter', 'a number above 0'),
        ({'algorithm': hdbscan(alpha=float('nan'))}, 'InvalidParameter', 'a number above 0'),
        ({'algorithm': hdbscan(cluster_selection_method='best')}, 'InvalidParameter', 'one of eom, leaf'),
        ({'algorithm': kmeans(n_clusters=2000)}, 'InvalidParameter', 'to 1000'),
        ({'map': {'n_components': 4}}, 'InvalidEvent', 'map.n_components: expected a whole number from 2 to 3'),
        ({'metric': 'manhattan'}, 'InvalidEvent', 'metric: expected one of cosine, dot, euclid'),
        ({'rows': -1}, 'InvalidEvent', 'rows'),
        ({'dims': 0}, 'InvalidEvent', 'dims'),
        ({'seed': 1.5}, 'InvalidEvent', 'seed'),
        ({'labels': {'keywords': 51}}, 'InvalidEvent', 'labels.keywords'),
        ({'texts_url': None}, 'InvalidEvent', 'texts_url'),
        ({'previous': {'assignments': []}}, 'InvalidEvent', 'previous.assignments'),
    ],
)
def test_a_wrong_event_is_refused_by_a_named_error_before_anything_is_read(change, error, words):
    event = {'rows': 3, 'dims': 4, 'vectors_url': 'http://x', 'texts_url': 'http://x', 'result_url': 'http://x'}
    with pytest.raises(getattr(clusterer.errors, error), match=words):
        clusterer.handler.handler({**event, **change}, None)


def test_a_fault_in_the_function_is_told_without_its_trace(monkeypatch):
    def broken(_event):
        raise ZeroDivisionError('customer text')

    monkeypatch.setattr(clusterer.handler._event, 'parse', broken)
    with pytest.raises(clusterer.errors.ClusteringFailed) as caught:
        clusterer.handler.handler({}, None)
    assert 'customer text' not in str(caught.value) and 'ZeroDivisionError' in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_every_algorithm_declares_parameters_whose_defaults_keep_their_own_rules():
    assert set(clusterer.algorithms.REGISTRY) == set(clusterer.algorithms.PARAMETERS)
    keys = {'type', 'default', 'nullable', 'minimum', 'maximum', 'exclusive_minimum', 'enum'}
    for name, schema in clusterer.algorithms.PARAMETERS.items():
        defaults = clusterer.algorithms.checked_params(name, {})
        assert set(defaults) == set(schema)
        assert clusterer.algorithms.checked_params(name, defaults) == defaults
        for rule in schema.values():
            assert set(rule) <= keys and rule['type'] in ('integer', 'number', 'string', 'boolean')
            assert rule['default'] is not None or rule['nullable']


def test_no_module_of_the_function_lacks_a_line_that_says_what_it_is_for():
    for path in FOLDER.rglob('*.py'):
        assert path.read_text(encoding='utf-8').startswith('"""'), path
