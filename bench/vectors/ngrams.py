"""Embeds the texts beside the project by the sample plugin, at any dimension, into files of float32 rows.

    ngrams.py <plugin folder> <text folder> <dims> <rows at most> <queries> <rows file> <queries file>
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np


def read_texts(folder):
    """The distinct texts of all sets that are there, in the order of the files."""
    texts = {}
    for name in ("train.csv", "test.csv"):
        path = folder / "banking77" / name
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                texts.update((row["text"], None) for row in csv.DictReader(file))
    path = folder / "clinc150" / "data_full.json"
    if path.exists():
        for part in json.loads(path.read_text(encoding="utf-8")).values():
            texts.update((text, None) for text, _intent in part)
    return list(texts)


def main():
    plugin, folder, dims, rows, queries, rows_file, queries_file = sys.argv[1:]
    sys.path.insert(0, plugin)
    import pipeline

    pipeline.DIMS = int(dims)
    embedder = pipeline.NgramEmbedder()
    vectors = (embedder.embed(text) for text in read_texts(Path(folder)))
    vectors = np.array([vector for vector in vectors if vector is not None], dtype=np.float32)
    # Mixed, so that the queries come from all sets; the same every time.
    vectors = vectors[np.random.default_rng(1).permutation(len(vectors))]
    vectors[: int(queries)].tofile(queries_file)
    vectors[int(queries) :][: int(rows)].tofile(rows_file)


main()
