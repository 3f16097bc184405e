"""Measures of the clusterer: how well it finds known groups, what it costs, and how its UMAP compares with umap-learn.

    clusters.py [--quick] [--data <folder with banking77>] [--umap-learn-python <python with umap-learn>]

Prints one JSON object:

    digits_ari            adjusted Rand index of UMAP + HDBSCAN on scikit-learn's 1,797 handwritten digits, all that are
                          in no cluster counted as one cluster more; `digits_ari_without_noise` leaves them out
    umap_cpu_gain         CPU of umap-learn over ours, both from the start of the process to the finished 2-D map of
                          the digits, least of three runs
    umap_knn_accuracy     share of digits whose ten nearest on our map vote for their own kind, mean of three seeds,
                          beside `umap_learn_knn_accuracy`
    banking77_nmi         normalised mutual information of the clusters of 10,003 customer questions, embedded by the
                          sample plugin (hashed character n-grams, 128 dimensions), with their 77 intents, over the
                          questions that are in a cluster; `banking77_noise_ratio` says how many are in none, and
                          `banking77_nmi_with_noise` counts those as one group more
    blobs100k_cpu_s       CPU of a whole process that clusters 100,000 x 128 by PCA + HDBSCAN, with `blobs100k_peak_mb`
                          and `blobs100k_ari`; 50 round groups of deviation 1 with centres from -10 to 10, as scikit-learn's
                          make_blobs makes them
    settings, seconds     what was asked of the clusterer, and CPU by step
    missing               figures that could not be measured, with the reason

Every part is a process of its own. --quick has a fifth of the blobs, a third of the questions and one run of each UMAP.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLUSTERER = ROOT / 'functions' / 'clusterer'
PLUGIN = ROOT / 'examples' / 'ngram_embed'
DATA = ROOT.parent / 'shared' / 'data'
TRAIN = Path('banking77') / 'train.csv'
RIVAL = ROOT / '.local' / 'bench-rivals' / 'umap' / 'bin' / 'python'

# One setting for both sets: groups of at least 15, the number of neighbours that a layout is made from.
ALGORITHM = {'name': 'hdbscan', 'params': {'min_cluster_size': 15}}
SEED = 42


def clustered(vectors, **event):
    """One run of the clusterer as the Lambda does it, without the transport. Returns (result, cluster ids by row)."""
    sys.path.insert(0, str(CLUSTERER))
    import _event
    import _run

    rows, dims = vectors.shape
    given = {'vectors_url': 'http://x', 'texts_url': 'http://x', 'result_url': 'http://x'}
    request = _event.parse({'rows': rows, 'dims': dims, 'seed': SEED, **given, **event})
    result = _run.run(request, vectors, [str(i) for i in range(rows)], [''] * rows)
    return result, [member['cluster_id'] for member in result['members']]


def digits(_options):
    from sklearn.datasets import load_digits
    from sklearn.metrics import adjusted_rand_score

    vectors, truth = load_digits(return_X_y=True)
    result, labels = clustered(vectors.astype('float32'), metric='euclid', algorithm=ALGORITHM)
    clear = [(a, b) for a, b in zip(truth, labels, strict=True) if b != 'noise']
    return {
        'digits_ari': round(adjusted_rand_score(truth, labels), 4),
        'digits_ari_without_noise': round(adjusted_rand_score(*zip(*clear, strict=True)), 4),
        'digits_clusters': result['num_clusters'],
        'digits_noise_ratio': result['metrics']['noise_ratio'],
        'seconds': result['timings'],
    }


def banking(options):
    import numpy as np
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    sys.path.insert(0, str(PLUGIN))
    import pipeline

    with (options.data / TRAIN).open(encoding='utf-8', newline='') as file:
        questions = list(csv.DictReader(file))
    if options.quick:
        questions = questions[::3]
    embedder = pipeline.NgramEmbedder()
    vectors = [embedder.embed(question['text']) for question in questions]
    known = [i for i, vector in enumerate(vectors) if vector is not None]
    truth = [questions[i]['category'] for i in known]
    vectors = np.array([vectors[i] for i in known], dtype=np.float32)
    result, labels = clustered(vectors, metric='cosine', algorithm=ALGORITHM, map={'method': 'pca'})
    clear = [(a, b) for a, b in zip(truth, labels, strict=True) if b != 'noise']
    return {
        'banking77_nmi': round(normalized_mutual_info_score(*zip(*clear, strict=True)), 4),
        'banking77_nmi_with_noise': round(normalized_mutual_info_score(truth, labels), 4),
        'banking77_ari': round(adjusted_rand_score(*zip(*clear, strict=True)), 4),
        'banking77_rows': len(truth),
        'banking77_clusters': result['num_clusters'],
        'banking77_noise_ratio': result['metrics']['noise_ratio'],
        'seconds': result['timings'],
    }


def blobs(options):
    import numpy as np

    rows = 20_000 if options.quick else 100_000
    rng = np.random.default_rng(SEED)
    truth = rng.integers(0, 50, rows)
    centres = rng.uniform(-10, 10, (50, 128)).astype(np.float32)
    vectors = rng.standard_normal((rows, 128), dtype=np.float32)
    for start in range(0, rows, 10_000):
        vectors[start : start + 10_000] += centres[truth[start : start + 10_000]]
    made = cpu_seconds()
    result, labels = clustered(
        vectors, metric='euclid', algorithm=ALGORITHM, reduction={'method': 'pca'}, map={'method': 'pca'}
    )
    spent, peak = cpu_seconds(), peak_mb()
    from sklearn.metrics import adjusted_rand_score

    return {
        'blobs100k_cpu_s': round(spent, 2),
        'blobs100k_peak_mb': round(peak),
        'blobs100k_rows': rows,
        'blobs100k_ari': round(adjusted_rand_score(truth, labels), 4),
        'blobs100k_noise_ratio': result['metrics']['noise_ratio'],
        'seconds': {'make_cpu_seconds': round(made, 3), **result['timings']},
    }


def our_umap(options):
    sys.path.insert(0, str(CLUSTERER))
    import numpy as np
    from reduce import umap
    from reduce.neighbours import Neighbourhood
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        places = umap.embed(Neighbourhood(np.load(options.points)), 2, options.seed)
    np.save(options.places, places)
    return {'cpu_s': cpu_seconds()}


def their_umap(options):
    import numpy as np
    import umap

    model = umap.UMAP(n_components=2, n_neighbors=15, min_dist=0.1, random_state=options.seed, n_jobs=1)
    np.save(options.places, model.fit_transform(np.load(options.points)))
    return {'cpu_s': cpu_seconds()}


def cpu_seconds():
    """CPU of this process since it started, the interpreter and the imports included."""
    return time.process_time()


def peak_mb():
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PARTS = {function.__name__: function for function in (digits, banking, blobs, our_umap, their_umap)}


def knn_accuracy(places, truth):
    """Share of the rows whose ten nearest others on the map vote for their kind; of equal votes the smallest wins."""
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=10).fit(places).kneighbors(return_distance=False)
    votes = np.array([np.bincount(truth[row]).argmax() for row in near])
    return float((votes == truth).mean())


def in_own_process(python, part, options, *more):
    """What a part prints, from a fresh process. Raises RuntimeError with the end of what it complained about."""
    command = [str(python), __file__, '--part', part, '--data', str(options.data), *more]
    done = subprocess.run([*command, *(['--quick'] if options.quick else [])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{part}: {done.stderr.strip()[-300:] or "exit " + str(done.returncode)}')
    return json.loads(done.stdout.splitlines()[-1])


def maps(options, figures, missing):
    import numpy as np
    from sklearn.datasets import load_digits

    vectors, truth = load_digits(return_X_y=True)
    seeds = range(SEED, SEED + (1 if options.quick else 3))
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / 'points.npy'
        np.save(points, vectors.astype(np.float32))
        least = {}
        for part, python, name in (
            ('our_umap', sys.executable, 'umap'),
            ('their_umap', options.rival, 'umap_learn'),
        ):
            places = Path(folder) / f'{part}.npy'
            files = ['--points', str(points), '--places', str(places)]
            if not Path(python).exists():
                missing['umap_cpu_gain'] = f'no interpreter at {python}'
                continue
            try:
                times, accuracies = [], []
                for seed in seeds:
                    times.append(in_own_process(python, part, options, *files, '--seed', str(seed))['cpu_s'])
                    accuracies.append(knn_accuracy(np.load(places), truth))
            except RuntimeError as error:
                missing['umap_cpu_gain'] = str(error)
                continue
            least[part] = min(times)
            figures[f'{name}_cpu_s'] = round(least[part], 2)
            figures[f'{name}_knn_accuracy'] = round(sum(accuracies) / len(accuracies), 4)
        if len(least) == 2:
            figures['umap_cpu_gain'] = round(least['their_umap'] / least['our_umap'], 2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--data', type=Path, default=DATA)
    parser.add_argument('--umap-learn-python', dest='rival', type=Path, default=RIVAL)
    parser.add_argument('--part', choices=sorted(PARTS))
    parser.add_argument('--seed', type=int, default=SEED)
    parser.add_argument('--points', type=Path)
    parser.add_argument('--places', type=Path)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    figures, missing, seconds = {}, {}, {}
    for part, figure in (('digits', 'digits_ari'), ('banking', 'banking77_nmi'), ('blobs', 'blobs100k_cpu_s')):
        if part == 'banking' and not (options.data / TRAIN).exists():
            missing[figure] = f'there is no {options.data / TRAIN}'
            continue
        try:
            answer = in_own_process(sys.executable, part, options)
        except RuntimeError as error:
            missing[figure] = str(error)
            continue
        seconds[part] = answer.pop('seconds')
        figures |= answer
    maps(options, figures, missing)
    settings = {'algorithm': ALGORITHM, 'seed': SEED, 'quick': options.quick}
    print(json.dumps({**figures, 'settings': settings, 'seconds': seconds, 'missing': missing}))


main()
