"""The example plugin with weights of its own: that they are those of the script, and what they are worth."""

import json
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from svd_embed import pipeline, train  # noqa: E402


def read(name):
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


ARTICLES = read("articles.jsonl")
HELD_BACK = {row["id"]: row["topic"] for row in read("topics.jsonl")}


def test_the_stored_weights_are_those_that_the_script_makes_of_the_articles(tmp_path):
    rarity, projection = train.train([article["text"] for article in ARTICLES])
    made = tmp_path / "weights.npz"
    np.savez(made, rarity=rarity, projection=projection)
    stored, anew = pipeline.Embedder(), pipeline.Embedder(made)
    for article in ARTICLES:
        assert np.dot(stored.embed(article["text"]), anew.embed(article["text"])) > 0.999


def test_the_weights_are_small_and_hold_arrays_alone():
    assert pipeline.WEIGHTS.stat().st_size < 300_000
    with np.load(pipeline.WEIGHTS, allow_pickle=False) as stored:
        assert {name: stored[name].shape for name in stored} == {"rarity": (2048,), "projection": (2048, 48)}
        assert all(np.isfinite(stored[name]).all() for name in stored)


def test_four_of_five_articles_lie_nearest_to_a_labelled_one_of_their_topic():
    embedder = pipeline.Embedder()
    labelled = [article for article in ARTICLES if "topic" in article]
    rest = [article for article in ARTICLES if "topic" not in article]
    references = np.array([embedder.embed(article["text"]) for article in labelled])
    scores = np.array([embedder.embed(article["text"]) for article in rest]) @ references.T
    right = [labelled[i]["topic"] == HELD_BACK[a["id"]] for i, a in zip(scores.argmax(axis=1), rest)]
    assert np.mean(right) >= 0.8


def test_any_text_has_a_unit_vector_or_none():
    embedder = pipeline.Embedder()
    for text in ("", "  ", "...", "?!"):
        assert embedder.embed(text) is None
    for text in ("x", "zürich 東京", "a" * 100_000, "word " * 10_000, "\ud800 broken"):
        vector = embedder.embed(text)
        assert len(vector) == 48 and abs(np.linalg.norm(vector) - 1) < 1e-9
