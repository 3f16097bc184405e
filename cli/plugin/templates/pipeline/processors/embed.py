"""Turns passages into vectors by the words in them."""

import re
import zlib

import numpy as np

DIMS = 256
WORD = re.compile(r"\w+")


def embed(text):
    """The vector of one passage as a list of DIMS numbers, or None if it has no words."""
    vector = np.zeros(DIMS)
    for word in WORD.findall(text.lower()):
        code = zlib.crc32(word.encode("utf-8"))
        # Random signs let two words that share a place cancel each other on average.
        vector[code % DIMS] += -1.0 if code >> 31 else 1.0
    length = np.linalg.norm(vector)
    return (vector / length).tolist() if length > 0 else None


class EmbedPassages:
    """Fills the column that the manifest names."""

    def __call__(self, rows):
        rows["my_plugin_v1_embedding"] = [embed(passage) for passage in rows["passage"]]
        return rows
