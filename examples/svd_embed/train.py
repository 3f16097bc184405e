"""Makes `models/weights.npz` from the sample articles. The same articles give the same weights, whatever the machine,
up to rounding.

    .local/venv/bin/python -m examples.svd_embed.train
"""

import json
from pathlib import Path

import numpy as np

from .grams import counts_of, weighted

DIMS = 48
FOLDER = Path(__file__).parent
ARTICLES = FOLDER.parent / "articles.jsonl"


def train(texts, dims=DIMS):
    """Rarity of each place (2,048 numbers), and the projection (2,048 x `dims`)."""
    counts = np.array([counts_of(text) for text in texts])
    # Rare n-grams tell more; one that no text has gets the weight of one that a single text has.
    rarity = np.log((1 + len(texts)) / np.maximum(1, (counts > 0).sum(axis=0)))
    rows = np.array([weighted(one, rarity) for one in counts])
    # What all texts share is no difference between them.
    _, strengths, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    projection = directions[:dims].T
    # A decomposition may turn any direction round; the largest part of each decides.
    signs = np.sign(projection[np.abs(projection).argmax(axis=0), np.arange(dims)])
    # The square root keeps the strongest themes from drowning the others.
    return rarity, projection * signs / np.sqrt(strengths[:dims] / strengths[0])


def main():
    """Writes the file."""
    lines = ARTICLES.read_text(encoding="utf-8").splitlines()
    rarity, projection = train([json.loads(line)["text"] for line in lines])
    path = FOLDER / "models" / "weights.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, rarity=rarity.astype(np.float16), projection=projection.astype(np.float16))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
