"""Gives each text a vector that depends on the text alone: a direction drawn at random, seeded by the text.

The same text has the same vector in every run, so a search for exactly that text finds it first. Different
texts have unrelated vectors, however alike they read: this plugin shows the interface, and `ngram_embed`
beside it shows vectors whose nearness means something.
"""

import hashlib
from typing import Any, List, Optional

import numpy as np
import pandas as pd

DIMS = 128
INPUT_COLUMN = "data"
OUTPUT_COLUMN = "text_embed_v1_embedding"


def embed(text: str) -> Optional[List[float]]:
    """The vector of one text: 128 numbers of length one, or None if the text is blank."""
    if not text.strip():
        return None
    seed = int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
    direction = np.random.default_rng(seed).normal(size=DIMS)
    return (direction / np.linalg.norm(direction)).astype(np.float32).tolist()


class TextEmbedder:
    """The one step of the pipeline: gets a table of rows and gives it back with the column of vectors.

    A row whose text is missing or blank has None in that column: it becomes a document without a vector.
    """

    def __init__(self, config: Optional[dict] = None, **kwargs: Any) -> None:
        self.config = config or {}

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        if batch.empty:
            return batch
        batch = batch.reset_index(drop=True)
        vectors = [None if value is None else embed(str(value)) for value in batch[INPUT_COLUMN]]
        # An object column keeps None as None.
        batch[OUTPUT_COLUMN] = pd.Series(vectors, dtype=object)
        return batch


class PipelineResult:
    """What ``extract`` returns: the steps, and a function that may rearrange the rows before them."""

    def __init__(self, steps: list, prepare: Any) -> None:
        self.steps = steps
        self.prepare = prepare


def build_steps(
    extractor_request=None, container=None, base_steps=None, dataset_size=None, content_flags=None
):
    """Called once by the warehouse; every frame of a batch then goes through the steps.

    ``extractor_request.extractor_config.parameters`` holds the parameters of the collection. Leave out
    arguments that you do not need, or take ``**kwargs``.
    """
    return {"steps": [*(base_steps or []), TextEmbedder()], "prepare": lambda rows: rows}


def extract(extractor_request=None, base_steps=None, dataset_size=None, content_flags=None):
    """The older form of build_steps, for tools that know only that."""
    result = build_steps(extractor_request, None, base_steps, dataset_size, content_flags)
    return PipelineResult(result["steps"], result["prepare"])
