"""Turns texts into vectors with weights that came in the archive.

Weights lie under `models/` and are read by their path beside this file, once, when the steps are built. They were made by
`train.py` from the sample articles: a matrix that turns 2,048 n-gram places into 48 numbers, chosen so that as much as
possible of the articles' differences is kept (a truncated singular value decomposition). Words that occur together in the
articles so end up near each other, a little.
"""

from pathlib import Path

import numpy as np

from .grams import counts_of, weighted

WEIGHTS = Path(__file__).parent / "models" / "weights.npz"


class Embedder:
    """The trained projection."""

    def __init__(self, path=WEIGHTS):
        with np.load(path, allow_pickle=False) as stored:
            self._rarity = stored["rarity"].astype(np.float64)
            # Stored in half precision, which is exact enough for directions and halves the archive.
            self._projection = stored["projection"].astype(np.float64)

    def embed(self, text):
        """A list of 48 numbers of length one, or None for a text without a letter or digit."""
        vector = weighted(counts_of(text), self._rarity) @ self._projection
        length = np.linalg.norm(vector)
        return (vector / length).tolist() if length > 0 else None


class EmbedTexts:
    """The one step: reads column `data`, adds column `svd_embed_v1_embedding`."""

    def __init__(self):
        self._embedder = Embedder()

    def __call__(self, rows):
        rows["svd_embed_v1_embedding"] = [
            self._embedder.embed(text) if isinstance(text, str) else None for text in rows["data"]
        ]
        return rows


def build_steps(extractor_request=None, container=None, **kwargs):
    """Granary's entry point."""
    return {"steps": [EmbedTexts()]}
