"""Embeds texts by the sample plugin in both of its forms, for the bench of taxonomies.

    ngrams.py PLUGIN_FOLDER VECTORS_FILE < texts.json

Reads a list of texts and writes float32 rows: first those of the plugin without parameters, which is made for articles,
then those with {"words": "all"}, which is made for questions of one line. A text without a vector has a row of zeros.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np


def rows_of(embedder, texts, dims):
    zero = np.zeros(dims, dtype=np.float32)
    vectors = (embedder.embed(text) for text in texts)
    return np.array([zero if vector is None else vector for vector in vectors], dtype=np.float32)


def main():
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder.parent))
    pipeline = importlib.import_module(f"{folder.name}.pipeline")
    texts = json.load(sys.stdin)
    forms = [rows_of(pipeline.NgramEmbedder(words), texts, pipeline.DIMS) for words in ("topic", "all")]
    np.concatenate(forms).tofile(sys.argv[2])


main()
