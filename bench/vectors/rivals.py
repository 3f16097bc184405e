"""faiss-cpu and numpy: exact search by inner product, on one thread. Speaks as bench/vectors/protocol.ts says.

    rivals.py <data set>
"""

import json
import sys
import time

import faiss
import numpy as np

K = 10
BATCH = 16


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        data = json.load(file)
    dims = data["dims"]
    matrix = np.fromfile(data["rowsFile"], dtype=np.float32).reshape(-1, dims)
    queries = np.fromfile(data["queriesFile"], dtype=np.float32).reshape(-1, dims)
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(dims)
    index.add(matrix)

    def taken(first, count):
        return queries[(first + np.arange(count)) % len(queries)]

    def by_faiss(first, count):
        scores, rows = index.search(taken(first, count), K)
        return rows, scores

    def by_numpy(first):
        scores = matrix @ taken(first, 1)[0]
        rows = np.argpartition(scores, -K)[-K:]
        rows = rows[np.argsort(-scores[rows])]
        return rows[None], scores[rows][None]

    works = {
        "faiss": lambda first: by_faiss(first, 1),
        "faiss_batch": lambda first: by_faiss(first, BATCH),
        "numpy": by_numpy,
    }

    def answer(value):
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    answer({"ready": True, "facts": {"faiss": faiss.__version__, "numpy": np.__version__}})
    for line in sys.stdin:
        work, first, calls = line.split()
        if work not in works:
            answer({"error": f"no work {work}"})
            continue
        done = []
        for call in range(int(calls)):
            wall, cpu = time.perf_counter(), time.process_time()
            rows, scores = works[work](int(first) + call)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            found = [
                [[int(row), float(score)] for row, score in zip(*hits, strict=True)]
                for hits in zip(rows, scores, strict=True)
            ]
            done.append({"cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3, "found": found})
        answer({"calls": done})


main()
