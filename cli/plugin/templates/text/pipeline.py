"""Turns texts into vectors. Granary calls build_steps once and sends every table of rows through the steps.

This one counts words: each word has a place among the numbers of the vector, found by hashing it, and the more
often it occurs the larger that number is. Replace `embed` by something better.
"""

import re
import zlib

import numpy as np

DIMS = 256
WORD = re.compile(r"\w+")


def embed(text):
    """The vector of one text as a list of DIMS numbers, or None if it has no words."""
    vector = np.zeros(DIMS)
    for word in WORD.findall(text.lower()):
        code = zlib.crc32(word.encode("utf-8"))
        # Random signs let two words that share a place cancel each other on average.
        vector[code % DIMS] += -1.0 if code >> 31 else 1.0
    length = np.linalg.norm(vector)
    return (vector / length).tolist() if length > 0 else None


class EmbedTexts:
    """The one step: gets a table of rows, and gives it back with the column that the manifest names.

    A row with None in that column becomes a document without a vector. A row that raises an error fails alone.
    """

    def __call__(self, rows):
        vectors = [embed(text) if isinstance(text, str) else None for text in rows["data"]]
        rows["my_plugin_v1_embedding"] = vectors
        # Every other new column becomes a field of the document.
        rows["words"] = [len(WORD.findall(text)) if isinstance(text, str) else 0 for text in rows["data"]]
        return rows


def build_steps(extractor_request, container=None, **kwargs):
    """The steps, built once for a collection.

    extractor_request.extractor_config.parameters holds the parameters of the collection.
    """
    return {"steps": [EmbedTexts()]}
