"""Picks the taxonomy threshold for the sample articles from their labelled third, and prints how well it does.

Run: python examples/choose_threshold.py (needs numpy only). README.md beside this file describes the rule in words.
"""

import json
from pathlib import Path

import numpy as np

from ngram_embed.pipeline import NgramEmbedder

HERE = Path(__file__).resolve().parent


def read_json_lines(name):
    """Reads one JSON object per line from a file beside this script."""
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def embed(articles):
    """Embeds the texts of `articles`. Returns (n, 128) float32, rows of length 1."""
    embedder = NgramEmbedder()
    return np.array([embedder.embed(article["text"]) for article in articles])


def nearest_reference(vectors, references, own=False):
    """Finds the reference with the highest cosine for each row of `vectors`.

    With own=True both arguments are the same articles, and no article may be its own reference.
    Returns (positions, cosines), both (n,).
    """
    cosines = vectors @ references.T
    if own:
        np.fill_diagonal(cosines, -np.inf)
    positions = cosines.argmax(axis=1)
    return positions, cosines[np.arange(len(vectors)), positions]


def choose_threshold(scores, right):
    """Picks the score from which on a nearest reference's topic is taken over.

    scores: cosine of each labelled article to its nearest other labelled article.
    right: whether the two carry the same topic.
    The threshold maximises (topics that are right) - (topics that are wrong); of equally good ones the lowest is
    taken, so that more articles get a topic. It lies halfway between the lowest score that passes and the highest
    that does not, or on the lowest score if all pass. Raises ValueError if no threshold gives more right than wrong.
    """
    scores = np.asarray(scores, dtype=float)
    right = np.asarray(right, dtype=bool)
    best_gain, threshold = 0, None
    levels = np.unique(scores)[::-1]
    for position, level in enumerate(levels):
        passed = scores >= level
        gain = int(right[passed].sum() - (~right[passed]).sum())
        if gain > 0 and gain >= best_gain:
            below = levels[position + 1] if position + 1 < len(levels) else level
            best_gain, threshold = gain, float((level + below) / 2)
    if threshold is None:
        raise ValueError("no threshold gives more right than wrong topics; are the articles labelled correctly?")
    return threshold


def threshold_of(labelled, vectors):
    """Applies `choose_threshold` to labelled articles and their vectors, each article held out in turn."""
    positions, scores = nearest_reference(vectors, vectors, own=True)
    right = [article["topic"] == labelled[position]["topic"] for article, position in zip(labelled, positions)]
    return choose_threshold(scores, right)


def classify(vectors, labelled, references, threshold):
    """Gives each row the topic of its nearest labelled article, or None where that is below the threshold."""
    positions, scores = nearest_reference(vectors, references)
    return [labelled[p]["topic"] if score >= threshold else None for p, score in zip(positions, scores)]


def main():
    articles = read_json_lines("articles.jsonl")
    topics = {row["id"]: row["topic"] for row in read_json_lines("topics.jsonl")}
    labelled = [article for article in articles if "topic" in article]
    references = embed(labelled)
    threshold = threshold_of(labelled, references)
    print(f"threshold {threshold:.4f}, from {len(labelled)} labelled articles")

    unlabelled = [article for article in articles if "topic" not in article]
    for title, group in (("unlabelled", unlabelled), ("new", read_json_lines("new-articles.jsonl"))):
        given = classify(embed(group), labelled, references, threshold)
        true = [topics[article["id"]] for article in group]
        assigned = sum(topic is not None for topic in given)
        right = sum(a == b for a, b in zip(given, true))
        print(f"\n{title}: {assigned} of {len(group)} get a topic, {right} of those the right one")
        names = sorted(set(true))
        print(f"{'true topic':<12}" + "".join(f"{name:>11}" for name in [*names, "none"]))
        for name in names:
            cells = [sum(t == name and g == other for t, g in zip(true, given)) for other in [*names, None]]
            print(f"{name:<12}" + "".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
