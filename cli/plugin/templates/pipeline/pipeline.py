"""Cuts long texts into passages and embeds each: two steps after a preparation.

One row may become several: the column `__row` tells Granary which row an output came from, so keep it.
"""

from .processors.embed import EmbedPassages
from .processors.passages import CutIntoPassages


def drop_blank(rows):
    """Runs before the steps. A row that is left out here gives no document."""
    return rows[[isinstance(text, str) and text.strip() != "" for text in rows["data"]]]


def build_steps(extractor_request, container=None, **kwargs):
    """The steps, built once for a collection; its parameters come with the request."""
    parameters = extractor_request.extractor_config.parameters
    words_max = parameters.get("words_max", 20)
    if not isinstance(words_max, int) or words_max < 1:
        raise ValueError(f"words_max must be a whole number from 1, not {words_max!r}")
    return {"prepare": drop_blank, "steps": [CutIntoPassages(words_max), EmbedPassages()]}
